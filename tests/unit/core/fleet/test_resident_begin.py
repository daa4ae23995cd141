"""What a switch does depends on what runs when it is asked for."""

from __future__ import annotations

import pytest

from orchestrator.core.fleet.lifecycle_states import (
    Backoff,
    CheckFailed,
    Draining,
    Failed,
    Ready,
    Stopped,
    Stopping,
)
from orchestrator.core.fleet.resident_states import (
    RollingBack,
    StoppingOld,
    Strategy,
    SwitchRequested,
    slot_of,
    target_of,
)
from tests.unit.core.fleet.lifecycle_machine import BAD_MODEL, CRASH, A, B
from tests.unit.core.fleet.resident_simulation import WorldSimulation
from tests.unit.core.fleet.switch_phases import beside, result, serving, state


def test_a_switch_beside_does_not_wait_for_the_streams_of_a_replaced_instance() -> None:
    fleet = beside()
    fleet.become_ready("s2")
    assert isinstance(state(fleet, "s1"), Draining)
    third = fleet.switch(A, "beside")
    assert not fleet.fleet.holding
    fleet.become_ready(third)
    assert isinstance(state(fleet, "s1"), Draining)
    assert result(fleet, third).ok
    assert fleet.fleet.current == third


def test_a_switch_by_replacement_waits_for_the_streams_of_a_replaced_instance_unless_they_are_to_be_cut() -> None:
    fleet = beside()
    fleet.become_ready("s2")
    third = fleet.switch(A, "replace")
    fleet.perform("drain", "s2")
    fleet.perform("stop", "s2")
    assert isinstance(state(fleet, "s1"), Draining)
    assert not fleet.jobs("prepare", third)
    fourth = "s9"
    fleet.requested.add(fourth)
    fleet.take(SwitchRequested(A, fourth, "replace", now=True))
    assert isinstance(state(fleet, "s1"), Stopping)
    fleet.perform("stop", "s1")
    fleet.become_ready(fourth)
    assert result(fleet, fourth).ok


def test_a_switch_beside_may_be_cancelled_before_its_slot_was_opened() -> None:
    fleet = beside()
    fleet.become_ready("s2")
    third = fleet.switch(A, "beside")
    fleet.cancel()
    assert result(fleet, third).rolled_back
    fleet.settle()
    assert set(fleet.fleet.slots) == {"s2"}


def test_a_replace_while_a_replaced_instance_still_streams_waits_for_it_too() -> None:
    fleet = beside()
    fleet.become_ready("s2")
    third = fleet.switch(A, "replace")
    fleet.perform("drain", "s2")
    fleet.perform("stop", "s2")
    assert fleet.running == {"s1.1"}
    assert isinstance(fleet.fleet.switch, StoppingOld)
    fleet.perform("drain", "s1")
    fleet.perform("stop", "s1")
    fleet.become_ready(third)
    assert result(fleet, third).ok


def test_a_switch_right_after_a_cancelled_one_waits_for_the_process_that_was_dropped() -> None:
    fleet = beside()
    fleet.perform("prepare", "s2")
    fleet.perform("spawn", "s2")
    fleet.cancel()
    third = fleet.switch(B, "beside")
    assert not fleet.jobs("prepare", third)
    fleet.perform("stop", "s2")
    fleet.become_ready(third)
    assert result(fleet, third).ok


@pytest.mark.parametrize("strategy", ["beside", "replace"])
def test_a_switch_to_what_runs_already_is_finished_at_once(strategy: Strategy) -> None:
    fleet = serving()
    before = fleet.fleet
    operation = fleet.switch(A, strategy)
    assert fleet.fleet == before
    finished = result(fleet, operation)
    assert (finished.ok, finished.gap_s, finished.total_s) == (True, 0.0, 0.0)
    assert not fleet.engines.work()


@pytest.mark.parametrize("strategy", ["beside", "replace"])
def test_again_restarts_what_runs_already(strategy: Strategy) -> None:
    fleet = serving()
    operation = fleet.switch(A, strategy, again=True)
    fleet.settle()
    assert result(fleet, operation).ok
    assert fleet.running == {f"{operation}.1"}
    assert fleet.fleet.desired == A


def test_a_restart_that_fails_returns_to_the_same_target() -> None:
    fleet = serving()
    operation = fleet.switch(A, "replace", again=True)
    fleet.perform("drain", "s1")
    fleet.perform("stop", "s1")
    fleet.perform("prepare", operation, BAD_MODEL)
    assert isinstance(fleet.fleet.switch, RollingBack)
    fleet.settle()
    assert result(fleet, operation).rolled_back


@pytest.mark.parametrize("strategy", ["beside", "replace"])
def test_a_switch_when_nothing_ever_ran_is_a_start(strategy: Strategy) -> None:
    fleet = WorldSimulation()
    operation = fleet.switch(B, strategy)
    assert fleet.fleet.holding
    fleet.now += 9
    fleet.become_ready(operation)
    finished = result(fleet, operation)
    assert (finished.ok, finished.operation.origin, finished.gap_s) == (True, None, 9.0)
    assert fleet.fleet.desired == B


