"""A switch that meets a cancel, a stop, a start, another switch or a stray event, in each of its phases."""

from __future__ import annotations

import pytest

from orchestrator.core.fleet.fleet_states import (
    CancelRequested,
    Clearing,
    Returning,
    SlotWoke,
    Strategy,
    SwitchRequested,
    Taking,
    target_of,
)
from orchestrator.core.fleet.lifecycle_states import (
    CheckFailed,
    Exited,
    Ready,
    Stopped,
    Stopping,
    Target,
)
from tests.unit.core.fleet.fleet_simulation import WorldSimulation
from tests.unit.core.fleet.lifecycle_machine import CRASH, HUNG, A, B
from tests.unit.core.fleet.switch_phases import (
    PHASES,
    beside,
    draining,
    every_phase,
    result,
    returning,
    serving,
    state,
    stopping,
    taking,
    taking_with_a_process,
)


def test_cancelled_beside_the_new_one_is_ended_and_the_old_one_serves_on() -> None:
    world = beside()
    world.perform("prepare", "s2")
    world.perform("spawn", "s2")
    world.cancel()
    finished = result(world)
    assert (finished.ok, finished.rolled_back, finished.cause, finished.gap_s) == (False, True, "cancelled", 0.0)
    assert isinstance(state(world, "s2"), Stopping)
    assert isinstance(world.world.state, Ready)
    world.settle()
    assert set(world.world.slots) == {"s1"}


def test_cancelled_while_draining_the_same_process_serves_again() -> None:
    world = draining()
    before = world.running.copy()
    world.now += 4
    world.cancel()
    assert isinstance(world.world.state, Ready)
    finished = result(world)
    assert (finished.ok, finished.rolled_back, finished.cause, finished.gap_s) == (False, True, "cancelled", 4.0)
    world.settle()
    assert world.running == before
    assert world.world.wanted == A


def test_cancelled_while_stopping_the_old_target_is_started_again() -> None:
    world = stopping()
    world.cancel()
    assert "s2" not in world.finished
    world.perform("stop", "s1")
    assert isinstance(world.world.switch, Returning)
    world.become_ready("s2r")
    finished = result(world)
    assert (finished.ok, finished.rolled_back, finished.cause) == (False, True, "cancelled")
    assert target_of(world.world.state) == A


def test_cancelled_while_taking_the_new_process_is_ended_before_the_old_target_starts() -> None:
    world = taking_with_a_process()
    world.cancel()
    assert isinstance(world.world.switch, Taking)
    assert isinstance(world.world.state, Stopping)
    assert not world.jobs("prepare", "s2r")
    world.perform("stop", "s2")
    assert isinstance(world.world.switch, Returning)
    world.settle()
    assert result(world).rolled_back


def test_cancelled_while_the_new_one_is_being_prepared_it_is_never_spawned() -> None:
    world = taking()
    world.cancel()
    assert isinstance(world.world.switch, Returning)
    world.perform("prepare", "s2")
    assert not world.jobs("spawn", "s2")


def test_cancelled_while_returning_changes_nothing() -> None:
    world = returning()
    before = world.world
    world.cancel()
    assert world.world == before


@every_phase
def test_a_switch_cancelled_in_any_phase_ends_on_the_old_target(phase: str) -> None:
    world = PHASES[phase]()
    world.cancel()
    world.settle()
    finished = result(world)
    assert (finished.ok, finished.rolled_back) == (False, True)
    assert isinstance(world.world.state, Ready)
    assert target_of(world.world.state) == world.world.wanted == A


@every_phase
def test_cancelling_twice_is_the_same_as_once(phase: str) -> None:
    world = PHASES[phase]()
    world.take(CancelRequested("s2"))
    before = world.world
    world.take(CancelRequested("s2"))
    assert world.world == before
    world.settle()
    assert target_of(world.world.state) == A


@every_phase
def test_a_cancel_of_another_switch_changes_nothing(phase: str) -> None:
    world = PHASES[phase]()
    before = world.world
    world.take(CancelRequested("another"))
    assert world.world == before


def test_a_cancelled_start_from_nothing_leaves_nothing_and_wants_nothing() -> None:
    world = WorldSimulation()
    operation = world.switch(B, "replace")
    world.cancel()
    finished = result(world, operation)
    assert (finished.ok, finished.rolled_back, finished.cause) == (False, False, "cancelled")
    world.settle()
    assert isinstance(world.world.state, Stopped)
    assert world.world.wanted is None


