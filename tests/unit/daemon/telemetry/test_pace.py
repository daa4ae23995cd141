"""How often samples are taken, and what ends a rest."""

from __future__ import annotations

from dataclasses import dataclass
from time import monotonic

import anyio
import anyio.lowlevel
import pytest

from orchestrator.daemon.telemetry.pace import IDLE_S, SECOND_S, Pace, sleep_until_tick

pytestmark = pytest.mark.asyncio


@dataclass
class Clients:
    active: int = 0
    queued: int = 0

    def in_flight(self, instance: str) -> int:
        return self.active

    def relayed(self, instance: str) -> int:
        return 0

    def stalled(self, instance: str, stall_s: float) -> dict[int, float]:
        return {}


async def test_with_nothing_to_see_samples_are_rare() -> None:
    clients = Clients()
    pace = Pace(clients)
    assert (pace.watched, pace.pause_s) == (False, IDLE_S)
    clients.active = 1
    assert pace.pause_s == SECOND_S
    clients.active = 0
    assert pace.look() and not pace.look()
    assert (pace.watched, pace.pause_s) == (True, SECOND_S)


async def test_what_is_owed_to_a_request_that_has_ended_is_sampled_soon() -> None:
    owed = [False]
    pace = Pace(Clients(), lambda: owed[0])
    assert pace.pause_s == IDLE_S
    with anyio.fail_after(10.0):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(pace.run)
            owed[0] = True
            await pace.rest(monotonic() + 60.0)
            assert pace.pause_s == SECOND_S
            tasks.cancel_scope.cancel()


async def test_whoever_begins_to_look_ends_a_rest() -> None:
    pace = Pace(Clients())
    with anyio.fail_after(5.0):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(pace.rest, monotonic() + 60.0)
            await anyio.lowlevel.checkpoint()
            pace.look()


async def test_a_request_ends_a_rest_within_a_second_or_so() -> None:
    clients = Clients()
    pace = Pace(clients)
    with anyio.fail_after(10.0):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(pace.run)
            clients.active = 1
            await pace.rest(monotonic() + 60.0)
            tasks.cancel_scope.cancel()


async def test_a_rest_ends_when_its_time_has_come() -> None:
    with anyio.fail_after(5.0):
        await Pace(Clients()).rest(monotonic() + 0.01)
        await Pace(Clients()).rest(monotonic() - 1.0)


async def test_loops_that_keep_the_beat_wake_together() -> None:
    """However far apart they began."""
    woken: list[float] = []

    async def keep(offset_s: float) -> None:
        await anyio.sleep(offset_s)
        await sleep_until_tick(0.4)
        woken.append(monotonic() / 0.4)

    async with anyio.create_task_group() as tasks:
        for offset_s in (0.0, 0.05, 0.15):
            tasks.start_soon(keep, offset_s)

    late = sorted(each % 1.0 for each in woken)
    assert all(each < 0.5 for each in late), woken


async def test_a_beat_that_is_early_by_a_hair_is_not_kept_twice() -> None:
    await sleep_until_tick(0.2)
    began = monotonic()
    await anyio.sleep(0.2 - began % 0.2 - 0.005 if began % 0.2 < 0.19 else 0.19)
    began = monotonic()
    await sleep_until_tick(0.2)
    assert monotonic() - began >= 0.09
