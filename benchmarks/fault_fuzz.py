"""Damaged and forged files through every reader: run files, comparisons, checkpoints, IDX files.

    python benchmarks/fault_fuzz.py [--fuzz 100000] [--seed 0] [--case NUMBER] [--keep FOLDER]

Each case is made by the seed and its number: a whole file, damaged in its bytes (flipped bits, cut, pages swapped,
pieces lost) or in its values (types, JSON, names, views, triggers, counts). What a reader may do is show it, or call it
damaged in one line. A traceback, a control character, several lines, more than two seconds of processor time, or half a
GiB of memory breaks the promise; the file of such a case is kept, and --case runs it alone.
"""

from __future__ import annotations

import argparse
import mmap
import os
import pickle
import random
import resource
import shutil
import signal
import struct
import sys
import tempfile
import time
import traceback
from collections import Counter
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch
from fault_files import Whole, whole_files
from fault_limits import LONGEST, BrokenPromiseError, HangError
from fault_mutations import damaged
from fault_pretrain import through_pretrain
from fault_readers import through_comparisons, through_gradtui
from fault_result import Result

STUCK_AFTER = 60.0  # s on a clock: a case that no signal ends, on however busy a machine
ADDRESS_SPACE = 4 << 30  # bytes beyond those of the start
SHARES = {"run": 12, "plan": 1, "stack": 2, "net": 2, "state": 2, "idx": 4}  # of the cases
TOLD = 20  # broken promises that are told one by one
KEPT = 20  # files of broken promises


@dataclass(frozen=True)
class Broken:
    """A case that broke a promise."""

    number: int
    kind: str
    damage: str
    what: str


def run(count: int, seed: int, keep: Path | None = None) -> list[Result]:
    """The cases 0 to `count` of a seed, on all cores; files of broken promises are left in `keep`."""
    whole_ones()  # before the processes are forked, which share them
    begin = time.monotonic()
    outcomes, broken = _in_processes(count, seed, keep or Path(tempfile.gettempdir()) / "gradtui-fuzz")
    took = time.monotonic() - begin
    results = []
    for kind in SHARES:
        of_kind = {outcome: times for (one, outcome), times in outcomes.items() if one == kind}
        said = ", ".join(f"{times:,} {outcome}" for outcome, times in sorted(of_kind.items()))
        results.append(Result(f"damaged {kind} files", said or "none", not any(one.kind == kind for one in broken)))
    figure = f"{len(broken)} of {count:,} in {took:.0f} s (seed {seed})"
    results.append(Result("broken promises of readers", figure, not broken))
    told = [f"case {one.number} ({one.kind}, {one.damage}): {one.what}" for one in broken[:TOLD]]
    return [*results, *(Result("", words, ok=False) for words in told)]


@cache
def whole_ones() -> dict[str, list[Whole]]:
    """The whole files by kind."""
    torch.set_num_threads(1)
    found: dict[str, list[Whole]] = {}
    for one in whole_files():
        found.setdefault(one.kind, []).append(one)
    return found


def case(number: int, seed: int, folder: Path) -> tuple[str, str, str]:
    """One case: its kind, what was done to the file, and the outcome; raises what breaks a promise."""
    draws = random.Random(f"{seed}/{number}")
    kind = draws.choices(list(SHARES), list(SHARES.values()))[0]
    whole = draws.choice(whole_ones()[kind])
    place = folder / "x.compare" if kind == "plan" else folder
    shutil.rmtree(folder, ignore_errors=True)
    place.mkdir(parents=True)
    path = place / whole.name
    damage = damaged(draws, whole, path)
    try:
        if kind == "run":
            return kind, damage, through_gradtui(path)
        return kind, damage, through_comparisons(place) if kind == "plan" else through_pretrain(kind, path)
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            raise
        raise _Told(Broken(number, kind, damage, _in_words(error))) from error


class _Told(Exception):  # noqa: N818  it carries what it is about
    def __init__(self, broken: Broken) -> None:
        super().__init__(broken.what)
        self.broken = broken


def _in_words(error: BaseException) -> str:
    if isinstance(error, HangError):
        where = traceback.extract_tb(error.__traceback__)[-1]
        return f"over {LONGEST:g} s, in {Path(where.filename).name}:{where.lineno}"
    if isinstance(error, BrokenPromiseError):
        return str(error)
    where = traceback.extract_tb(error.__traceback__)[-1]
    said = ascii(f"{type(error).__name__}: {error}")[:300]
    return f"a traceback, {said} in {Path(where.filename).name}:{where.lineno}"


