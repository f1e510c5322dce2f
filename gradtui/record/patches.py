"""Everything that recording puts on PyTorch, on a training's objects and on the process, and how it comes off again.

`PATCHES` lists all of it. Whoever hooks or patches something does it by a function of this file, but for the finders
of `startup`, which run before gradtui can be imported. After the last recording is closed nothing is left but what
`Patch.stays` says.
"""

from __future__ import annotations

import atexit
import os
import sys
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.optim.optimizer import register_optimizer_step_pre_hook
from torch.overrides import TorchFunctionMode

from gradtui.record.hooks import BeforeStepHook, Hook, StepHook, do_nothing


@dataclass(frozen=True)
class Patch:
    """One thing that is put on.

    Attributes:
        what: the function, hook or list that is changed.
        where: the module of gradtui that puts it on.
        why: what it is for.
        undo: when and how it comes off.
        stays: what may be left after the last recording is closed, and why; "" if nothing is.
    """

    what: str
    where: str
    why: str
    undo: str
    stays: str = ""


FOR_PROCESS = "for the life of the process under `gradtui run`, which records whatever the process trains"

PATCHES = (
    Patch(
        "torch.autograd.backward",
        "record/backward.py",
        "the loss of each step; steps inside or without a visible call of the optimizer; where a NaN began",
        "`Replaced.undo` after the last recording",
        "under `gradtui run`; and our function, passing calls on, if somebody else has wrapped it since",
    ),
    Patch(
        "torch.autograd._engine_run_backward (what `torch.autograd.grad` calls), "
        "torch._functorch.eager_transforms.grad_and_value_impl",
        "record/grad_calls.py",
        "trainings without an optimizer that call `torch.autograd.grad` or `torch.func`; under `gradtui run` only",
        "`Replaced.undo` at the first step of an optimizer, after many calls without an update, or with the recording",
        "our function, passing calls on, if somebody else has wrapped it since",
    ),
    Patch(
        "torch._dynamo.decorators.skip on our own wrappers, torch.compiler.disable on what they call",
        "record/backward.py, record/grad_calls.py",
        "a compiled training step, which calls `backward` eagerly, is captured as without gradtui",
        "what `disable` made is dropped with the wrapper",
        "the compiler's mark on the code of our own functions",
    ),
    Patch(
        "torch._dynamo.output_graph.OutputGraph.call_user_compiler; torch.compile until the compiler is loaded",
        "record/compiled_graphs.py",
        "a copy of each graph that is compiled, which is run beside the training to sample activations",
        "`Replaced.undo` after the last recording",
        "under `gradtui run`; a function around each graph that was compiled meanwhile, passing calls on",
    ),
    Patch(
        "torch.amp.GradScaler.scale, .step",
        "record/scaler.py",
        "the loss before scaling; steps that are skipped because gradients overflowed, which call no hook",
        "`Replaced.undo` after the last recording",
        "our method, passing calls on, if somebody else has wrapped it since",
    ),
    Patch(
        "torch.optim: the global step pre-hook",
        "record/autoattach.py",
        "discovers each optimizer at its first step; `gradtui run` only, never `watch`",
        "not undone",
        FOR_PROCESS,
    ),
    Patch(
        "an optimizer's step pre-hook and post-hook",
        "record/optimizer_steps.py, record/sharded.py, record/replicas.py",
        "when a step begins and has been taken",
        "`StepHooks.remove`; `silence` if recording fails within a step, where PyTorch walks the hooks; the "
        "pre-hook is off while steps are only counted",
        "a silenced hook that does nothing, where another hook follows it; hooks that are part of a compiled step",
    ),
    Patch(
        "forward hooks of modules, until the first step",
        "record/layers.py",
        "the order and the shapes of the layers",
        "`ForwardHooks.remove` at the first step or with the recording",
        "hooks that do nothing, if anything was compiled: the model would be compiled again without them",
    ),
    Patch(
        "forward hooks of modules and a TorchFunctionMode, for one step",
        "record/activations.py",
        "sampled activations",
        "`ForwardHooks.remove` and `pop_mode` when the sampled step begins, or with the recording",
    ),
    Patch(
        "sys.meta_path, sys.modules['sitecustomize']",
        "record/startup/sitecustomize.py",
        "waits for the script to import torch, and finds gradtui from another environment; `gradtui run` only",
        "each finder of a module takes itself off when the module is imported",
        "the finder of gradtui itself, " + FOR_PROCESS,
    ),
    Patch(
        "atexit",
        "record/exit_hooks.py, callbacks/fit_recording.py, record/autoattach.py",
        "closes a recording that nobody closed; says what looked like a training and could not be recorded",
        "`atexit.unregister` after the last recording",
        "that of autoattach, " + FOR_PROCESS,
    ),
    Patch(
        "sys.exit, exit and quit (`_sitebuiltins.Quitter`)",
        "record/exit_hooks.py",
        "the exit code, by which a training has failed; `raise SystemExit(3)` without them is not seen",
        "`Replaced.undo` after the last recording",
        "our function, passing calls on, if somebody else has wrapped it since",
    ),
    Patch(
        "multiprocessing.util.Finalize",
        "record/exit_hooks.py",
        "closes a recording in a child process of `multiprocessing`, which calls nothing that `atexit` has",
        "`Finalize.cancel` after the last recording",
    ),
    Patch(
        "os.register_at_fork",
        "record/exit_hooks.py, record/autoattach.py",
        "a forked child does not write into its parent's run",
        "not undone",
        "a function that finds nothing to do: Python has no way to take it off",
    ),
    Patch(
        "weakref.finalize on optimizers",
        "record/optimizers.py, record/watching.py, record/autoattach.py, callbacks/fit_recording.py",
        "lets go of parameters, and ends the recording, when an optimizer is freed",
        "`finalize.detach` with the recording",
        "those of autoattach, which forget the id of an optimizer, " + FOR_PROCESS,
    ),
)


