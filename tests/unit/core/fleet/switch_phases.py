"""A world in each phase of a switch from A, in slot `s1`, to B, in slot `s2`; `s2r` is what A returns in."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from orchestrator.core.fleet.lifecycle_states import (
    Draining,
    Preparing,
    Ready,
    Starting,
    State,
    Stopping,
)
from orchestrator.core.fleet.resident_states import (
    RollingBack,
    SideBySide,
    StartingNew,
    StoppingOld,
    SwitchFinished,
)
from orchestrator.core.profile.profile import Recovery
from tests.unit.core.fleet.lifecycle_machine import BAD_MODEL, A, B
from tests.unit.core.fleet.resident_simulation import WorldSimulation

Way = Callable[[], WorldSimulation]


def serving() -> WorldSimulation:
    """A serves, from slot s1. Its margins are two, so a ladder has three rungs."""
    fleet = WorldSimulation(recovery=Recovery(margins=(1664, 2048), max_attempts=6))
    fleet.become_ready(fleet.up(A))
    assert isinstance(state(fleet, "s1"), Ready)
    return fleet


def state(fleet: WorldSimulation, slot: str) -> State:
    return fleet.fleet.slots[slot]


def beside() -> WorldSimulation:
    fleet = serving()
    fleet.switch(B, "beside")
    assert isinstance(fleet.fleet.switch, SideBySide)
    return fleet


def draining() -> WorldSimulation:
    fleet = serving()
    fleet.switch(B, "replace")
    assert isinstance(fleet.fleet.switch, StoppingOld)
    assert isinstance(fleet.fleet.state, Draining)
    return fleet


def stopping() -> WorldSimulation:
    fleet = draining()
    fleet.perform("drain", "s1")
    assert isinstance(fleet.fleet.switch, StoppingOld)
    assert isinstance(fleet.fleet.state, Stopping)
    return fleet


def taking() -> WorldSimulation:
    fleet = stopping()
    fleet.perform("stop", "s1")
    assert isinstance(fleet.fleet.switch, StartingNew)
    assert isinstance(fleet.fleet.state, Preparing)
    return fleet


def taking_with_a_process() -> WorldSimulation:
    fleet = taking()
    fleet.perform("prepare", "s2")
    fleet.perform("spawn", "s2")
    assert isinstance(fleet.fleet.state, Starting)
    return fleet


def returning() -> WorldSimulation:
    fleet = taking_with_a_process()
    fleet.crash("s2", BAD_MODEL)
    assert isinstance(fleet.fleet.switch, RollingBack)
    assert isinstance(fleet.fleet.state, Preparing)
    return fleet


PHASES: dict[str, Way] = {
    "beside": beside,
    "draining": draining,
    "stopping": stopping,
    "taking": taking,
    "taking, with a process": taking_with_a_process,
    "returning": returning,
}


every_phase = pytest.mark.parametrize("phase", PHASES)


def result(fleet: WorldSimulation, operation: str = "s2") -> SwitchFinished:
    assert fleet.fleet.switch is None or fleet.fleet.switch.operation.id != operation
    return fleet.finished[operation]
