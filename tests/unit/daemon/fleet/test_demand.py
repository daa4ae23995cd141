"""When an engine counts as idle: by requests alone, for the time that its profile says."""

from __future__ import annotations

from time import monotonic
from types import SimpleNamespace
from typing import Any, cast

import pytest

from orchestrator.core.fleet.fleet_states import UnloadRequested
from orchestrator.core.fleet.lifecycle_states import Ready, StartRequested
from orchestrator.daemon.fleet.demand import IdleUnloader
from orchestrator.daemon.fleet.owner import Owner
from orchestrator.gateway.contract import Finished, Traffic
from tests.unit.core.fleet.lifecycle_machine import A, Machine, start

pytestmark = pytest.mark.anyio


class Watched:
    """An unloader beside a fleet whose engine has been ready for so many seconds."""

    def __init__(self, ready_s: float, *, limit_s: float = 60.0, active: int = 0, switch: object = None) -> None:
        machine = Machine()
        machine.now = monotonic() - ready_s
        machine.take(StartRequested(A, "s.1"), *start("s.1"))
        assert isinstance(machine.state, Ready)
        self.asked: list[object] = []
        self.told: list[tuple[str, str]] = []
        fleet = SimpleNamespace(state=machine.state, switch=switch)
        owner = cast(Owner, SimpleNamespace(fleet=fleet, ask=self._ask))
        traffic = cast(Traffic, SimpleNamespace(active=active))
        self.unloader = IdleUnloader(owner, traffic, lambda profile: limit_s, lambda *event: self.told.append(event))

    async def _ask(self, event: object) -> None:
        self.asked.append(event)

    async def looked(self) -> list[object]:
        await self.unloader.look()
        return self.asked


async def test_after_its_time_without_a_request_it_is_unloaded_and_that_is_told() -> None:
    watched = Watched(61.0)
    assert await watched.looked() == [UnloadRequested("a")]
    [(kind, text)] = watched.told
    assert kind == "unloaded"
    assert "had no request for 61 s" in text


@pytest.mark.parametrize(
    "more", [{"ready_s": 59.0}, {"limit_s": 0.0}, {"active": 1}, {"switch": object()}], ids=lambda each: str(list(each))
)
async def test_before_that_or_in_use_or_with_no_limit_it_stays(more: dict[str, Any]) -> None:
    watched = Watched(**{"ready_s": 600.0, **more})
    assert await watched.looked() == []
    assert watched.told == []


async def test_the_end_of_a_request_begins_the_time_anew_and_one_that_reached_no_engine_does_not() -> None:
    watched = Watched(600.0)
    watched.unloader.request_ended(cast(Finished, SimpleNamespace(instance="s.1")))
    assert await watched.looked() == []
    watched = Watched(600.0)
    watched.unloader.request_ended(cast(Finished, SimpleNamespace(instance=None)))
    assert len(await watched.looked()) == 1
