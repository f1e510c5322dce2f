"""Whether a run is live, done or died: from its ending, its process and its heartbeat, never from a flag alone."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

SILENT_AFTER = 15.0  # s without a heartbeat after which a run whose process we cannot see counts as died

State = Literal["live", "finished", "stopped", "failed", "died"]


@dataclass(frozen=True)
class Status:
    """The state of a run; `detail` says more in words, `silent` is the age of the last heartbeat in seconds.

    `nan_since` is the step since which the loss, or what it is made of, is NaN or infinite; None if it is not.
    """

    state: State
    detail: str = ""
    silent: float = 0.0
    nan_since: int | None = None

    @property
    def words(self) -> str:
        """The state, and that of the numbers: "finished, NaN since step 412"."""
        return self.state if self.nan_since is None else f"{self.state}, NaN since step {self.nan_since:,}"

    @property
    def live(self) -> bool:
        """True while the training can still add to the run."""
        return self.state == "live"


def machine_identity() -> str:
    """Names the kernel and process namespace in which a pid means something."""
    parts = [os.uname().nodename]
    for source in (_boot_id, _pid_namespace):
        try:
            parts.append(source())
        except OSError:  # not Linux: the host name has to do
            continue
    return "/".join(parts)


def process_start(pid: int) -> str | None:
    """When a process on this machine started, as an opaque mark; None if there is no such process, or a zombie.

    Tells a process from a later one that was given the same pid.
    """
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None if sys.platform == "linux" else _start_without_proc(pid)
    after_name = stat.rpartition(")")[2].split()
    return None if after_name[0] in "ZX" else after_name[19]


def judge(ending: tuple[str, str] | None, heartbeat: float, machine: str, pid: int, started: str, now: float) -> Status:
    """Decide from the ending (outcome, detail), the last heartbeat and the process that recorded.

    `heartbeat` and `now` are seconds since the epoch; `machine`, `pid` and `started` are as the header has them.
    """
    if ending is not None:
        outcome, detail = ending
        known: dict[str, State] = {"finished": "finished", "stopped": "stopped", "failed": "failed"}
        return Status(known.get(outcome, "finished"), detail)
    silent = max(0.0, now - heartbeat)
    if machine == machine_identity():
        if process_start(pid) == started:
            return Status("live", silent=silent)
        return Status("died", f"process {pid} is gone and left no ending", silent)
    if silent > SILENT_AFTER:
        return Status("died", f"no sign of life for {silent:.0f} s", silent)
    return Status("live", silent=silent)


def _boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def _pid_namespace() -> str:
    return str(Path("/proc/self/ns/pid").readlink())


def _start_without_proc(pid: int) -> str | None:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return None
    except PermissionError:
        pass
    return ""
