"""Records whatever this process trains, under `gradtui run`: begun when torch has been imported.

A global hook on the steps of all optimizers tells of each new one; the models behind its parameters are found once, at
its first step. Trainings without an optimizer show by parameters that change between two calls of `backward`, of
`torch.autograd.grad` or of a function of `torch.func`.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from gradtui import run_notes
from gradtui.errors import one_line, say_on_stderr
from gradtui.record.backward import backwards
from gradtui.record.compiled_graphs import compiled_graphs
from gradtui.record.first_steps import first_steps
from gradtui.record.grad_calls import grad_calls
from gradtui.record.patches import at_exit, in_forked_child, on_every_optimizer, when_freed
from gradtui.run_request import RunRequest

if TYPE_CHECKING:
    from gradtui.record.discover import ModelSearch
    from gradtui.record.grad_inputs import Inputs
    from gradtui.record.grad_steps import GradStepDetector
    from gradtui.record.layers import LayerSpec
    from gradtui.record.manual_steps import UpdateDetector
    from gradtui.record.recording import Recording
    from gradtui.record.step_source import StepSink

MANY_CALLS = 20  # of a gradient inside `vmap`, which may be the steps of a training
ANOTHER_COPY = (
    "the loss does not depend on any parameter of the optimizer, which has another copy of the model: "
    "make the optimizer from the model that is trained"
)
NEXT_RUN = "nobody trains the models of this run any more; the next ones are in a run of their own"
MOST_FORMER_LAYERS = 200  # of models that nobody trains any more, after which the next one begins another run
MANY_LEAVES = 5_000  # of one graph, after which no other one is walked for the order
TRACED = 4  # first calls of backward whose graph tells the order of the layers


class AutoRecorder:
    """Discovers each optimizer of the process at its first step, and starts recording it.

    Args:
        request: how to record, and where.
    """

    def __init__(self, request: RunRequest) -> None:
        self._request = request
        self._known: set[int] = set()  # ids of optimizers
        self._delayed: set[int] = set()  # ids of those that are looked at again at their second step
        self._ranks: dict[int, int] = {}
        self._leaves: list[weakref.ref[Tensor]] = []  # parameters that the last of those losses depended on
        self._traced = TRACED
        self._local = threading.local()
        self._models: ModelSearch | None = None
        self._looks_for_updates = True
        self._updates: UpdateDetector | None = None
        self._grads: GradStepDetector | None = None

    @property
    def _recording(self) -> Recording | None:
        """That of this thread: a training in another one is a run of its own."""
        return getattr(self._local, "recording", None)

    @_recording.setter
    def _recording(self, recording: Recording | None) -> None:
        self._local.recording = recording

    def begin(self) -> None:
        """Put the hooks on."""
        on_every_optimizer(self.before_any_step)
        self._look_for_updates()
        first_steps.begin()
        compiled_graphs.begin()
        in_forked_child(self._start_over)
        self._request.note(run_notes.TORCH)
        at_exit(self.note_what_was_missed)

    def note_what_was_missed(self) -> None:
        """Note what may have been a training, if nothing at all has been recorded; at the end of the process."""
        calls = grad_calls.transformed
        if calls >= MANY_CALLS:
            self._request.note(run_notes.HIDDEN, f"{calls:,}")

    def before_any_step(self, optimizer: Any, arguments: Any, keywords: Any) -> None:
        """The global hook; costs a look into a set for an optimizer that is known."""
        if torch.compiler.is_compiling() or id(optimizer) in self._known:
            return
        self._safely(lambda: self._on_new_optimizer(optimizer))

    def backward_begins(self, loss: Tensor | None) -> None:
        """Learn the order of the layers from the first graphs, and look for updates without an optimizer."""
        output = backwards.output if loss is None else loss
        if output is None:
            return
        if self._traced:
            self._traced -= 1
            self._safely(lambda: self._trace(output))
        if self._looks_for_updates:
            self._safely(lambda: self._look_at(output))

    def backward_ended(self) -> None:
        """Let the next calls pass by, once there is nothing left to learn from them."""
        if not self._traced and not self._looks_for_updates:
            backwards.unfollow(self)

    def grad_begins(self, inputs: Inputs, loss: Tensor | None) -> None:
        """Look for updates without an optimizer, by gradients that a training takes by itself."""
        self._safely(lambda: self._look_at_grads(inputs, loss))

    def grad_ended(self, inputs: Inputs, grads: Sequence[Tensor | None], loss: Tensor) -> None:
        """Nothing to do."""

    # -- inside -----------------------------------------------------------------------------------------------

    def _on_new_optimizer(self, optimizer: Any) -> None:
        from gradtui.record.discover import Discovered, find_specs
        from gradtui.record.hooks import is_ours
        from gradtui.record.replicas import Replicas, trains_replicas
        from gradtui.record.sharded import ShardedNorms, trains_shards
        from gradtui.record.watching import is_first_rank

        self._stop_looking()
        self._known.add(id(optimizer))
        when_freed(optimizer, self._known.discard, id(optimizer))
        if any(is_ours(hook) for hook in optimizer._optimizer_step_pre_hooks.values()):
            self._request.why_nothing()  # the script has `gradtui.watch` on it: nobody need wait for ours
            return
        shards = trains_shards(optimizer)
        if not is_first_rank():
            if shards:
                ShardedNorms(optimizer)  # gives the first rank its part
            elif trains_replicas(optimizer):
                Replicas(optimizer, lambda *_: None)
            return
        parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        recording = self._recording
        if recording is not None and recording.former_layers > MOST_FORMER_LAYERS:
            recording.event("recorder", NEXT_RUN)
            recording.close()
            recording = self._recording = None
        new = recording is None or not all(recording.knows(parameter) for parameter in parameters)
        if new and not shards and self._is_out_of_order(optimizer, parameters):
            return
        recording = self._recording = recording or self._new_recording()
        others = self._trained_instead_of(parameters) if new and not shards else []
        specs = find_specs([*parameters, *others], self._ranks, self._search()) if new else []
        recording.observe(optimizer, *([self._source(Discovered(specs))] if new else []))
        if others:
            say_on_stderr(ANOTHER_COPY)
            recording.event("recorder", ANOTHER_COPY)

    def _search(self) -> Any:
        """Finds models, within the budget once there are many of them."""
        from gradtui.record.discover import ModelSearch

        self._models = self._models or ModelSearch(self._request.options.budget)
        return self._models

    def _trained_instead_of(self, parameters: list[Tensor]) -> list[Tensor]:
        """The parameters that have gradients, if none of those of an optimizer has one nor is used by the losses."""
        if any(parameter.grad is not None or id(parameter) in self._ranks for parameter in parameters):
            return []
        alive = [leaf for leaf in (ref() for ref in self._leaves) if leaf is not None]
        leaves: list[Tensor] = [leaf for leaf in alive if isinstance(leaf, nn.Parameter) and leaf.grad is not None]
        return leaves if not any(map(self._is_known, leaves)) else []

    def _is_known(self, parameter: Tensor) -> bool:
        return self._recording is not None and self._recording.knows(parameter)

    def _is_out_of_order(self, optimizer: Any, parameters: list[Tensor]) -> bool:
        """True if the order of the layers will be known one step later: a model that came after the first ones."""
        if (
            backwards.active
            or id(optimizer) in self._delayed
            or not backwards.calls
            or any(id(parameter) in self._ranks for parameter in parameters)
        ):
            return False
        self._delayed.add(id(optimizer))
        self._known.discard(id(optimizer))
        self._traced = TRACED
        backwards.follow(self, everywhere=True)
        return True

    def _trace(self, loss: Tensor) -> None:
        from gradtui.record.graph import leaf_uses

        uses = leaf_uses(loss)
        self._leaves = [weakref.ref(leaf) for _, leaf in uses.values()]
        if len(uses) > MANY_LEAVES:
            self._traced = 0
        # a graph that holds a gradient, as of a penalty, uses layers backwards; the first graph does not
        self._ranks = {key: number for key, (number, _) in uses.items()} | self._ranks

    def _look_for_updates(self) -> None:
        self._looks_for_updates, self._updates, self._grads = True, None, None
        backwards.follow(self, everywhere=True)
        grad_calls.follow(self)

    def _stop_looking(self) -> None:
        """Who updates the parameters is known, or nobody seems to."""
        self._looks_for_updates, self._updates, self._grads = False, None, None
        grad_calls.unfollow(self)

    def _look_at(self, loss: Tensor) -> None:
        from gradtui.record.manual_steps import UpdateDetector

        if self._updates is None:
            self._updates = UpdateDetector(loss)
        elif self._updates.has_found():
            self._on_manual_steps(self._updates.parameters())
        elif leaves := self._updates.are_replaced(loss):
            self._on_replaced_steps(leaves, self._updates.replaced)
        elif self._updates.is_over:
            self._looks_for_updates = False

    def _look_at_grads(self, inputs: Inputs, loss: Tensor | None) -> None:
        from gradtui.record.grad_steps import GradStepDetector

        detector = self._grads = self._grads or GradStepDetector()
        if detector.has_found(inputs, loss):
            self._on_grad_steps(inputs, detector)
        elif detector.is_over:
            grad_calls.unfollow(self)

    def _on_manual_steps(self, parameters: list[Tensor]) -> None:
        """Parameters have changed between two calls of `backward`."""
        from gradtui.record.backward_steps import BackwardSteps
        from gradtui.record.discover import find_specs

        def start(sink: StepSink) -> tuple[BackwardSteps, list[LayerSpec]]:
            return BackwardSteps([{"params": parameters}], sink), find_specs(parameters, self._ranks)

        self._start(start, steps=1)

    def _on_replaced_steps(self, leaves: list[Tensor], steps: int) -> None:
        """Parameters have been replaced by others between calls of `backward`."""
        from gradtui.record.replaced_steps import ReplacedSteps

        def start(sink: StepSink) -> tuple[ReplacedSteps, list[LayerSpec]]:
            stepper = ReplacedSteps(leaves, sink)
            # ids of tensors that are no more may be those of others by now
            return stepper, stepper.specs(leaves, {id(leaf): place for place, leaf in enumerate(leaves)})

        self._start(start, steps=steps)

    def _on_grad_steps(self, inputs: Inputs, detector: GradStepDetector) -> None:
        """Parameters have changed between two calls that take gradients."""
        from gradtui.record.grad_steps import GradSteps

        def start(sink: StepSink) -> tuple[GradSteps, list[LayerSpec]]:
            stepper = GradSteps(inputs, detector.is_replaced, sink)
            return stepper, stepper.specs(inputs, {} if detector.is_replaced else self._ranks)

        self._start(start, steps=detector.steps)

    def _start(self, start: Callable[[StepSink], tuple[Any, list[LayerSpec]]], *, steps: int) -> None:
        """Record a training without an optimizer; `start` makes what stands in for one, and tells the layers."""
        from gradtui.record.discover import Discovered
        from gradtui.record.watching import is_first_rank

        self._stop_looking()
        if is_first_rank():
            self._recording = recording = self._recording or self._new_recording()
            if recording.path is not None:
                stepper, specs = start(recording.sink)
                recording.observe_stepper(stepper, self._source(Discovered(specs)), steps=steps)

    def _source(self, source: Any) -> Any:
        from gradtui.record.watching import Filtered

        return Filtered(source, self._request.options.layers)

    def _new_recording(self) -> Recording:
        from gradtui.record.watching import new_recording

        request = self._request
        recording = new_recording(request.options, request.acquire_path())
        if recording.path is None:
            request.note(run_notes.SAID)
            return recording
        request.register_run(recording.path)
        if recording.path == request.path and request.attach:
            say_on_stderr(f"recording to {request.path.stem}; watch it with `gradtui attach {request.attach}`")
        return recording

    def _safely(self, work: Callable[[], None]) -> None:
        try:
            work()
        except Exception as error:
            self._stop(error)

    def _stop(self, error: Exception) -> None:
        self._traced = 0
        self._stop_looking()
        self._request.note(run_notes.SAID)
        say_on_stderr(f"an optimizer is not recorded ({one_line(error)}); training goes on")

    def _start_over(self) -> None:
        """In a forked child: what it trains by itself is a run of its own."""
        self._local = threading.local()
        self._known.clear()
        self._delayed.clear()
        self._traced = TRACED
        backwards.start_over()
        first_steps.begin()
        self._look_for_updates()


def begin(after_import: Callable[[str, Callable[[], None]], None]) -> None:
    """Begin to look at what this process trains, if `gradtui run` asked for it.

    `after_import` calls a function once a module has been imported.
    """
    request = RunRequest.given()
    if request is not None:
        AutoRecorder(request).begin()
        after_import("torch._dynamo", _hide)


def _hide() -> None:
    compiled_graphs.put_on()
    backwards.hide()
    grad_calls.hide()
