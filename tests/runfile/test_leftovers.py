"""Names of runs are given once; what killed processes leave in the folder of runs goes with the next command."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from gradtui import cli
from gradtui.lab import background
from gradtui.lab.recipe import Recipe
from gradtui.leftovers import clear_leftovers
from gradtui.options import RecordOptions
from gradtui.recorded_command import prepare
from gradtui.run_request import RunRequest, newest_starting
from gradtui.runfile import open_run
from gradtui.runfile.private_files import draft_of, open_to_append, this_process, write_whole
from gradtui.runfolder import mark_starting, release, reserve, starting_mark
from tests.forked_python import run
from tests.synthetic import make_run

ENDED = "import os, sys; sys.path.insert(0, os.getcwd()); from pathlib import Path; folder = Path(sys.argv[1]); "
ROOT = Path(__file__).parents[2]


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_two_trainings_of_one_second_get_two_names(tmp_path: Path) -> None:
    found: list[Path] = []
    together = threading.Barrier(8)

    def take() -> None:
        together.wait()
        found.append(reserve("net", tmp_path))

    threads = [threading.Thread(target=take) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(found)) == 8


def test_trainings_that_are_started_in_the_background_get_two_names(
    runs_in_tmp: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time, "strftime", lambda *_: "1127-101500")
    monkeypatch.setattr(
        background, "_start", lambda _, log: os.close(open_to_append(log)) or subprocess.Popen(["sleep", "0"])
    )
    first, second = (background.launch_in(runs_in_tmp, Recipe()) for _ in range(2))
    assert first.path != second.path and first.log != second.log
    for launch in (first, second):
        assert launch.log.stat().st_mode & 0o777 == 0o600
        launch.process.wait()
    third = background.launch_in(runs_in_tmp, Recipe())  # the others ended before they had a run; their logs are kept
    third.process.wait()
    assert len({first.path, second.path, third.path}) == 3
    second.log.write_text("what it said")
    (runs_in_tmp / "mine.log").touch()
    clear_leftovers(runs_in_tmp)
    assert names_in(runs_in_tmp) == [second.log.name, "mine.log"], "what a training said is kept"


def test_a_training_whose_run_cannot_be_made_does_not_pass(tmp_path: Path) -> None:
    recipe = json.dumps(Recipe(epochs=1).to_json())
    make_run(tmp_path / "a.gradtui")
    done = run(["-m", "gradtui.lab.train", "--file", str(tmp_path / "a.gradtui"), "--recipe", recipe], cwd=ROOT)
    assert done.returncode == 1 and "could not be made" in done.stderr and "Traceback" not in done.stderr
    with open_run(tmp_path / "a.gradtui") as reader:
        assert reader.header.name == "synthetic"


def test_what_is_planted_in_a_shared_folder_is_not_written_through(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time, "strftime", lambda *_: "1127-101500")
    victim = tmp_path / "victim"
    folder = tmp_path / "shared"
    folder.mkdir()
    for name in ("net-1127-101500.gradtui-starting", "net-1127-101500-2.gradtui", "net-1127-101500-3.log"):
        (folder / name).symlink_to(victim)
    assert reserve("net", folder).name == "net-1127-101500-4.gradtui"
    (folder / "b.gradtui-claim").symlink_to(victim)
    assert RunRequest(folder / "b.gradtui", RecordOptions(folder=folder)).acquire_path() is None
    (folder / "c.log").symlink_to(victim)
    with pytest.raises(OSError, match="symbolic"):
        open_to_append(folder / "c.log")
    (folder / "plan.json").symlink_to(victim)
    write_whole(folder / "plan.json", "{}")
    assert not (folder / "plan.json").is_symlink() and not victim.exists()
    clear_leftovers(folder)
    assert (folder / "b.gradtui-claim").is_symlink(), "a link is nothing of ours"


def test_the_next_command_deletes_what_killed_processes_left(
    runs_in_tmp: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = (
        f"{ENDED}from gradtui.options import RecordOptions; from gradtui.recorded_command import prepare; "
        "from gradtui.runfile.private_files import create, draft_of; from gradtui.runfolder import reserve; "
        "(folder / 'two.compare').mkdir(); create(draft_of(folder / 'two.compare' / 'plan.json')); "
        "create(draft_of(folder / 'a.gradtui')); create(Path(f'{draft_of(folder / \"a.gradtui\")}-journal')); "
        "request = prepare(['true'], RecordOptions(folder=folder), lists_runs=True).request; request.acquire_path(); "
        "os.kill(os.getpid(), 9)"
    )
    mine = [draft_of(runs_in_tmp / "b.gradtui"), runs_in_tmp / ".c.gradtui.99999999"]
    for path in mine:
        path.touch()
    mark_starting(runs_in_tmp / "d.gradtui")
    assert run(["-c", code, str(runs_in_tmp)], cwd=ROOT).returncode == -9
    assert len(names_in(runs_in_tmp)) == 9
    assert cli.main(["runs", "--dir", str(runs_in_tmp)]) == 0
    left = {"two.compare", mine[0].name, mine[1].name, "d.gradtui-starting"}
    assert set(names_in(runs_in_tmp)) == left, "those of a living process stay, and what may be of another machine"
    assert names_in(runs_in_tmp / "two.compare") == []
    os.utime(mine[1], (0, 0))
    clear_leftovers(runs_in_tmp)
    assert not mine[1].exists(), "as an older version left it"
    release(runs_in_tmp / "d.gradtui")


def test_a_later_process_with_the_same_id_is_another_one(tmp_path: Path) -> None:
    mark = starting_mark(tmp_path / "a.gradtui")
    mark_starting(tmp_path / "a.gradtui")
    machine, pid, started = mark.read_text().split("\n")
    assert newest_starting(tmp_path) is not None
    mark.write_text(f"{machine}\n{pid}\n{int(started) - 1}")
    draft = draft_of(tmp_path / "b.gradtui")
    earlier = draft.with_name(draft.name.replace(f"-{started}", f"-{int(started) - 1}"))
    earlier.touch()
    assert newest_starting(tmp_path) is None
    clear_leftovers(tmp_path)
    assert not mark.exists() and not earlier.exists()


def test_what_a_process_of_another_machine_writes_is_let_alone(tmp_path: Path) -> None:
    machine, pid, started = this_process()
    draft = draft_of(tmp_path / "a.gradtui")
    theirs = draft.with_name(re.sub(r"[0-9a-f]{8}(-[0-9]+-[0-9]*)$", r"00000000\1", draft.name))
    mark = starting_mark(tmp_path / "b.gradtui")
    for path in (theirs, mark):
        path.write_text(f"another/{machine}\n{pid}\n{started}")
        os.utime(path, (time.time() - 24 * 3600,) * 2)
    clear_leftovers(tmp_path)
    assert theirs.exists() and mark.exists()
    for path in (theirs, mark):
        os.utime(path, (0, 0))
    clear_leftovers(tmp_path)
    assert not theirs.exists() and not mark.exists()


def test_a_list_of_runs_that_was_deleted_ends_no_recording(tmp_path: Path) -> None:
    request = RunRequest(tmp_path / "a.gradtui", RecordOptions(folder=tmp_path), tmp_path / "gone")
    path = request.acquire_path()
    assert path == request.path
    make_run(path)
    request.register_run(path)
    assert request.runs() == [] and not (tmp_path / "gone").exists()


def test_a_command_leaves_nothing_but_its_run(tmp_path: Path) -> None:
    words = [sys.executable, "-m", "gradtui", "run", "--dir", str(tmp_path / "new"), "--fail-on", "nan", "true"]
    done = subprocess.run(words, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 11 and names_in(tmp_path / "new") == []
    assert (tmp_path / "new").stat().st_mode & 0o777 == 0o700
    prepare(["true"], RecordOptions(folder=tmp_path / "new")).request.close()
    assert names_in(tmp_path / "new") == []
