"""The CPUs of a machine, read from a directory that is laid out as sysfs."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from orchestrator.adapters.hardware.cpu_topology import read_topology
from orchestrator.core.starts.cpu_pinning import LogicalCpu


@pytest.fixture(autouse=True)
def allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {1, 0, 2})


def sysfs(root: Path, files: dict[str, str]) -> str:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(f"{text}\n")

    return str(root)


def cores(name: str = "core_cpus_list") -> dict[str, str]:
    return {f"system/cpu/cpu{n}/topology/{name}": text for n, text in enumerate(["0-1", "0-1", "2", "3"])}


@pytest.mark.parametrize("name", ["core_cpus_list", "thread_siblings_list"])
def test_cpus_that_this_process_may_use_have_their_cores(tmp_path: Path, name: str) -> None:
    assert read_topology(sysfs(tmp_path, cores(name))) == (
        LogicalCpu(0, "0-1"),
        LogicalCpu(1, "0-1"),
        LogicalCpu(2, "2"),
    )


def test_a_hybrid_processors_small_cores_are_the_kernels_own_list(tmp_path: Path) -> None:
    root = sysfs(tmp_path, {**cores(), "cpu_core/cpus": "0-1", "cpu_atom/cpus": "2-3"})
    assert [cpu.efficient for cpu in read_topology(root)] == [False, False, True]


def test_a_figure_of_speed_counts_where_all_cpus_have_it(tmp_path: Path) -> None:
    clocks = {f"system/cpu/cpu{n}/cpufreq/cpuinfo_max_freq": "5000000" for n in range(3)}
    root = sysfs(tmp_path, {**cores(), **clocks, "system/cpu/cpu0/cpu_capacity": "1024"})
    assert {cpu.rating for cpu in read_topology(root)} == {5000000}
    sysfs(tmp_path, {f"system/cpu/cpu{n}/cpu_capacity": str(1024 - n) for n in range(3)})
    assert [cpu.rating for cpu in read_topology(root)] == [1024, 1023, 1022]


def test_without_cores_in_sysfs_there_is_no_topology(tmp_path: Path) -> None:
    assert read_topology(str(tmp_path)) == ()
