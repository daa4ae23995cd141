"""What nobody uses is unloaded, and loaded again for the next request; whatever a person asks for goes before that."""

from __future__ import annotations

import pytest

from orchestrator.core.fleet.lifecycle_states import Draining, Ready, Stopped
from orchestrator.core.fleet.resident_states import SleepRequested
from tests.unit.core.fleet.lifecycle_machine import A, B
from tests.unit.core.fleet.resident_simulation import WorldSimulation
from tests.unit.core.fleet.switch_phases import beside, draining, result, serving


def unloaded() -> WorldSimulation:
    fleet = serving()
    fleet.take(SleepRequested("s1.1"))
    return fleet


def test_it_ends_its_requests_and_stops_and_is_still_what_is_wanted() -> None:
    fleet = unloaded()
    assert isinstance(fleet.fleet.state, Draining)
    assert fleet.fleet.asleep == A
    fleet.settle()
    assert isinstance(fleet.fleet.state, Stopped)
    assert (fleet.fleet.asleep, fleet.fleet.desired) == (A, A)


@pytest.mark.parametrize("gone", [False, True])
def test_the_next_request_loads_it_also_while_it_is_still_on_its_way_out(gone: bool) -> None:
    fleet = unloaded()
    if gone:
        fleet.settle()

    slot = fleet.switch(A, "replace")
    assert fleet.fleet.asleep is None
    fleet.settle()
    assert isinstance(fleet.fleet.state, Ready)
    assert fleet.fleet.state.start_record.target == A
    assert result(fleet, slot).ok


def test_another_one_may_take_its_place() -> None:
    fleet = unloaded()
    fleet.settle()
    fleet.become_ready(fleet.up(B))
    assert (fleet.fleet.asleep, fleet.fleet.desired) == (None, B)


def test_a_stop_is_no_sleep() -> None:
    fleet = unloaded()
    fleet.down()
    fleet.settle()
    assert (fleet.fleet.asleep, fleet.fleet.desired) == (None, None)


@pytest.mark.parametrize("phase", [beside, draining])
def test_during_a_switch_nothing_is_unloaded(phase: object) -> None:
    assert callable(phase)
    fleet = phase()
    before = fleet.fleet
    fleet.take(SleepRequested("s1.1"))
    assert fleet.fleet == before


def test_an_instance_that_is_gone_unloads_nothing() -> None:
    fleet = serving()
    fleet.take(SleepRequested("s9.1"))
    assert isinstance(fleet.fleet.state, Ready)
    assert fleet.fleet.asleep is None
