"""The router keeps, for each resident, what the fleet's state does not tell: failures mended since, refusals, times."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import cast

import pytest

from orchestrator.core.fleet.fleet_states import Fleet
from orchestrator.core.fleet.lifecycle_states import Target
from orchestrator.core.fleet.model_figures import Model, ModelFigures
from orchestrator.core.fleet.resident_states import StartingNew, SwitchOperation
from orchestrator.core.fleet.routing_states import Endpoint
from orchestrator.daemon.fleet.engine_run import EngineRuns
from orchestrator.daemon.fleet.owner import Owner
from orchestrator.daemon.fleet.router import Router
from tests.unit.core.fleet.test_routing_beside import asleep, failed, fleet_of, loading, ready

pytestmark = pytest.mark.anyio


class Runs:
    """What the processes of all instances tell."""

    def endpoint(self, instance: str) -> Endpoint:
        return Endpoint(instance, instance.partition(".")[0], "upstream", "127.0.0.1", 1, None)

    def figures(self, instance: str) -> ModelFigures:
        return ModelFigures(context_tokens=len(instance))

    def loading(self, instance: str | None) -> str:
        return f"{instance} is read"


class World:
    """A router beside a fleet that the test sets."""

    def __init__(self, fleet: Fleet, *, on_request: bool = True) -> None:
        self.fleet = fleet
        self._observers: list[Callable[[], None]] = []
        self.router = Router(cast(Owner, self), cast(EngineRuns, Runs()), on_request=on_request)
        self.models(chat="1", embed="1")

    def observe(self, observer: Callable[[], None]) -> None:
        self._observers.append(observer)

    def models(self, **versions: str) -> None:
        listed = tuple(Model(name, (), "", "unloaded", 0, version=version) for name, version in versions.items())
        self.router.list_models(listed)

    def become(self, fleet: Fleet) -> None:
        self.fleet = fleet
        for observer in self._observers:
            observer()


async def test_each_resident_is_shown_with_what_its_own_process_tells() -> None:
    world = World(fleet_of(ready("chat"), loading("embed")))
    view = world.router.view()
    assert view.progress_for("embed") == "loading embed@upstream (embed.1 is read)"
    world.become(fleet_of(ready("chat"), ready("embed")))
    view = world.router.view()
    assert view.instances == {"chat.1", "embed.1"}
    assert [model.figures.context_tokens for model in view.models] == [len("chat.1"), len("embed.1")]


async def test_a_failure_beside_the_focus_is_refused_until_its_profile_changes_and_then_waited_for() -> None:
    broken = failed("embed")
    world = World(fleet_of(ready("chat"), broken))
    assert world.router.view().refuses("embed") is not None
    world.models(chat="2", embed="1")
    assert world.router.view().refuses("embed") is not None
    world.models(chat="2", embed="2")
    assert world.router.view().refuses("embed") is None
    # The same seat fails again: it is another failure, of the text as it is now.
    world.become(fleet_of(ready("chat"), loading("embed")))
    world.become(fleet_of(ready("chat"), failed("embed")))
    assert world.router.view().refuses("embed") is not None


async def test_what_could_not_be_loaded_is_refused_until_it_serves() -> None:
    world = World(fleet_of(ready("chat"), asleep("embed")))
    world.router.mark_unavailable("embed", "embed needs 4000 MiB, and chat may not go", 30.0)
    refusal = world.router.view().refuses("embed")
    assert refusal is not None and "4000 MiB" in refusal.message
    world.become(fleet_of(ready("chat"), ready("embed")))
    assert world.router.view().serves("embed")
    world.become(fleet_of(ready("chat"), asleep("embed")))
    assert world.router.view().refuses("embed") is None


async def test_since_when_one_is_unloaded_is_listed_until_it_is_loaded_again() -> None:
    world = World(fleet_of(ready("chat"), asleep("embed")))
    world.become(fleet_of(ready("chat"), asleep("embed")))
    first = {model.name: model.unloaded_since for model in world.router.view().models}
    assert first["embed"] is not None and first["chat"] is None
    world.become(fleet_of(asleep("chat"), asleep("embed")))
    second = {model.name: model.unloaded_since for model in world.router.view().models}
    assert second["embed"] == first["embed"]
    assert second["chat"] is not None and second["chat"] >= first["embed"]
    world.become(fleet_of(asleep("chat"), loading("embed")))
    assert world.router.view().models[1].unloaded_since is None


async def test_a_switch_in_any_seat_counts_as_one_that_is_under_way() -> None:
    world = World(fleet_of(ready("chat"), ready("embed")))
    assert not world.router.switching
    operation = SwitchOperation("x", None, Target("embed", "upstream"), "replace", 0.0)
    world.become(fleet_of(ready("chat"), replace(loading("embed"), switch=StartingNew(operation, "embed"))))
    assert world.router.switching
