"""Whose a device's memory is."""

from __future__ import annotations

from dataclasses import replace

import pytest

from orchestrator.adapters.hardware.gpu import GpuReading
from orchestrator.daemon.telemetry.device_share import engine_mib, others_mib

READING = GpuReading(0, "A", used_mib=9000, total_mib=12000, processes={10: 8000, 11: 200, 99: 500}, reserved_mib=300)


@pytest.mark.parametrize(
    ("processes", "engines", "alive", "before", "expected"),
    [
        (READING.processes, {10, 11}, {10, 11, 99}, None, 8200),
        (READING.processes, set(), {99}, None, 0),
        ({99: 500}, {10}, {99}, 400, 0),  # an engine on the CPU
        ({5: 8000}, {10}, set(), 400, 8600),  # numbers of another namespace
        ({}, {10}, set(), 400, 8600),
        (None, {10}, set(), 400, 8600),
        (None, {10}, set(), None, None),
        (None, {10}, set(), 9500, 0),
    ],
)
def test_the_engines_part(
    processes: dict[int, int] | None, engines: set[int], alive: set[int], before: int | None, expected: int | None
) -> None:
    assert engine_mib(replace(READING, processes=processes), engines, alive, before) == expected


@pytest.mark.parametrize(("engine", "reserved", "expected"), [(8200, 300, 500), (8200, None, 800), (9500, 300, 0)])
def test_the_rest_is_others_but_for_what_the_driver_keeps(engine: int, reserved: int | None, expected: int) -> None:
    assert others_mib(replace(READING, reserved_mib=reserved), engine) == expected


def test_what_is_not_known_of_the_engines_is_not_known_of_others() -> None:
    assert others_mib(READING, None) is None
