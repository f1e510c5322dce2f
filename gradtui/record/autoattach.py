"""Records whatever this process trains, under `gradtui run`: begun when torch has been imported.

A global hook on the steps of all optimizers tells of each new one; the models behind its parameters are found once, at
its first step. Trainings without an optimizer show by parameters that change between two calls of `backward`.
"""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.optim.optimizer import register_optimizer_step_pre_hook

from gradtui.errors import one_line, say_on_stderr
from gradtui.record.backward import backwards
from gradtui.run_request import RunRequest

if TYPE_CHECKING:
    from gradtui.record.recorder import Recorder

TRACED = 4  # first calls of backward whose graph tells the order of the layers


class AutoRecorder:
    """Meets each optimizer of the process at its first step, and has it recorded.

    Args:
        request: how to record, and where.
    """

    def __init__(self, request: RunRequest) -> None:
        self._request = request
        self._known: set[int] = set()  # ids of optimizers
        self._waited: set[int] = set()  # ids of those whose first step was let pass
        self._ranks: dict[int, int] = {}
        self._traced = TRACED
        self._recorder: Recorder | None = None
        self._looks_for_hands = True
        self._pid = os.getpid()

    def begin(self) -> None:
        """Put the hooks on."""
        register_optimizer_step_pre_hook(self.before_any_step)
        backwards.follow(self)
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._forget)

    def before_any_step(self, optimizer: Any, arguments: Any, keywords: Any) -> None:
        """The global hook; costs a look into a set for an optimizer that is known."""
        if torch.compiler.is_compiling() or id(optimizer) in self._known:
            return
        self._safely(lambda: self._meet(optimizer))

    def backward_begins(self, loss: Tensor | None) -> None:
        """Learn the order of the layers from the first graphs."""
        if loss is None:
            return
        if self._traced:
            self._traced -= 1
            self._safely(lambda: self._trace(loss))
        if self._looks_for_hands:
            self._safely(lambda: self._look_for_hands(loss))

    def backward_ended(self) -> None:
        """Let the next calls pass by, once there is nothing left to learn from them."""
        if not self._traced and not self._looks_for_hands:
            backwards.unfollow(self)

    # -- inside -----------------------------------------------------------------------------------------------

    def _meet(self, optimizer: Any) -> None:
        from gradtui.record.discover import Discovered
        from gradtui.record.hooks import BeforeStepHook
        from gradtui.record.sharded import ShardedNorms, trains_shards
        from gradtui.record.watching import is_first_rank

        self._looks_for_hands = False
        self._known.add(id(optimizer))
        weakref.finalize(optimizer, self._known.discard, id(optimizer)).atexit = False
        if any(isinstance(hook, BeforeStepHook) for hook in optimizer._optimizer_step_pre_hooks.values()):
            return  # the script has `gradtui.watch` on it
        shards = trains_shards(optimizer)
        if not is_first_rank():
            if shards:
                ShardedNorms(optimizer)  # gives the first rank its part
            return
        parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        recorder = self._recorder
        new = recorder is None or not all(recorder.knows(parameter) for parameter in parameters)
        if new and not shards and self._is_out_of_order(optimizer, parameters):
            return
        recorder = self._recorder = recorder or self._new_recorder()
        recorder.observe(optimizer, *([self._source(Discovered(parameters, self._ranks))] if new else []))

    def _is_out_of_order(self, optimizer: Any, parameters: list[Tensor]) -> bool:
        """True if the order of the layers will be known one step later: a model that came after the first ones."""
        if (
            backwards.active
            or id(optimizer) in self._waited
            or not backwards.calls
            or any(id(parameter) in self._ranks for parameter in parameters)
        ):
            return False
        self._waited.add(id(optimizer))
        self._known.discard(id(optimizer))
        self._traced = TRACED
        backwards.follow(self)
        return True

    def _trace(self, loss: Tensor) -> None:
        from gradtui.record.discover import order_of_use

        self._ranks.update(order_of_use(loss))

    def _look_for_hands(self, loss: Tensor) -> None:
        from gradtui.record.manual_steps import Suspicion

        if not hasattr(self, "_suspicion"):
            self._suspicion: Suspicion = Suspicion(loss)
            return
        if not self._suspicion.confirmed():
            self._looks_for_hands = not self._suspicion.over
            return
        self._looks_for_hands = False
        from gradtui.record.discover import Discovered
        from gradtui.record.watching import is_first_rank

        if is_first_rank():
            parameters = self._suspicion.parameters()
            self._recorder = self._recorder or self._new_recorder()
            self._recorder.go_by_backward(
                [{"params": parameters}], self._source(Discovered(parameters, self._ranks)), steps=1
            )

    def _source(self, source: Any) -> Any:
        from gradtui.record.watching import Filtered

        return Filtered(source, self._request.options.layers)

    def _new_recorder(self) -> Recorder:
        from gradtui.record.watching import new_recorder

        recorder = new_recorder(self._request.options, self._request.acquire_path())
        if recorder.path is not None:
            self._request.register_run(recorder.path)
        return recorder

    def _safely(self, work: Callable[[], None]) -> None:
        try:
            work()
        except Exception as error:
            self._traced, self._looks_for_hands = 0, False
            say_on_stderr(f"an optimizer is not recorded ({one_line(error)}); training goes on")

    def _forget(self) -> None:
        """In a forked child: what it trains by itself is a run of its own."""
        self._recorder = None
        self._looks_for_hands = True
        backwards.follow(self)


def begin(after_import: Callable[[str, Callable[[], None]], None]) -> None:
    """Begin to look at what this process trains, if `gradtui run` asked for it.

    `after_import` calls a function once a module has been imported.
    """
    request = RunRequest.given()
    if request is not None:
        AutoRecorder(request).begin()
        after_import("torch._dynamo", backwards.hide)
