"""What breaks before anything is recorded, under `gradtui run`: there layers are known at an optimizer's first step."""

from __future__ import annotations

import weakref

from torch import Tensor

from gradtui.record.backward import backwards
from gradtui.record.graph import is_larger, leaves_of
from gradtui.record.origin import MOST_OPERATIONS, Break, Slopes, broken_gradient, find_break, slopes_of

MOST_CALLS = 4  # of `backward` that are looked at


class FirstSteps:
    """Looks at the first calls of `backward`. There is one, `first_steps`."""

    def __init__(self) -> None:
        self._loss: Break | None = None
        self._gradient: Break | None = None
        self._calls = 0
        self._leaves: list[weakref.ref[Tensor]] = []
        self._slopes = Slopes()

    def begin(self) -> None:
        """Look from here on."""
        self.__init__()  # type: ignore[misc]
        backwards.listen(self)
        backwards.follow(self)

    def take(self) -> tuple[Break | None, Break | None]:
        """Where a loss broke, and where a gradient did that has not been whole since; looks no longer."""
        found = self._loss, self._gradient
        backwards.ignore(self)
        backwards.unfollow(self)
        self._loss = self._gradient = None
        return found

    def loss_broke(self, loss: Tensor) -> None:
        """The loss is NaN or infinite before the first step."""
        if self._loss is None:
            try:
                self._loss = find_break(loss, leaves_of(loss), 0)
            except Exception:
                backwards.ignore(self)

    def backward_begins(self, loss: Tensor | None) -> None:
        """The graph is still there."""
        try:
            self._calls += 1
            is_looked_at = loss is not None and loss.is_cpu and self._calls <= MOST_CALLS
            if loss is not None and is_looked_at and not is_larger(loss, MOST_OPERATIONS):
                self._leaves = [weakref.ref(leaf) for leaf in leaves_of(loss)]
                self._slopes = slopes_of(loss)
            else:
                self._leaves, self._gradient = [], None
                backwards.unfollow(self)
        except Exception:
            backwards.unfollow(self)

    def backward_ended(self) -> None:
        """The gradients are there."""
        try:
            leaves = [leaf for leaf in (ref() for ref in self._leaves) if leaf is not None]
            found = broken_gradient(1, leaves, self._slopes)
            self._gradient = found and (self._gradient or found)  # a loss scaler leaves out what is infinite
        except Exception:
            backwards.unfollow(self)


first_steps = FirstSteps()
