"""A world in each phase of a switch from A, in slot `s1`, to B, in slot `s2`; `s2r` is what A returns in."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from orchestrator.core.fleet.fleet_states import (
    Beside,
    Clearing,
    Returning,
    SwitchFinished,
    Taking,
)
from orchestrator.core.fleet.lifecycle_states import (
    Draining,
    Preparing,
    Ready,
    Starting,
    State,
    Stopping,
)
from orchestrator.core.profile.profile import Recovery
from tests.unit.core.fleet.fleet_simulation import WorldSimulation
from tests.unit.core.fleet.lifecycle_machine import BAD_MODEL, A, B

Way = Callable[[], WorldSimulation]


def serving() -> WorldSimulation:
    """A serves, from slot s1. Its margins are two, so a ladder has three rungs."""
    world = WorldSimulation(recovery=Recovery(margins=(1664, 2048), max_attempts=6))
    world.become_ready(world.up(A))
    assert isinstance(state(world, "s1"), Ready)
    return world


def state(world: WorldSimulation, slot: str) -> State:
    return world.world.slots[slot]


def beside() -> WorldSimulation:
    world = serving()
    world.switch(B, "beside")
    assert isinstance(world.world.switch, Beside)
    return world


def draining() -> WorldSimulation:
    world = serving()
    world.switch(B, "replace")
    assert isinstance(world.world.switch, Clearing)
    assert isinstance(world.world.state, Draining)
    return world


def stopping() -> WorldSimulation:
    world = draining()
    world.perform("drain", "s1")
    assert isinstance(world.world.switch, Clearing)
    assert isinstance(world.world.state, Stopping)
    return world


def taking() -> WorldSimulation:
    world = stopping()
    world.perform("stop", "s1")
    assert isinstance(world.world.switch, Taking)
    assert isinstance(world.world.state, Preparing)
    return world


def taking_with_a_process() -> WorldSimulation:
    world = taking()
    world.perform("prepare", "s2")
    world.perform("spawn", "s2")
    assert isinstance(world.world.state, Starting)
    return world


def returning() -> WorldSimulation:
    world = taking_with_a_process()
    world.crash("s2", BAD_MODEL)
    assert isinstance(world.world.switch, Returning)
    assert isinstance(world.world.state, Preparing)
    return world


PHASES: dict[str, Way] = {
    "beside": beside,
    "draining": draining,
    "stopping": stopping,
    "taking": taking,
    "taking, with a process": taking_with_a_process,
    "returning": returning,
}


every_phase = pytest.mark.parametrize("phase", PHASES)


def result(world: WorldSimulation, operation: str = "s2") -> SwitchFinished:
    assert world.world.switch is None or world.world.switch.operation.id != operation
    return world.finished[operation]
