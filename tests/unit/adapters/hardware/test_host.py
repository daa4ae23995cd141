"""The host's memory, against what the system itself says."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from orchestrator.adapters.hardware.host import io_pressure, read_host, rss_mib


def test_memory_is_what_the_kernel_says() -> None:
    reading = read_host()
    kib = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
    assert reading.memory_total_mib == int(kib["MemTotal"].split()[0]) >> 10
    assert 0 < reading.memory_available_mib <= reading.memory_total_mib
    assert reading.swap_used_mib >= 0


def test_pressure_is_a_share_and_unknown_without_the_file(tmp_path: Path) -> None:
    file = tmp_path / "memory"
    file.write_text("some avg10=12.50 avg60=0.00 avg300=0.00 total=1\nfull avg10=3.00 avg60=0.00 avg300=0.00 total=1\n")
    reading = read_host(str(file))
    assert (reading.pressure_some, reading.pressure_full) == (0.125, 0.03)
    without = read_host(str(tmp_path / "none"))
    assert (without.pressure_some, without.pressure_full) == (None, None)
    assert io_pressure(str(file)) == 0.125
    assert io_pressure(str(tmp_path / "none")) is None


def test_memory_of_processes_is_added_up_and_those_that_are_gone_are_not() -> None:
    mine = rss_mib([os.getpid()])
    assert mine is not None and mine > 5
    assert rss_mib([os.getpid(), 1 << 22]) == pytest.approx(mine, abs=2)
    assert rss_mib([1 << 22]) is None
