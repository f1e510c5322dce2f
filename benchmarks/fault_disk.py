"""Trouble with the disk and the file of a run, in the middle of a training that must not notice.

Each case trains a small net, recorded; after some steps the trouble comes, and the training goes on. Its weights are to
be those of the same training without a recorder, its exit code is to be its own, and what it says is to be one line on
what has happened.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import random
import resource
import shutil
import signal
import sqlite3
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fault_process as process
import torch
from fault_result import Result
from torch import nn

from gradtui.options import RecordOptions
from gradtui.record.recorder import Recorder
from gradtui.record.watching import start_recording
from gradtui.runfile import creation
from gradtui.runfile import writer as writer_module

BEFORE, AFTER = 30, 80  # steps until the trouble, and after it
PAUSE = 0.0005  # s a step
EXIT_CODE = 7  # of the script
NOBODY = 65534
MOST_LINES = 3  # that are said: what happened, what goes on without, and at the end what is lost
LONGEST_END = 5.0  # s that a training may take in all, on a busy machine


@dataclass(frozen=True)
class Trouble:
    """One kind.

    Attributes:
        outside: what another process does to the run file, while the training waits; may yield, and undo it after.
        inside: what befalls the training's own process at that moment.
        before: what another process does before the training begins.
        early: what befalls the training's own process then.
        told: whether it must be told; not where nothing is lost.
        plain_user: only an ordinary user meets it.
    """

    name: str
    outside: Callable[[Path], object] | None = None
    inside: Callable[[Path], None] | None = None
    before: Callable[[Path], None] | None = None
    early: Callable[[Path], None] | None = None
    told: bool = True
    plain_user: bool = False


def run(count: int, seed: int) -> list[Result]:
    """Each kind in turn, `count` cases in all; the figures."""
    first = random.Random(seed).randrange(len(TROUBLES))
    chosen = [TROUBLES[(first + number) % len(TROUBLES)] for number in range(count)]
    problems: dict[str, list[str]] = {}
    longest = 0.0
    with tempfile.TemporaryDirectory(prefix="faults-") as folder:
        Path(folder).chmod(0o755)
        wanted = _weights_of(Path(folder) / "plain", seed)
        _load(Path(folder) / "first.gradtui", seed)
        for number, trouble in enumerate(chosen):
            began = time.monotonic()
            found = one_case(trouble, Path(folder) / str(number), seed, wanted)
            longest = max(longest, time.monotonic() - began)
            problems.setdefault(trouble.name, []).extend(found)
    broken = {name: found for name, found in problems.items() if found}
    results = [Result(name, "; ".join(found[:2]), False) for name, found in broken.items()]
    kept = f"{len(problems) - len(broken)} of {len(problems)} kinds: weights bit for bit, its own exit code, one line"
    return [Result("trouble with the disk", kept, not broken), Result("longest", f"{longest:.1f} s", True), *results]


def one_case(trouble: Trouble, folder: Path, seed: int, wanted: str) -> list[str]:
    """What was promised and not kept."""
    path = folder / "runs" / "run.gradtui"
    path.parent.mkdir(parents=True)
    for part in (folder, path.parent):
        if trouble.plain_user and os.geteuid() == 0:
            os.chown(part, NOBODY, NOBODY)
    if trouble.before is not None:
        trouble.before(path)
    ready, go = os.pipe(), os.pipe()

    def work() -> int:
        os.close(ready[0]), os.close(go[1])  # it goes on if the harness is killed
        if trouble.plain_user and os.geteuid() == 0:
            os.setegid(NOBODY)
            os.seteuid(NOBODY)
        return _train(path, seed, trouble, ready[1], go[0])

    began = time.monotonic()
    pid = process.fork(work, folder / "output")
    os.close(ready[1]), os.close(go[0])
    os.read(ready[0], 1)
    during = trouble.outside(path) if trouble.outside is not None else None
    if isinstance(during, Iterator):
        next(during)
    with contextlib.suppress(BrokenPipeError):
        os.write(go[1], b".")
    os.close(go[1]), os.close(ready[0])
    code = process.wait(pid)
    took = time.monotonic() - began
    if isinstance(during, Iterator):
        next(during, None)
    return _look(trouble, folder, code, took, wanted)


def _look(trouble: Trouble, folder: Path, code: int | None, took: float, wanted: str) -> list[str]:
    problems = []
    output = (folder / "output").read_text(errors="replace").splitlines()
    weights = [line.removeprefix("weights ") for line in output if line.startswith("weights ")]
    said = [line for line in output if line.startswith("gradtui: ")]
    if weights != [wanted]:
        problems.append("other weights")
    if code != EXIT_CODE:
        problems.append(f"exit code {code}")
    if len(said) + len(weights) != len(output):
        problems.append(f"it printed {next(line for line in reversed(output) if line not in said)!r}")
    if len(said) > MOST_LINES or (trouble.told and not said):
        problems.append(f"{len(said)} lines were said: {said[:3]}")
    if took > LONGEST_END:
        problems.append(f"it took {took:.1f} s")
    if (folder / "victim").exists():
        problems.append("written through a link")
    return problems


# -- the training -------------------------------------------------------------------------------------------------


def _weights_of(folder: Path, seed: int) -> str:
    """The weights without a recorder."""
    import torch._dynamo

    # PyTorch looks at the processor at its first product, and computes otherwise where it cannot
    _net(seed)[0](torch.ones(4, 8))
    folder.mkdir()
    pid = process.fork(lambda: print("weights", _steps(*_net(seed), BEFORE + AFTER)), folder / "output")
    process.wait(pid)
    return (folder / "output").read_text().split()[1]


def _train(path: Path, seed: int, trouble: Trouble, ready: int, go: int) -> int:
    # as often as it takes for a short training
    writer_module.FLUSH_EVERY, writer_module.HEARTBEAT_EVERY, writer_module.RETRY_EVERY = 0.01, 0.02, 0.03
    writer_module.TELL_LOCKED_AFTER, writer_module.LOCKED_AT_END, creation.LOCK_WAIT = 0.05, 0.1, 0.02
    connect = sqlite3.connect
    sqlite3.connect = lambda *given, **named: connect(*given, **{"factory": _Failing, **named})  # type: ignore[assignment]
    descriptors = resource.getrlimit(resource.RLIMIT_NOFILE)
    if trouble.early is not None:
        trouble.early(path)
    net, optimizer = _net(seed)
    recording = start_recording(net, optimizer, RecordOptions(every=1, update_every=4), path=path)
    resource.setrlimit(resource.RLIMIT_NOFILE, descriptors)
    with Recorder(recording):
        _steps(net, optimizer, BEFORE)
        time.sleep(0.05)
        os.write(ready, b".")
        os.read(go, 1)
        if trouble.inside is not None:
            trouble.inside(path)
        weights = _steps(net, optimizer, AFTER)
    print("weights", weights)
    return EXIT_CODE


def _load(path: Path, seed: int) -> None:
    """Record a few steps, so that all modules are there: an ordinary user may not be able to read them."""
    net, optimizer = _net(seed)
    with Recorder(start_recording(net, optimizer, RecordOptions(every=1, update_every=4), path=path)):
        _steps(net, optimizer, BEFORE)


def _net(seed: int) -> tuple[nn.Module, torch.optim.Optimizer]:
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    net = nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Dropout(0.1), nn.Linear(16, 1))
    return net, torch.optim.Adam(net.parameters(), 0.01)


def _steps(net: nn.Module, optimizer: torch.optim.Optimizer, count: int) -> str:
    for _ in range(count):
        optimizer.zero_grad()
        net(torch.randn(4, 8)).square().mean().backward()
        optimizer.step()
        time.sleep(PAUSE)
    content = b"".join(parameter.detach().numpy().tobytes() for parameter in net.parameters())
    return hashlib.sha256(content).hexdigest()


# -- kinds of trouble ---------------------------------------------------------------------------------------------


def _no_descriptors(path: Path) -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))


class _Failing(sqlite3.Connection):
    """A disk that fails, or is slow, at these statements."""

    words: tuple[str, ...] = ()
    slow = 0.0  # s; it fails if that is 0

    def execute(self, statement: str, *rest: Any) -> sqlite3.Cursor:
        if self.words and statement.startswith(self.words):
            if not self.slow:
                raise sqlite3.OperationalError("disk I/O error")
            time.sleep(self.slow)
        return super().execute(statement, *rest)


def _failing(*words: str, slow: float = 0.0) -> Callable[[Path], None]:
    def begin(_: Path) -> None:
        _Failing.words, _Failing.slow = words, slow

    return begin


def _undone(change: Callable[[Path], object], undo: Callable[[Path], object]) -> Callable[[Path], Iterator[None]]:
    def both(path: Path) -> Iterator[None]:
        change(path)
        yield
        undo(path)

    return both


def _replace(path: Path) -> None:
    other = path.with_name("other")
    shutil.copy(path, other)
    other.replace(path)


def _noise(path: Path) -> None:
    size = path.stat().st_size
    with path.open("r+b") as file:
        for page in range(0, size, 4096):
            file.seek(page)
            file.write(random.Random(page).randbytes(100))


def _flip(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(28)
        byte = file.read(1)[0]
        file.seek(28)
        file.write(bytes([byte ^ 64]))


def _held(*statements: str) -> Callable[[Path], Iterator[None]]:
    """Another program holds the file until the training has ended."""

    def hold(path: Path) -> Iterator[None]:
        with contextlib.closing(sqlite3.connect(path, isolation_level=None, timeout=5.0)) as connection:
            for statement in statements:
                connection.execute(statement).fetchone()
            yield

    return hold


def _drop(path: Path) -> None:
    with contextlib.closing(sqlite3.connect(path, isolation_level=None, timeout=5.0)) as connection:
        connection.execute("DROP TABLE steps")


def _cut_companions(path: Path) -> Iterator[None]:
    """All the while, whatever lies beside the run is cut short or deleted, as by a program that cleans up."""
    stop = threading.Event()

    def cut() -> None:
        while not stop.is_set():
            for companion in path.parent.glob(f"{path.name}-*"):
                with contextlib.suppress(OSError):
                    os.truncate(companion, 0)
                    companion.unlink()

    thread = threading.Thread(target=cut)
    thread.start()
    yield
    stop.set()
    thread.join()


def _limit(path: Path, size: int) -> None:
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))


def _chmod(mode: int, *, folder: bool) -> Callable[[Path], None]:
    return lambda path: (path.parent if folder else path).chmod(mode)


def _file_for_folder(path: Path) -> None:
    path.parent.rmdir()
    path.parent.touch()


def _for_journal(make: Callable[[Path, Path], object]) -> Callable[[Path], None]:
    """Between two commits: in one, the journal is there."""

    def until_there(path: Path) -> None:
        journal = Path(f"{path}-journal")
        while True:
            with contextlib.suppress(FileExistsError):
                make(path, journal)
                return

    return until_there


def _victim(path: Path) -> Path:
    return path.parent.parent / "victim"


TROUBLES = (
    Trouble("the disk is full", inside=lambda path: _limit(path, path.stat().st_size)),
    Trouble("the disk is full from the start", early=lambda path: _limit(path, 8192)),
    Trouble("no descriptor is free", inside=_no_descriptors),
    Trouble("no descriptor is free from the start", early=_no_descriptors),
    Trouble("commits fail", inside=_failing("COMMIT")),
    Trouble("transactions fail to begin", inside=_failing("BEGIN")),
    Trouble("everything fails", inside=_failing("")),
    Trouble("the disk is slow", inside=_failing("COMMIT", slow=0.1), told=False),
    Trouble("folder read-only", _undone(_chmod(0o500, folder=True), _chmod(0o700, folder=True)), plain_user=True),
    Trouble("folder closed", _undone(_chmod(0, folder=True), _chmod(0o700, folder=True)), plain_user=True),
    Trouble("folder read-only from the start", before=_chmod(0o500, folder=True), plain_user=True),
    Trouble("a file in place of the folder", before=_file_for_folder),
    Trouble("folder removed", lambda path: shutil.rmtree(path.parent)),
    Trouble("folder renamed", lambda path: path.parent.rename(path.parent.with_name("renamed"))),
    Trouble("file removed", Path.unlink),
    Trouble("file replaced", _replace),
    Trouble("file renamed", lambda path: path.rename(path.with_name("renamed"))),
    Trouble("file emptied", lambda path: os.truncate(path, 0)),
    Trouble("file cut in half", lambda path: os.truncate(path, path.stat().st_size // 2)),
    Trouble("noise in the file", _noise),
    Trouble("a flipped bit in the file", _flip, told=False),
    Trouble("file closed", _undone(_chmod(0, folder=False), _chmod(0o600, folder=False)), told=False, plain_user=True),
    Trouble("table dropped", _drop),
    Trouble("a folder in place of the journal", _for_journal(lambda path, journal: journal.mkdir())),
    Trouble("a link in place of the journal", _for_journal(lambda path, journal: journal.symlink_to(_victim(path)))),
    Trouble("noise in place of the journal", lambda path: Path(f"{path}-journal").write_bytes(b"x" * 9000), told=False),
    Trouble("companions cut short", _cut_companions, told=False),
    Trouble("locked for ever", _held("BEGIN EXCLUSIVE")),
    Trouble("a reader that never ends", _held("BEGIN", "SELECT count(*) FROM steps")),
    Trouble("a link in place of the run", before=lambda path: path.symlink_to(_victim(path))),
)
