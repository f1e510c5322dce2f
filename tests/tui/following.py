"""Follows a run as the viewer does, without a screen."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from gradtui.tui.follow_thread import FollowThread
from gradtui.tui.run_follower import RunFollower
from gradtui.tui.run_view import RunView, Waiting
from gradtui.view import Snapshot


def follow(
    path: Path, deliver: Callable[[Snapshot | Waiting], None], **options: float
) -> tuple[RunView, FollowThread[Snapshot | Waiting]]:
    """What is shown of a run, and the thread that follows it, which has started."""
    view = RunView(RunFollower(lambda: path))
    thread = FollowThread(view, deliver, **options)
    thread.start()
    return view, thread
