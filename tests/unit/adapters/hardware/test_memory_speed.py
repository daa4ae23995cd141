"""Reading memory and a disk: figures of this machine, and what is refused."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from orchestrator.adapters.hardware.disk_speed import LEAST_BYTES, DiskNotMeasured, measure_disk
from orchestrator.adapters.hardware.memory_speed import measure_memory
from orchestrator.core.errors import OrchError

SMALL = {"seconds": 0.15, "total_mib": 16, "least_mib": 8}


def test_memory_is_read_at_a_rate_that_machines_have() -> None:
    before, cpus = threading.active_count(), os.sched_getaffinity(0)
    found = measure_memory(2, cpus={min(cpus)}, **SMALL)  # type: ignore[arg-type]
    assert os.sched_getaffinity(0) == cpus
    assert 0 <= found.middle <= found.best < 5000
    assert found.best > 0
    assert found.readers == 2
    assert threading.active_count() == before


def test_what_is_in_use_meanwhile_ends_the_reading() -> None:
    def refuse() -> None:
        raise OrchError("a request is under way")

    before = threading.active_count()
    with pytest.raises(OrchError, match="under way"):
        measure_memory(2, refuse, **SMALL)  # type: ignore[arg-type]

    assert threading.active_count() == before


def test_threads_that_cannot_run_where_they_are_to_end_the_reading() -> None:
    before = threading.active_count()
    with pytest.raises(OrchError, match="2 threads could not have 8 MiB each"):
        measure_memory(2, cpus={100_000}, **SMALL)  # type: ignore[arg-type]

    assert threading.active_count() == before


def test_more_than_is_available_is_not_read() -> None:
    with pytest.raises(OrchError, match="not measured: 16777216 MiB are read"):
        measure_memory(2, total_mib=1 << 24)


def test_a_file_is_read_past_the_page_cache(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(b"\1" * (LEAST_BYTES + 100))
    asked: list[bool] = []
    assert 0 < measure_disk(str(path), lambda: asked.append(True)) < 100
    assert asked


def test_a_disk_that_cannot_be_measured_says_why(tmp_path: Path) -> None:
    (tmp_path / "small").write_bytes(b"x" * 5000)
    with pytest.raises(DiskNotMeasured, match="too small, 4 KiB"):
        measure_disk(str(tmp_path / "small"))

    with pytest.raises(DiskNotMeasured, match="No such file"):
        measure_disk(str(tmp_path / "absent"))
