"""How often samples are taken, and what ends a rest."""

from __future__ import annotations

from dataclasses import dataclass
from time import monotonic

import anyio
import anyio.lowlevel
import pytest

from orchestrator.daemon.pace import IDLE_S, SECOND_S, Pace

pytestmark = pytest.mark.asyncio


@dataclass
class Clients:
    active: int = 0

    def in_flight(self, instance: str) -> int:
        return self.active

    def relayed(self, instance: str) -> int:
        return 0


async def test_with_nothing_to_see_samples_are_rare() -> None:
    clients = Clients()
    pace = Pace(clients)
    assert (pace.watched, pace.pause_s) == (False, IDLE_S)
    clients.active = 1
    assert pace.pause_s == SECOND_S
    clients.active = 0
    assert pace.look() and not pace.look()
    assert (pace.watched, pace.pause_s) == (True, SECOND_S)


async def test_whoever_begins_to_look_ends_a_rest() -> None:
    pace = Pace(Clients())
    with anyio.fail_after(5.0):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(pace.rest, monotonic() + 60.0)
            tasks.start_soon(pace.until_watched)
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