@every_phase
@pytest.mark.parametrize("force", [False, True], ids=["drained", "forced"])
def test_a_stop_in_any_phase_ends_the_switch_and_every_process(phase: str, force: bool) -> None:
    world = PHASES[phase]()
    world.down(force=force)
    finished = result(world)
    assert (finished.ok, finished.rolled_back, finished.cause) == (False, False, "everything was stopped")
    assert not world.world.holding
    world.settle()
    assert isinstance(world.world.state, Stopped)
    assert not world.running
    assert world.world.wanted is None


@every_phase
def test_after_a_stop_no_timer_starts_anything(phase: str) -> None:
    world = PHASES[phase]()
    world.down()
    world.settle()
    world.now += 3600
    for slot in ("s1", "s2", "s2r"):
        world.take(SlotWoke(slot))

    assert not world.engines.work()


@every_phase
@pytest.mark.parametrize("target", [A, B], ids=["the old target", "the new target"])
def test_a_start_in_any_phase_ends_the_switch_and_wins(phase: str, target: Target) -> None:
    world = PHASES[phase]()
    world.up(target)
    finished = result(world)
    assert (finished.ok, finished.rolled_back) == (False, False)
    assert finished.cause == f"replaced by a start of {target}"
    world.settle()
    assert isinstance(world.world.state, Ready)
    assert target_of(world.world.state) == world.world.wanted == target


def test_a_start_of_what_serves_while_another_loads_beside_it_is_not_a_restart() -> None:
    world = beside()
    world.perform("prepare", "s2")
    world.perform("spawn", "s2")
    before = state(world, "s1")
    world.up(A)
    assert world.world.current == "s1"
    assert world.world.state == before
    world.settle()
    assert state(world, "s1") == before


def test_a_start_while_the_new_one_is_being_prepared_leaves_no_second_process() -> None:
    world = taking()
    world.up(A)
    world.perform("prepare", "s2")
    assert not world.jobs("spawn", "s2")
    world.settle()
    assert len(world.running) == 1


def test_a_start_waits_for_every_process_on_its_way_out() -> None:
    world = beside()
    world.perform("prepare", "s2")
    world.perform("spawn", "s2")
    world.down()
    assert len(world.running) == 2
    slot = world.up(A)
    for each in ("s1", "s2"):
        assert not world.jobs("prepare", slot)
        assert world.world.wanted == A
        if each == "s1":
            world.perform("drain", each)

        world.perform("stop", each)

    world.become_ready(slot)
    assert isinstance(world.world.state, Ready)


def test_a_start_while_one_instance_stops_takes_its_slot_when_it_is_gone() -> None:
    world = serving()
    world.down()
    world.up(B)
    assert world.world.current == "s1"
    assert not world.jobs("prepare", "s1")
    world.settle()
    assert target_of(world.world.state) == world.world.wanted == B


def test_a_start_of_something_else_replaces_what_serves() -> None:
    world = serving()
    slot = world.up(B)
    assert isinstance(world.world.switch, Clearing)
    world.settle()
    assert result(world, slot).ok
    assert world.world.wanted == B


@every_phase
@pytest.mark.parametrize("strategy", ["beside", "replace"])
def test_a_second_switch_is_refused_and_the_first_goes_on(phase: str, strategy: Strategy) -> None:
    world = PHASES[phase]()
    before = world.world
    second = world.switch(A, strategy)
    assert world.world == before
    finished = result(world, second)
    assert (finished.ok, finished.rolled_back) == (False, False)
    assert finished.cause == f"a switch to {B} is under way"
    world.settle()
    assert "s2" in world.finished


@every_phase
def test_the_same_request_delivered_twice_is_one_switch(phase: str) -> None:
    world = PHASES[phase]()
    before = world.world
    world.take(SwitchRequested(B, "s2", "replace"))
    assert world.world == before
    assert "s2" not in world.finished


@every_phase
def test_what_an_unknown_slot_reports_changes_nothing(phase: str) -> None:
    world = PHASES[phase]()
    before = world.world
    world.take(Exited("gone.1", CRASH))
    world.take(SlotWoke("gone"))
    assert world.world == before


def test_a_stale_check_of_the_old_process_does_not_touch_the_new_one() -> None:
    world = taking_with_a_process()
    before = world.world
    world.take(CheckFailed("s1.1", HUNG))
    assert world.world == before
