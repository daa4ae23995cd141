"""Whose device memory it is: by process where the driver tells, else as the engine said."""

from __future__ import annotations

from types import SimpleNamespace
from typing import cast

import pytest

from orchestrator.adapters.hardware.gpu import GpuReading
from orchestrator.daemon.fleet.engine_run import EngineRun
from orchestrator.daemon.residency import shares
from orchestrator.daemon.residency.shares import device_shares


def run(profile: str, pid: int | None, **told: int) -> EngineRun:
    launch = SimpleNamespace(target=SimpleNamespace(profile=profile))
    child = None if pid is None else SimpleNamespace(pid=pid)
    return cast(EngineRun, SimpleNamespace(launch=launch, child=child, told=told))


@pytest.fixture(autouse=True)
def _as_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shares, "told_mib", lambda run, read: run.told)


def gpu(index: int, **processes: int) -> GpuReading:
    return GpuReading(index, "x", 900, 1000, processes={int(pid[1:]): mib for pid, mib in processes.items()})


def test_the_drivers_figures_come_first_and_two_instances_of_a_profile_are_added() -> None:
    runs = [run("chat", 7, gpu0=1), run("chat", 8), run("embed", 9, gpu1=99)]
    assert device_shares(runs, [gpu(0, p7=400, p8=10, p1=5), gpu(1, p9=30)]) == {0: {"chat": 410}, 1: {"embed": 30}}


def test_where_the_driver_tells_of_no_process_the_engines_figures_stand() -> None:
    runs = [run("chat", 7, gpu0=400, host=90), run("embed", None, gpu1=30)]
    assert device_shares(runs, [gpu(0), gpu(1)]) == {0: {"chat": 400}, 1: {"embed": 30}}
    assert device_shares(runs, []) == {}
