"""A switch that meets a cancel, a stop, a start, another switch or a stray event, in each of its phases."""

from __future__ import annotations

import pytest

from orchestrator.core.fleet.lifecycle_states import (
    CheckFailed,
    Exited,
    Ready,
    Stopped,
    Stopping,
    Target,
)
from orchestrator.core.fleet.resident_states import (
    CancelRequested,
    EndCause,
    RollingBack,
    SlotWoke,
    StartingNew,
    StoppingOld,
    Strategy,
    SwitchRequested,
    slot_of,
    target_of,
)
from tests.unit.core.fleet.lifecycle_machine import BAD_MODEL, CRASH, HUNG, A, B
from tests.unit.core.fleet.resident_simulation import WorldSimulation
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

C = Target("c", "upstream")


def test_cancelled_beside_the_new_one_is_ended_and_the_old_one_serves_on() -> None:
    fleet = beside()
    fleet.perform("prepare", "s2")
    fleet.perform("spawn", "s2")
    fleet.cancel()
    finished = result(fleet)
    assert (finished.ok, finished.rolled_back, finished.cause_text, finished.gap_s) == (False, True, "cancelled", 0.0)
    assert isinstance(state(fleet, "s2"), Stopping)
    assert isinstance(fleet.fleet.state, Ready)
    fleet.settle()
    assert set(fleet.fleet.slots) == {"s1"}


def test_cancelled_while_draining_the_same_process_serves_again() -> None:
    fleet = draining()
    before = fleet.running.copy()
    fleet.now += 4
    fleet.cancel()
    assert isinstance(fleet.fleet.state, Ready)
    finished = result(fleet)
    assert (finished.ok, finished.rolled_back, finished.cause_text, finished.gap_s) == (False, True, "cancelled", 4.0)
    fleet.settle()
    assert fleet.running == before
    assert fleet.fleet.desired == A


def test_cancelled_while_stopping_the_old_target_is_started_again() -> None:
    fleet = stopping()
    fleet.cancel()
    assert "s2" not in fleet.finished
    fleet.perform("stop", "s1")
    assert isinstance(fleet.fleet.switch, RollingBack)
    fleet.become_ready("s2r")
    finished = result(fleet)
    assert (finished.ok, finished.rolled_back, finished.cause_text) == (False, True, "cancelled")
    assert target_of(fleet.fleet.state) == A


def test_cancelled_while_taking_the_new_process_is_ended_before_the_old_target_starts() -> None:
    fleet = taking_with_a_process()
    fleet.cancel()
    assert isinstance(fleet.fleet.switch, StartingNew)
    assert isinstance(fleet.fleet.state, Stopping)
    assert not fleet.jobs("prepare", "s2r")
    fleet.perform("stop", "s2")
    assert isinstance(fleet.fleet.switch, RollingBack)
    fleet.settle()
    assert result(fleet).rolled_back


def test_cancelled_while_the_new_one_is_being_prepared_it_is_never_spawned() -> None:
    fleet = taking()
    fleet.cancel()
    assert isinstance(fleet.fleet.switch, RollingBack)
    fleet.perform("prepare", "s2")
    assert not fleet.jobs("spawn", "s2")


def test_cancelled_while_returning_changes_nothing() -> None:
    fleet = returning()
    before = fleet.fleet
    fleet.cancel()
    assert fleet.fleet == before


@every_phase
def test_a_switch_cancelled_in_any_phase_ends_on_the_old_target(phase: str) -> None:
    fleet = PHASES[phase]()
    fleet.cancel()
    fleet.settle()
    finished = result(fleet)
    assert (finished.ok, finished.rolled_back) == (False, True)
    assert isinstance(fleet.fleet.state, Ready)
    assert target_of(fleet.fleet.state) == fleet.fleet.desired == A


@every_phase
def test_cancelling_twice_is_the_same_as_once(phase: str) -> None:
    fleet = PHASES[phase]()
    fleet.take(CancelRequested("s2"))
    before = fleet.fleet
    fleet.take(CancelRequested("s2"))
    assert fleet.fleet == before
    fleet.settle()
    assert target_of(fleet.fleet.state) == A


@every_phase
def test_a_cancel_of_another_switch_changes_nothing(phase: str) -> None:
    fleet = PHASES[phase]()
    before = fleet.fleet
    fleet.take(CancelRequested("another"))
    assert fleet.fleet == before


def test_a_cancelled_start_from_nothing_leaves_nothing_and_wants_nothing() -> None:
    fleet = WorldSimulation()
    operation = fleet.switch(B, "replace")
    fleet.cancel()
    finished = result(fleet, operation)
    assert (finished.ok, finished.rolled_back, finished.cause_text) == (False, False, "cancelled")
    fleet.settle()
    assert isinstance(fleet.fleet.state, Stopped)
    assert fleet.fleet.desired is None


@every_phase
@pytest.mark.parametrize("force", [False, True], ids=["drained", "forced"])
def test_a_stop_in_any_phase_ends_the_switch_and_every_process(phase: str, force: bool) -> None:
    fleet = PHASES[phase]()
    fleet.down(force=force)
    finished = result(fleet)
    assert (finished.ok, finished.rolled_back, finished.cause_text) == (False, False, "everything was stopped")
    assert not fleet.fleet.holding
    fleet.settle()
    assert isinstance(fleet.fleet.state, Stopped)
    assert not fleet.running
    assert fleet.fleet.desired is None


