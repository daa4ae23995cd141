"""Each start that failed for good is tried once more when its files have changed, whichever seat it is in."""

from __future__ import annotations

from typing import cast

import pytest

from orchestrator.core.fleet.fleet_states import Fleet
from orchestrator.core.fleet.lifecycle_states import FilesChanged, Target
from orchestrator.daemon.fleet import second_look
from orchestrator.daemon.fleet.owner import Owner
from orchestrator.daemon.fleet.preparing import Preparer
from orchestrator.daemon.fleet.second_look import SecondLook
from tests.unit.core.fleet.test_routing_beside import asleep, failed, fleet_of, loading, ready

pytestmark = pytest.mark.asyncio


class EnoughError(Exception):
    """The test has seen what it wants to see."""


class World:
    """A fleet whose failed starts are looked at, with the profiles whose files have changed."""

    def __init__(self, fleet: Fleet, *changed: str) -> None:
        self.fleet = fleet
        self._changed = changed
        self.asked: list[str] = []
        self.events: list[object] = []
        self.told: list[str] = []

    def files_changed(self, target: Target) -> bool:
        self.asked.append(target.profile)
        return target.profile in self._changed

    async def ask(self, event: object) -> None:
        self.events.append(event)


async def look_once(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    ticks = iter((None,))

    async def tick(every_s: float) -> None:
        if next(ticks, EnoughError) is EnoughError:
            raise EnoughError

    monkeypatch.setattr(second_look, "sleep_until_tick", tick)
    look = SecondLook(cast(Owner, world), cast(Preparer, world), lambda kind, text: world.told.append(text))
    with pytest.raises(EnoughError):
        await look.run()


async def test_what_failed_in_any_seat_is_tried_again_and_nothing_else_is_looked_at(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = World(fleet_of(ready("chat"), failed("embed"), loading("rank"), failed("draw")), "embed", "draw", "chat")
    await look_once(world, monkeypatch)
    assert world.asked == ["embed", "draw"]
    events = [each.instance for each in world.events if isinstance(each, FilesChanged)]
    assert events == ["embed.1", "draw.1"]
    assert [text.split(":")[0] for text in world.told] == ["embed@upstream", "draw@upstream"]


async def test_one_whose_files_are_as_they_were_or_that_is_gone_meanwhile_stays_as_it_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = World(fleet_of(ready("chat"), failed("embed"), failed("draw")), "draw")
    changed = world.files_changed

    def gone_meanwhile(target: Target) -> bool:
        world.fleet = fleet_of(ready("chat"), failed("embed"), asleep("draw"))
        return changed(target)

    monkeypatch.setattr(world, "files_changed", gone_meanwhile)
    await look_once(world, monkeypatch)
    assert world.asked == ["embed", "draw"]
    assert world.events == []