class Replaced:
    """A function with one of ours around it.

    Args:
        owner: the module or class that has it.
        name: of the function there.
        wrap: makes ours of the original.
    """

    def __init__(self, owner: Any, name: str, wrap: Callable[[Any], Any]) -> None:
        self._owner, self._name = owner, name
        self.original = getattr(owner, name)
        self.ours = wrap(self.original)
        setattr(owner, name, self.ours)

    @property
    def is_on(self) -> bool:
        """True while ours is what everybody calls."""
        return getattr(self._owner, self._name) is self.ours

    def undo(self) -> bool:
        """Put the original back; False if somebody has wrapped ours since: it stays, and passes calls on."""
        if self.is_on:
            setattr(self._owner, self._name, self.original)
            return True
        return False


class StepHooks:
    """The two hooks on an optimizer's step.

    PyTorch walks the very dict that `handle.remove()` changes, so that a hook which removes itself from within can
    break the step. Hence two ways to end: `remove` from outside, `silence` from within.
    """

    def __init__(self, optimizer: Any, before: Callable[..., Any], after: Callable[..., None]) -> None:
        self._optimizer = weakref.ref(optimizer)
        self._before, self._after = BeforeStepHook(before), StepHook(after)
        self._handles = [
            optimizer.register_step_pre_hook(self._before),
            optimizer.register_step_post_hook(self._after),
        ]

    def remove(self) -> None:
        """Take both hooks off; not from within one of them."""
        self._before.target = self._after.target = do_nothing
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    def rest(self, count: Callable[..., None]) -> None:
        """Leave out the hook before the step, and call `count` after it, until `wake`; not from before a step."""
        self._handles[0].remove()
        self._after.target = count

    def wake(self, after: Callable[..., None]) -> None:
        """Put the hook before the step on again, and call `after` after it."""
        optimizer = self._optimizer()
        if optimizer is not None and self._handles:
            self._handles[0] = optimizer.register_step_pre_hook(self._before)
            self._after.target = after

    def silence(self) -> None:
        """Make both do nothing from now on, from within the first; the second takes them off if it is safe."""
        self._before.target = do_nothing
        self._after.target = self._leave

    def _leave(self, *_: Any) -> None:
        self._after.target = do_nothing
        optimizer = self._optimizer()
        before, after = self._handles
        before.remove()  # nobody walks this one now
        hooks = getattr(optimizer, "_optimizer_step_post_hooks", {})
        if hooks and next(reversed(hooks)) == after.id:
            # the walk has already passed the last entry, so that taking it out is not noticed
            after.remove()