@every_phase
def test_after_a_stop_no_timer_starts_anything(phase: str) -> None:
    fleet = PHASES[phase]()
    fleet.down()
    fleet.settle()
    fleet.now += 3600
    for slot in ("s1", "s2", "s2r"):
        fleet.take(SlotWoke(slot))

    assert not fleet.engines.work()


@every_phase
@pytest.mark.parametrize("target", [A, B], ids=["the old target", "the new target"])
def test_a_start_in_any_phase_ends_the_switch_and_wins(phase: str, target: Target) -> None:
    fleet = PHASES[phase]()
    fleet.up(target)
    finished = result(fleet)
    assert (finished.ok, finished.rolled_back) == (False, False)
    assert finished.cause_text == f"replaced by a start of {target}"
    fleet.settle()
    assert isinstance(fleet.fleet.state, Ready)
    assert target_of(fleet.fleet.state) == fleet.fleet.desired == target


def test_a_start_of_what_serves_while_another_loads_beside_it_is_not_a_restart() -> None:
    fleet = beside()
    fleet.perform("prepare", "s2")
    fleet.perform("spawn", "s2")
    before = state(fleet, "s1")
    fleet.up(A)
    assert fleet.fleet.current == "s1"
    assert fleet.fleet.state == before
    fleet.settle()
    assert state(fleet, "s1") == before


def test_a_start_while_the_new_one_is_being_prepared_leaves_no_second_process() -> None:
    fleet = taking()
    fleet.up(A)
    fleet.perform("prepare", "s2")
    assert not fleet.jobs("spawn", "s2")
    fleet.settle()
    assert len(fleet.running) == 1


def test_a_start_waits_for_every_process_on_its_way_out() -> None:
    fleet = beside()
    fleet.perform("prepare", "s2")
    fleet.perform("spawn", "s2")
    fleet.down()
    assert len(fleet.running) == 2
    slot = fleet.up(A)
    for each in ("s1", "s2"):
        assert not fleet.jobs("prepare", slot)
        assert fleet.fleet.desired == A
        if each == "s1":
            fleet.perform("drain", each)

        fleet.perform("stop", each)

    fleet.become_ready(slot)
    assert isinstance(fleet.fleet.state, Ready)


def test_a_start_while_one_instance_stops_takes_its_slot_when_it_is_gone() -> None:
    fleet = serving()
    fleet.down()
    fleet.up(B)
    assert fleet.fleet.current == "s1"
    assert not fleet.jobs("prepare", "s1")
    fleet.settle()
    assert target_of(fleet.fleet.state) == fleet.fleet.desired == B


def test_a_start_of_something_else_replaces_what_serves() -> None:
    fleet = serving()
    slot = fleet.up(B)
    assert isinstance(fleet.fleet.switch, StoppingOld)
    fleet.settle()
    assert result(fleet, slot).ok
    assert fleet.fleet.desired == B


@every_phase
@pytest.mark.parametrize("strategy", ["beside", "replace"])
@pytest.mark.parametrize("target", [A, C], ids=["back", "on"])
def test_a_newer_switch_takes_the_place_of_the_one_under_way(phase: str, strategy: Strategy, target: Target) -> None:
    fleet = PHASES[phase]()
    newer = fleet.switch(target, strategy)
    finished = result(fleet)
    assert (finished.ok, finished.rolled_back) == (False, False)
    assert finished.cause == EndCause("interrupted", f"replaced by a switch to {target}")
    fleet.settle()
    assert result(fleet, newer).ok
    assert target_of(fleet.fleet.state) == fleet.fleet.desired == target


@every_phase
def test_a_newer_switch_that_fails_returns_to_what_ran_before_both(phase: str) -> None:
    fleet = PHASES[phase]()
    newer = fleet.switch(C, "replace")
    for _ in range(20):
        fleet.deliver_everything()
        jobs = [job for job in fleet.engines.work() if slot_of(job[1]) == newer]
        if jobs:
            fleet.engines.finish(jobs[0], BAD_MODEL)
        elif work := fleet.engines.work():
            fleet.engines.finish(work[0], None)

    fleet.settle()
    finished = result(fleet, newer)
    assert (finished.ok, finished.rolled_back) == (False, True)
    assert finished.cause is not None and finished.cause.kind == "permanent"
    assert target_of(fleet.fleet.state) == fleet.fleet.desired == A


def test_a_switch_back_while_the_old_one_drains_lets_the_same_process_serve_again() -> None:
    fleet = draining()
    before = fleet.running.copy()
    newer = fleet.switch(A, "replace")
    assert isinstance(fleet.fleet.state, Ready)
    assert result(fleet, newer).ok
    assert fleet.running == before


@every_phase
def test_the_same_request_delivered_twice_is_one_switch(phase: str) -> None:
    fleet = PHASES[phase]()
    before = fleet.fleet
    fleet.take(SwitchRequested(B, "s2", "replace"))
    assert fleet.fleet == before
    assert "s2" not in fleet.finished


@every_phase
def test_what_an_unknown_slot_reports_changes_nothing(phase: str) -> None:
    fleet = PHASES[phase]()
    before = fleet.fleet
    fleet.take(Exited("gone.1", CRASH))
    fleet.take(SlotWoke("gone"))
    assert fleet.fleet == before


def test_a_stale_check_of_the_old_process_does_not_touch_the_new_one() -> None:
    fleet = taking_with_a_process()
    before = fleet.fleet
    fleet.take(CheckFailed("s1.1", HUNG))
    assert fleet.fleet == before
