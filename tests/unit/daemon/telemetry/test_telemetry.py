"""Samples of devices and host: what is in one, who is told, and what a driver or a disk in trouble costs."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import cast

import anyio
import pytest

from orchestrator.adapters.hardware.gpu import GpuReading
from orchestrator.adapters.process.child import Child
from orchestrator.adapters.process.linux import stat_of
from orchestrator.api.top_frames import Point
from orchestrator.core.measure.rates import Measured
from orchestrator.daemon.fleet.device_memory import DeviceMemory
from orchestrator.daemon.fleet.engine_run import EngineRuns
from orchestrator.daemon.telemetry import telemetry as module
from orchestrator.daemon.telemetry.telemetry import Telemetry, rounded
from tests.unit.daemon.running_owner import running_owner, until
from tests.unit.daemon.telemetry.idle_parts import Clients, Devices, no_energy, run_on

pytestmark = pytest.mark.asyncio

CARD = GpuReading(0, "card", 1000, 2000, "GPU-1", processes={os.getpid(): 700, 4_000_000: 100})


@dataclass
class Sampled:
    """Telemetry that runs, and the points that were told."""

    telemetry: Telemetry
    devices: Devices
    clients: Clients
    runs: EngineRuns
    points: list[Point] = field(default_factory=list)


@asynccontextmanager
async def sampled(directory: Path, *readings: GpuReading) -> AsyncIterator[Sampled]:
    devices, clients, runs, points = Devices(*readings), Clients(), EngineRuns(), list[Point]()
    async with running_owner() as (owner, _):
        telemetry = Telemetry(
            owner, runs, clients, devices, DeviceMemory(devices), no_energy(), list,
            points.append,
        )  # fmt: skip
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(telemetry.run)
            yield Sampled(telemetry, devices, clients, runs, points)
            tasks.cancel_scope.cancel()


async def test_a_first_sample_comes_at_once_with_devices_and_host(tmp_path: Path) -> None:
    async with sampled(tmp_path, CARD) as sample:
        await sample.telemetry.wait_fresh(30)
        look = sample.telemetry.look
        assert look.gpus == (CARD,)
        assert look.host is not None and look.host.memory_total_mib > 0
        assert sample.points == sample.telemetry.points(10)
        assert sample.points[0]["used_mib"] == [1000]
        assert sample.points[0]["decode_tok_s"] is None


async def test_a_sample_has_what_devices_tell_of_their_energy_unless_the_driver_is_late(tmp_path: Path) -> None:
    async with sampled(tmp_path, replace(CARD, energy_j=12.5)) as sample:
        await sample.telemetry.wait_fresh(30)
        look = sample.telemetry.look
        assert look.energy["GPU-1"].counter_j == 12.5
        assert look.taken_s - 1 < look.energy["GPU-1"].at_s == look.energy_at_s <= look.taken_s
        sample.devices.age_s = 5.0
        await until(lambda: "GPU-1" not in sample.telemetry.look.energy)


async def test_of_the_processes_on_a_device_those_that_are_here_are_told_apart(tmp_path: Path) -> None:
    async with sampled(tmp_path, CARD) as sample:
        await sample.telemetry.wait_fresh(30)
        assert sample.telemetry.look.alive == {os.getpid()}


async def test_the_devices_are_asked_about_the_engines_and_what_came_from_them(tmp_path: Path) -> None:
    own = stat_of(os.getpid())
    assert own is not None
    run = run_on(1, "s.1")
    run.child = cast(Child, OwnProcess(os.getpid(), own.start_ticks))
    async with sampled(tmp_path, CARD) as sample:
        await sample.telemetry.wait_fresh(30)
        assert sample.devices.watched[-1] == frozenset()
        sample.runs.add(run)
        await until(lambda: os.getpid() in sample.devices.watched[-1])
        await until(lambda: os.getpid() in sample.telemetry.look.engines)
        assert sample.telemetry.look.rss_mib
        assert sample.telemetry.family(os.getpid()) >= {os.getpid()}
        assert sample.telemetry.family(4_000_000) == {4_000_000}  # not looked for yet


@dataclass
class OwnProcess:
    """This process, as an engine's."""

    pid: int
    start_time_ticks: int


async def test_while_somebody_looks_there_is_a_sample_each_second_and_the_newest_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "KEPT_POINTS", 2)
    async with sampled(tmp_path, CARD) as sample:
        await sample.telemetry.wait_fresh(30)
        await until(lambda: len(sample.points) >= 3)
        assert sample.telemetry.points(10) == sample.points[-2:]
        assert sample.telemetry.points(1) == sample.points[-1:]
        assert sample.telemetry.points(0) == []


async def test_a_sample_that_cannot_be_taken_leaves_the_last_one_and_is_said_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    failures = 0

    def no_descriptors() -> None:
        nonlocal failures
        failures += 1
        raise OSError(24, "Too many open files")

    async with sampled(tmp_path, CARD) as sample:
        await sample.telemetry.wait_fresh(30)
        before = sample.telemetry.look
        monkeypatch.setattr(module, "read_host", no_descriptors)
        await until(lambda: failures >= 2)
        assert sample.telemetry.look is before
        assert caplog.text.count("no samples are taken: [Errno 24] Too many open files") == 1


async def test_without_an_engine_nothing_is_known_of_one(tmp_path: Path) -> None:
    async with sampled(tmp_path) as sample:
        await sample.telemetry.wait_fresh(30)
        assert sample.telemetry.measured() == Measured()
        assert sample.telemetry.look.gpus == ()


async def test_who_looks_does_not_wait_for_ever_for_a_sample(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_descriptors() -> None:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(module, "read_host", no_descriptors)
    async with sampled(tmp_path) as sample:
        with anyio.fail_after(30):
            await sample.telemetry.wait_fresh(0.05)

        assert sample.telemetry.look.host is None


@pytest.mark.parametrize(("value", "shown"), [(None, None), (1.005, 1.0), (12.3456, 12.35)])
async def test_rates_have_two_digits(value: float | None, shown: float | None) -> None:
    assert rounded(value) == shown