# -- many processes ---------------------------------------------------------------------------------------------------


class _Worker:
    """A forked process that takes every nth case from `first` on, and writes down which it is at."""

    def __init__(self, first: int, every: int, count: int, seed: int, keep: Path) -> None:
        self._every, self._count, self._seed, self._keep = every, count, seed, keep
        self._note = mmap.mmap(-1, 16)  # the number of the case, and when it began
        self._folder = Path(
            tempfile.mkdtemp(prefix="gradtui-fuzz-", dir="/dev/shm" if Path("/dev/shm").is_dir() else None)
        )
        self._answers = self._folder / "answers"
        self.outcomes: Counter[tuple[str, str]] = Counter()
        self.broken: list[Broken] = []
        self._start(first)

    def _start(self, first: int) -> None:
        self._write_down(first)
        self._pid = os.fork()
        if not self._pid:
            status = 1
            try:
                self._work(first)
                status = 0
            finally:
                os._exit(status)

    def _work(self, first: int) -> None:
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + ADDRESS_SPACE, resource.getrlimit(resource.RLIMIT_AS)[1]))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        outcomes: Counter[tuple[str, str]] = Counter()
        parent = os.getppid()
        for number in range(first, self._count, self._every):
            if os.getppid() != parent:
                return  # nobody waits for the answers any more
            self._write_down(number)
            answer: object
            try:
                kind, _, outcome = case(number, self._seed, self._folder / "files")
                outcomes[kind, outcome] += 1
                continue
            except _Told as told:
                answer = told.broken
                _keep_file(self._folder / "files", self._keep, number)
            with self._answers.open("ab") as file:
                pickle.dump(answer, file)
        with self._answers.open("ab") as file:
            pickle.dump(outcomes, file)

    def _write_down(self, number: int) -> None:
        self._note[:] = struct.pack("<qd", number, time.monotonic())

    def is_over(self) -> bool:
        """Whether all cases are done; one that ended its process, or hangs, is told, and the next one is begun."""
        pid, status = os.waitpid(self._pid, os.WNOHANG)
        number, began = struct.unpack("<qd", self._note[:])
        if not pid and time.monotonic() - began < STUCK_AFTER:
            return False
        if not pid:
            os.kill(self._pid, signal.SIGKILL)
            _, status = os.waitpid(self._pid, 0)
        if status == 0:
            self._collect()
            return True
        self.broken.append(Broken(number, "?", "?", f"the process ended by {status}, or was stuck"))
        _keep_file(self._folder / "files", self._keep, number)
        if number + self._every < self._count:
            self._start(number + self._every)
            return False
        self._collect()
        return True

    def _collect(self) -> None:
        if self._answers.exists():
            with self._answers.open("rb") as file:
                while file.peek(1):
                    answer = pickle.load(file)
                    if isinstance(answer, Broken):
                        self.broken.append(answer)
                    else:
                        self.outcomes += answer
        shutil.rmtree(self._folder, ignore_errors=True)


def _in_processes(count: int, seed: int, keep: Path) -> tuple[Counter[tuple[str, str]], list[Broken]]:
    cores = min(len(os.sched_getaffinity(0)), count)
    workers = [_Worker(first, cores, count, seed, keep) for first in range(cores)]
    waiting = list(workers)
    while waiting:
        waiting = [worker for worker in waiting if not worker.is_over()]
        time.sleep(0.05)
    outcomes = sum((worker.outcomes for worker in workers), Counter[tuple[str, str]]())
    return outcomes, sorted((one for worker in workers for one in worker.broken), key=lambda one: one.number)


def _keep_file(folder: Path, keep: Path, number: int) -> None:
    if len(list(keep.glob("*"))) < KEPT:
        shutil.copytree(folder, keep / str(number), dirs_exist_ok=True)


def main() -> int:
    """Print the table; 1 if a promise was broken."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fuzz", type=int, default=100_000, metavar="N", help="how many cases")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--case", type=int, metavar="NUMBER", help="this one alone, with its traceback")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="where files of broken promises are left")
    options = parser.parse_args()
    if options.case is not None:
        folder = Path(tempfile.mkdtemp())
        try:
            print(*case(options.case, options.seed, folder), f"({folder})")
        except _Told:
            print(f"its file: {folder}")
            raise
        return 0
    results = run(options.fuzz, options.seed, options.keep)
    for one in results:
        print(f"{'ok ' if one.ok else 'BAD'} {one.name:<28} {one.figure}")
    return int(not all(one.ok for one in results))


if __name__ == "__main__":
    sys.exit(main())
