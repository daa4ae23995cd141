"""The host's memory, against what the system itself says."""

from __future__ import annotations

import mmap
import os
import time
from pathlib import Path

import pytest

from orchestrator.adapters.hardware import host
from orchestrator.adapters.hardware.host import read_host, residency, rss_mib

MIB = 1 << 20


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


def test_memory_of_processes_is_added_up_and_those_that_are_gone_are_not() -> None:
    mine = rss_mib([os.getpid()])
    assert mine is not None and mine > 5
    assert rss_mib([os.getpid(), 1 << 22]) == pytest.approx(mine, abs=2)
    assert rss_mib([1 << 22]) is None


def holding(path: Path, mib: int, resident: list[int]) -> str:
    """A file on disk with only those MiB in the page cache."""
    with path.open("wb") as file:
        for number in range(mib):
            file.write(bytes([number & 0xFF]) * MIB)

        file.flush()
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)

    with path.open("rb", buffering=0) as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_RANDOM)  # no reading ahead
        for number in resident:
            os.pread(file.fileno(), MIB, number * MIB)

    return str(path)


def test_what_was_read_of_a_file_is_in_the_page_cache(tmp_path: Path) -> None:
    path = holding(tmp_path / "model", 16, [])
    empty = residency([path])
    assert empty is not None and empty.total_mib == 16
    if empty.resident_mib:
        pytest.skip("this file system does not give pages back when told to (tmpfs)")

    half = residency([holding(tmp_path / "half", 16, list(range(8)))])
    assert half is not None and half.resident_mib == 8


def test_files_of_one_model_count_together_and_a_missing_one_makes_it_unknown(tmp_path: Path) -> None:
    one, two = holding(tmp_path / "one", 2, [0, 1]), holding(tmp_path / "two", 3, [0, 1, 2])
    found = residency([one, two])
    assert found is not None and (found.total_mib, found.resident_mib) == (5, 5)
    assert residency([one, str(tmp_path / "none")]) is None


def test_a_large_file_costs_no_more_than_its_windows(tmp_path: Path) -> None:
    path = tmp_path / "large"
    with path.open("wb") as file:
        file.truncate(64 << 30)

    began = time.thread_time()
    found = residency([str(path)])
    assert time.thread_time() - began < 0.5
    assert found is not None and found.total_mib == 64 << 10 and found.resident_mib == 0


def test_a_sampled_share_is_close_to_the_true_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = holding(tmp_path / "model", 32, list(range(12)))
    monkeypatch.setattr(host, "WINDOWS", 16)
    found = residency([path])
    assert found is not None and found.resident_mib is not None
    if found.resident_mib == 32:
        pytest.skip("this file system does not give pages back when told to (tmpfs)")

    assert found.resident_mib == pytest.approx(12, abs=2)


def test_the_residency_of_a_file_of_somebody_else_is_not_known(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = holding(tmp_path / "theirs", 1, [0])
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    monkeypatch.setattr(os, "access", lambda *_: False)
    found = residency([path])
    assert found is not None and (found.total_mib, found.resident_mib) == (1, None)


def test_an_empty_file_is_no_model(tmp_path: Path) -> None:
    path = tmp_path / "empty"
    path.touch()
    found = residency([str(path)])
    assert found is not None and found.resident_mib is None
    assert mmap.PAGESIZE >= 4096
