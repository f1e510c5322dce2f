"""Where the trainings of a comparison run: in worker processes of this computer, or on a Dask or Ray cluster."""

from __future__ import annotations

import contextlib
import os
import signal
import tempfile
import threading
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from gradtui.errors import ExtraMissingError, GradtuiError, UsageError
from gradtui.lab.plan import Cell

CLUSTER_TIMEOUT = 10.0  # s to wait for a cluster's answer


@dataclass(frozen=True)
class Ended:
    """What a worker sends back.

    Attributes:
        number: of the cell, in the order in which they were given.
        problem: why the training failed; empty if it did not.
        content: the run file, where the worker's disk is not ours.
    """

    number: int
    problem: str
    content: bytes | None


def train_all(cells: list[Cell], backend: str = "loky", jobs: int = -1) -> Generator[Ended, None, None]:
    """Train the cells, and tell of each as it ends; closing the iterator stops the trainings that are not done.

    Raises:
        UsageError: there is no such backend.
        ExtraMissingError: its package is not installed.
        GradtuiError: its cluster does not answer.
    """
    kind, address = check_backend(backend)
    yield from _BACKENDS[kind](cells, address, jobs)


def check_backend(backend: str) -> tuple[str, str]:
    """The kind of a backend and its address; raises `UsageError` if there is no such backend."""
    kind, _, address = backend.partition("://")
    if kind not in _BACKENDS:
        raise UsageError(f"--backend {backend[:40]!r}: give loky, dask://HOST:PORT or ray://HOST:PORT")
    return kind, address


def _with_loky(cells: list[Cell], _: str, jobs: int) -> Iterator[Ended]:
    from joblib.externals.loky import get_reusable_executor

    try:
        with _interrupts_ignored():
            ended = _with_joblib(cells, carry=False, n_jobs=jobs, backend="loky")
        yield from ended
    except BaseException:
        get_reusable_executor().shutdown(wait=True, kill_workers=True)
        raise


def _with_dask(cells: list[Cell], address: str, jobs: int) -> Iterator[Ended]:
    import joblib

    with _connecting("dask", address):
        from dask.distributed import Client

        where = f"tcp://{address}" if address else None
        client = Client(where, timeout=CLUSTER_TIMEOUT)  # type: ignore[no-untyped-call]
    with client, joblib.parallel_config(backend="dask", n_jobs=jobs):
        yield from _with_joblib(cells, carry=True)


@contextlib.contextmanager
def _interrupts_ignored() -> Iterator[None]:
    """Within, processes are started that Ctrl-C does not reach, from their first moment on: this one ends them."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # inherited; a mask would be, too, but loky clears it
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _with_joblib(cells: list[Cell], *, carry: bool, **settings: Any) -> Iterator[Ended]:
    from joblib import Parallel, delayed

    work = [delayed(_train)(number, cell, carry, os.getpid()) for number, cell in enumerate(cells)]
    ended: Iterator[Ended] = Parallel(return_as="generator_unordered", batch_size=1, **settings)(work)
    return ended


def _with_ray(cells: list[Cell], address: str, jobs: int) -> Iterator[Ended]:
    """Ray's own tasks: its backend for joblib cannot hand over one result at a time."""
    with _connecting("ray", address):
        import ray

        ray.init(address=f"ray://{address}" if address else None, log_to_driver=False, logging_level="ERROR")
    try:
        train = ray.remote(_train)
        waiting = (train.remote(number, cell, True, os.getpid()) for number, cell in enumerate(cells))
        running = list(islice(waiting, jobs if jobs > 0 else None))
        while running:
            ended, running = ray.wait(running)
            running += islice(waiting, 1)
            yield ray.get(ended[0])
    finally:
        ray.shutdown()


@contextlib.contextmanager
def _connecting(kind: str, address: str) -> Iterator[None]:
    """Say in one line that a cluster's package is not installed, or that the cluster does not answer."""
    try:
        yield
    except ImportError as error:
        raise ExtraMissingError(kind, kind, error) from error
    except (OSError, TimeoutError) as error:
        raise GradtuiError(f"no {kind} cluster answers at {address or 'this computer'}: {error}") from error


_BACKENDS: dict[str, Callable[[list[Cell], str, int], Iterator[Ended]]] = {
    "loky": _with_loky,
    "dask": _with_dask,
    "ray": _with_ray,
}


def _train(number: int, cell: Cell, carry: bool, parent: int) -> Ended:
    """Train one cell, in a worker."""
    if os.getpid() != parent:
        # Ctrl-C reaches the workers of a terminal too; it is the parent that ends them
        with contextlib.suppress(ValueError):  # not in the main thread of a Dask worker
            signal.signal(signal.SIGINT, signal.SIG_IGN)
    from gradtui.lab.train import train

    def orphaned() -> bool:
        """Whether the process that started this was killed: nothing waits for the rest."""
        return parent not in (os.getpid(), os.getppid())

    try:
        if not carry:
            if not orphaned():
                train(cell.recipe, path=cell.path, should_stop=orphaned)
            if orphaned():
                os._exit(1)  # the worker would wait minutes for more to do
            return Ended(number, "", None)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / cell.path.name
            train(cell.recipe, path=path)
            return Ended(number, "", path.read_bytes())
    except (GradtuiError, OSError) as error:
        return Ended(number, str(error), None)