class ForwardHooks:
    """Hooks around the forward passes of modules; a copy of a module has none that does anything.

    Compiled TorchScript takes none, and is left out.
    """

    def __init__(self) -> None:
        self._hooks: list[tuple[Any, Hook]] = []

    def __bool__(self) -> bool:
        return bool(self._hooks)

    def before(self, module: nn.Module, target: Callable[..., Any], *, first: bool = False) -> None:
        """Call `target(module, inputs)` before each forward pass, before other hooks if `first`."""
        if isinstance(module, torch.jit.ScriptModule):
            return
        hook = Hook(target)
        self._hooks.append((module.register_forward_pre_hook(hook, prepend=first), hook))

    def after(self, module: nn.Module, target: Callable[..., Any], *, always: bool = False) -> None:
        """Call `target(module, inputs, output)` after it, also after one that raises if `always`."""
        if isinstance(module, torch.jit.ScriptModule):
            return
        hook = Hook(target)
        self._hooks.append((module.register_forward_hook(hook, always_call=always), hook))

    def remove(self) -> None:
        """Take them off."""
        for handle, _ in self._hooks:
            handle.remove()
        self._hooks.clear()

    def silence(self) -> None:
        """Leave them on, doing nothing."""
        for _, hook in self._hooks:
            hook.target = do_nothing
        self._hooks.clear()


def push_mode(mode: TorchFunctionMode) -> None:
    """Let a mode see PyTorch's functions until `pop_mode`."""
    mode.__enter__()  # type: ignore[no-untyped-call]


def pop_mode(mode: TorchFunctionMode) -> None:
    """Let it see them no longer."""
    mode.__exit__(None, None, None)  # type: ignore[no-untyped-call]


def skip_when_compiling(function: Callable[..., Any]) -> None:
    """Mark a function of ours so that compiled code calls it, but captures nothing of it. Loads the compiler."""
    from torch._dynamo.decorators import skip

    # `torch.compiler.disable(recursive=False)` does this by one more function around each call, 2 µs
    skip(function)


def never_compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function, as compiled code calls it eagerly, with all that it calls."""
    disable: Callable[..., Callable[..., Any]] = torch.compiler.disable
    return disable(function)


def on_every_optimizer(hook: Callable[..., Any]) -> Any:
    """Call `hook(optimizer, arguments, keywords)` before each step of every optimizer; a handle with `remove`."""
    return register_optimizer_step_pre_hook(hook)


def after_each_step(optimizer: Any, call: Callable[[Any], None]) -> Callable[[], None]:
    """Call it with the optimizer after each of its steps; what ends that, from within the step, too."""
    hook = StepHook(call)
    handle = optimizer.register_step_post_hook(hook)
    hooks = weakref.ref(optimizer)

    def remove() -> None:
        hook.target = do_nothing
        # within a step PyTorch walks the hooks: there only the last one can go
        walked = getattr(hooks(), "_optimizer_step_post_hooks", {})
        if walked and next(reversed(walked)) == handle.id:
            handle.remove()

    return remove


def at_exit(call: Callable[[], None]) -> Callable[[], None]:
    """Call it when the interpreter exits; what takes that back."""
    atexit.register(call)
    return lambda: atexit.unregister(call)


def at_worker_exit(call: Callable[[], None]) -> Callable[[], object]:
    """Call it when a child process of `multiprocessing` ends, if this is one; what takes that back."""
    process = sys.modules.get("multiprocessing.process")
    if process is None or process.parent_process() is None:
        return do_nothing
    from multiprocessing.util import Finalize

    return Finalize(None, call, exitpriority=0).cancel


def in_forked_child(call: Callable[[], None]) -> None:
    """Call it in each child process that is forked; this cannot be taken back."""
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=call)


def when_freed(owner: Any, call: Callable[..., Any], *arguments: Any) -> weakref.finalize[..., Any]:
    """Call it when `owner` is freed, but not because the interpreter exits; `detach` takes that back."""
    finalizer = weakref.finalize(owner, call, *arguments)
    finalizer.atexit = False
    return finalizer