@pytest.mark.parametrize("strategy", ["beside", "replace"])
def test_a_switch_after_a_stop_is_a_start(strategy: Strategy) -> None:
    fleet = serving()
    fleet.down()
    fleet.settle()
    operation = fleet.switch(B, strategy)
    fleet.settle()
    assert result(fleet, operation).ok
    assert set(fleet.fleet.slots) == {operation}


@pytest.mark.parametrize("strategy", ["beside", "replace"])
def test_a_switch_while_everything_stops_waits_until_it_has_stopped(strategy: Strategy) -> None:
    fleet = serving()
    fleet.down()
    operation = fleet.switch(B, strategy)
    assert fleet.fleet.holding
    assert not fleet.jobs("prepare", operation)
    fleet.perform("drain", "s1")
    fleet.perform("stop", "s1")
    fleet.become_ready(operation)
    assert result(fleet, operation).ok


def test_a_switch_cancelled_while_everything_stops_lets_the_stop_go_on() -> None:
    fleet = serving()
    fleet.down()
    operation = fleet.switch(B, "replace")
    fleet.cancel()
    finished = result(fleet, operation)
    assert (finished.ok, finished.rolled_back) == (False, False)
    fleet.settle()
    assert isinstance(fleet.fleet.state, Stopped)
    assert fleet.fleet.desired is None


def test_a_switch_from_nothing_that_fails_shows_the_failure() -> None:
    fleet = WorldSimulation()
    operation = fleet.switch(B, "replace")
    fleet.perform("prepare", operation, BAD_MODEL)
    finished = result(fleet, operation)
    assert (finished.ok, finished.rolled_back, finished.cause_text) == (False, False, "the file is no GGUF")
    assert isinstance(fleet.fleet.state, Failed)
    assert fleet.fleet.desired == B


@pytest.mark.parametrize("strategy", ["beside", "replace"])
def test_a_switch_from_what_failed_is_a_start(strategy: Strategy) -> None:
    fleet = serving()
    fleet.crash("s1", BAD_MODEL)
    assert isinstance(fleet.fleet.state, Failed)
    operation = fleet.switch(B, strategy)
    fleet.become_ready(operation)
    finished = result(fleet, operation)
    assert (finished.ok, finished.operation.origin) == (True, None)
    assert set(fleet.fleet.slots) == {operation}


@pytest.mark.parametrize("strategy", ["beside", "replace"])
def test_a_switch_from_what_waits_to_be_restarted_goes_well(strategy: Strategy) -> None:
    fleet = serving()
    fleet.crash("s1", CRASH)
    assert isinstance(fleet.fleet.state, Backoff)
    operation = fleet.switch(B, strategy)
    fleet.become_ready(operation)
    assert result(fleet, operation).ok
    assert set(fleet.fleet.slots) == {operation}
    fleet.settle()
    assert fleet.fleet.desired == B


@pytest.mark.parametrize("strategy", ["beside", "replace"])
def test_a_failed_switch_from_what_waited_to_be_restarted_restarts_it(strategy: Strategy) -> None:
    fleet = serving()
    fleet.crash("s1", CRASH)
    operation = fleet.switch(B, strategy)
    fleet.perform("prepare", operation, BAD_MODEL)
    fleet.settle()
    assert result(fleet, operation).rolled_back
    assert isinstance(fleet.fleet.state, Ready)
    assert target_of(fleet.fleet.state) == fleet.fleet.desired == A


@pytest.mark.parametrize("strategy", ["beside", "replace"])
def test_a_switch_to_what_waits_to_be_restarted_starts_it_without_the_wait(strategy: Strategy) -> None:
    fleet = serving()
    fleet.crash("s1", CRASH)
    operation = fleet.switch(A, strategy)
    assert fleet.jobs("prepare", operation)
    fleet.become_ready(operation)
    assert result(fleet, operation).ok


def test_the_names_of_instances_carry_their_slot() -> None:
    fleet = serving()
    assert fleet.running == {"s1.1"}
    assert slot_of("s1.1") == "s1"
    assert slot_of("s2r.3") == "s2r"


@pytest.mark.parametrize("how", ["up", "beside", "replace"])
def test_a_start_of_what_is_just_failing_forgets_the_failure_when_its_process_is_gone(how: str) -> None:
    fleet = serving()
    fleet.take(CheckFailed("s1.1", BAD_MODEL))
    assert isinstance(fleet.fleet.state, Stopping)
    slot = fleet.up(A) if how == "up" else fleet.switch(A, "beside" if how == "beside" else "replace")
    assert slot not in fleet.finished
    assert not fleet.jobs("prepare", slot)
    fleet.perform("stop", "s1")
    fleet.become_ready(slot)
    assert result(fleet, slot).ok
    assert isinstance(fleet.fleet.state, Ready)
