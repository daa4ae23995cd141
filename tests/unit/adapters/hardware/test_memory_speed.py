"""Reading memory: a figure of this machine, and a process that cannot have the memory is told."""

from __future__ import annotations

import pytest

from orchestrator.adapters.hardware import memory_speed
from orchestrator.adapters.hardware.memory_speed import measure_memory
from orchestrator.core.errors import OrchError


def test_memory_is_read_at_a_rate_that_machines_have() -> None:
    found = measure_memory(buffer_mib=32, rounds=3)
    assert 0.05 < found.middle <= found.best < 5000
    assert 1 <= found.processes <= memory_speed.MOST_PROCESSES


def test_a_reader_that_ends_early_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory_speed, "_READER", "print('ready')")
    with pytest.raises(OrchError, match="ended early"):
        measure_memory(buffer_mib=1, rounds=2)
