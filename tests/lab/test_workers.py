"""The trainings of a comparison on a Dask or Ray cluster, and backends that are not there."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from gradtui.errors import ExtraMissingError, GradtuiError, UsageError
from gradtui.lab.run_plan import run_cells
from tests.lab.test_compare import measures_of, plan_in


@pytest.mark.parametrize("backend", ["threads", "loky ", "spark://x"])
def test_a_backend_that_does_not_exist_is_one_line(backend: str, runs_in_tmp: Path) -> None:
    with pytest.raises(UsageError, match="--backend") as caught:
        run_cells(plan_in(runs_in_tmp).cells(), backend=backend)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("backend", "module"), [("dask", "dask.distributed"), ("ray://x", "ray")])
def test_a_backend_that_is_not_installed_says_what_installs_it(
    backend: str, module: str, runs_in_tmp: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    name = backend.partition(":")[0]
    with pytest.raises(ExtraMissingError, match=rf"{name} cannot .*pip install 'gradtui\[{name}\]'") as caught:
        run_cells(plan_in(runs_in_tmp).cells(), backend=backend)
    assert "\n" not in str(caught.value)


def test_a_dask_cluster_of_two_workers_trains_the_same_runs(runs_in_tmp: Path) -> None:
    from dask.distributed import LocalCluster

    plan, here = plan_in(runs_in_tmp / "there"), plan_in(runs_in_tmp / "here")
    with LocalCluster(n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None) as cluster:
        address = cluster.scheduler_address.removeprefix("tcp://")
        run_cells(plan.cells(), backend=f"dask://{address}")
        workers = len(cluster.workers)
    run_cells(here.cells(), jobs=1)
    assert workers == 2
    for there, cell in zip(plan.cells(), here.cells(), strict=True):
        np.testing.assert_array_equal(measures_of(there.path), measures_of(cell.path))


def test_a_ray_cluster_of_two_workers_trains_the_same_runs(runs_in_tmp: Path, tmp_path: Path) -> None:
    pytest.importorskip("ray", reason="ray is not installed: pip install 'gradtui[ray]'")
    from ray.scripts import scripts

    plan, here = plan_in(runs_in_tmp / "there"), plan_in(runs_in_tmp / "here")
    ports = free_ports(2)
    words = [
        "start", "--head", "--block", "--num-cpus=2", "--include-dashboard=false", "--disable-usage-stats",
        f"--port={ports[0]}", f"--ray-client-server-port={ports[1]}",
    ]  # fmt: skip
    with (tmp_path / "ray.log").open("w") as log:
        cluster = subprocess.Popen([sys.executable, "-m", scripts.__name__, *words], stdout=log, stderr=log)
    told: list[str] = []
    try:
        run_cells(
            plan.cells(),
            backend=f"ray://127.0.0.1:{ports[1]}",
            jobs=2,
            on_result=lambda cell, result: told.append(result.state),
        )
    finally:
        cluster.terminate()
        cluster.wait(60)
    run_cells(here.cells(), jobs=1)
    assert told == ["finished"] * len(here.cells())
    for there, cell in zip(plan.cells(), here.cells(), strict=True):
        np.testing.assert_array_equal(measures_of(there.path), measures_of(cell.path))


def free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


def test_a_cluster_that_does_not_answer_is_one_line(runs_in_tmp: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gradtui.lab.workers.CLUSTER_TIMEOUT", 0.5)
    with pytest.raises(GradtuiError, match=r"no dask cluster answers at localhost:1\b") as caught:
        run_cells(plan_in(runs_in_tmp).cells(), backend="dask://localhost:1")
    assert "\n" not in str(caught.value)
