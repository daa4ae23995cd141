"""What a switch does depends on what runs when it is asked for."""

from __future__ import annotations

import pytest

from orchestrator.core.fleet.fleet_states import (
    Clearing,
    Returning,
    Strategy,
    slot_of,
    target_of,
)
from orchestrator.core.fleet.lifecycle_states import (
    Backoff,
    CheckFailed,
    Draining,
    Failed,
    Ready,
    Stopped,
    Stopping,
)
from tests.unit.core.fleet.fleet_simulation import WorldSimulation
from tests.unit.core.fleet.lifecycle_machine import BAD_MODEL, CRASH, A, B
from tests.unit.core.fleet.switch_phases import beside, result, serving, state


def test_a_switch_beside_while_a_replaced_instance_still_streams_waits_for_it() -> None:
    world = beside()
    world.become_ready("s2")
    assert isinstance(state(world, "s1"), Draining)
    third = world.switch(A, "beside")
    assert not world.jobs("prepare", third)
    assert not world.world.holding
    world.perform("drain", "s1")
    world.perform("stop", "s1")
    world.become_ready(third)
    assert result(world, third).ok
    assert world.world.current == third


def test_a_switch_beside_may_be_cancelled_before_its_slot_was_opened() -> None:
    world = beside()
    world.become_ready("s2")
    third = world.switch(A, "beside")
    world.cancel()
    assert result(world, third).rolled_back
    world.settle()
    assert set(world.world.slots) == {"s2"}


def test_a_replace_while_a_replaced_instance_still_streams_waits_for_it_too() -> None:
    world = beside()
    world.become_ready("s2")
    third = world.switch(A, "replace")
    world.perform("drain", "s2")
    world.perform("stop", "s2")
    assert world.running == {"s1.1"}
    assert isinstance(world.world.switch, Clearing)
    world.perform("drain", "s1")
    world.perform("stop", "s1")
    world.become_ready(third)
    assert result(world, third).ok


def test_a_switch_right_after_a_cancelled_one_waits_for_the_process_that_was_dropped() -> None:
    world = beside()
    world.perform("prepare", "s2")
    world.perform("spawn", "s2")
    world.cancel()
    third = world.switch(B, "beside")
    assert not world.jobs("prepare", third)
    world.perform("stop", "s2")
    world.become_ready(third)
    assert result(world, third).ok


@pytest.mark.parametrize("strategy", ["beside", "replace"])
def test_a_switch_to_what_runs_already_is_finished_at_once(strategy: Strategy) -> None:
    world = serving()
    before = world.world
    operation = world.switch(A, strategy)
    assert world.world == before
    finished = result(world, operation)
    assert (finished.ok, finished.gap_s, finished.total_s) == (True, 0.0, 0.0)
    assert not world.engines.work()


@pytest.mark.parametrize("strategy", ["beside", "replace"])
def test_again_restarts_what_runs_already(strategy: Strategy) -> None:
    world = serving()
    operation = world.switch(A, strategy, again=True)
    world.settle()
    assert result(world, operation).ok
    assert world.running == {f"{operation}.1"}
    assert world.world.wanted == A


def test_a_restart_that_fails_returns_to_the_same_target() -> None:
    world = serving()
    operation = world.switch(A, "replace", again=True)
    world.perform("drain", "s1")
    world.perform("stop", "s1")
    world.perform("prepare", operation, BAD_MODEL)
    assert isinstance(world.world.switch, Returning)
    world.settle()
    assert result(world, operation).rolled_back


@pytest.mark.parametrize("strategy", ["beside", "replace"])
def test_a_switch_when_nothing_ever_ran_is_a_start(strategy: Strategy) -> None:
    world = WorldSimulation()
    operation = world.switch(B, strategy)
    assert world.world.holding
    world.now += 9
    world.become_ready(operation)
    finished = result(world, operation)
    assert (finished.ok, finished.operation.origin, finished.gap_s) == (True, None, 9.0)
    assert world.world.wanted == B


@pytest.mark.parametrize("strategy", ["beside", "replace"])
def test_a_switch_after_a_stop_is_a_start(strategy: Strategy) -> None:
    world = serving()
    world.down()
    world.settle()
    operation = world.switch(B, strategy)
    world.settle()
    assert result(world, operation).ok
    assert set(world.world.slots) == {operation}


@pytest.mark.parametrize("strategy", ["beside", "replace"])
def test_a_switch_while_everything_stops_waits_until_it_has_stopped(strategy: Strategy) -> None:
    world = serving()
    world.down()
    operation = world.switch(B, strategy)
    assert world.world.holding
    assert not world.jobs("prepare", operation)
    world.perform("drain", "s1")
    world.perform("stop", "s1")
    world.become_ready(operation)
    assert result(world, operation).ok


def test_a_switch_cancelled_while_everything_stops_lets_the_stop_go_on() -> None:
    world = serving()
    world.down()
    operation = world.switch(B, "replace")
    world.cancel()
    finished = result(world, operation)
    assert (finished.ok, finished.rolled_back) == (False, False)
    world.settle()
    assert isinstance(world.world.state, Stopped)
    assert world.world.wanted is None


def test_a_switch_from_nothing_that_fails_shows_the_failure() -> None:
    world = WorldSimulation()
    operation = world.switch(B, "replace")
    world.perform("prepare", operation, BAD_MODEL)
    finished = result(world, operation)
    assert (finished.ok, finished.rolled_back, finished.cause) == (False, False, "the file is no GGUF")
    assert isinstance(world.world.state, Failed)
    assert world.world.wanted == B


@pytest.mark.parametrize("strategy", ["beside", "replace"])
def test_a_switch_from_what_failed_is_a_start(strategy: Strategy) -> None:
    world = serving()
    world.crash("s1", BAD_MODEL)
    assert isinstance(world.world.state, Failed)
    operation = world.switch(B, strategy)
    world.become_ready(operation)
    finished = result(world, operation)
    assert (finished.ok, finished.operation.origin) == (True, None)
    assert set(world.world.slots) == {operation}


@pytest.mark.parametrize("strategy", ["beside", "replace"])
def test_a_switch_from_what_waits_to_be_restarted_goes_well(strategy: Strategy) -> None:
    world = serving()
    world.crash("s1", CRASH)
    assert isinstance(world.world.state, Backoff)
    operation = world.switch(B, strategy)
    world.become_ready(operation)
    assert result(world, operation).ok
    assert set(world.world.slots) == {operation}
    world.settle()
    assert world.world.wanted == B


@pytest.mark.parametrize("strategy", ["beside", "replace"])
def test_a_failed_switch_from_what_waited_to_be_restarted_restarts_it(strategy: Strategy) -> None:
    world = serving()
    world.crash("s1", CRASH)
    operation = world.switch(B, strategy)
    world.perform("prepare", operation, BAD_MODEL)
    world.settle()
    assert result(world, operation).rolled_back
    assert isinstance(world.world.state, Ready)
    assert target_of(world.world.state) == world.world.wanted == A


@pytest.mark.parametrize("strategy", ["beside", "replace"])
def test_a_switch_to_what_waits_to_be_restarted_starts_it_without_the_wait(strategy: Strategy) -> None:
    world = serving()
    world.crash("s1", CRASH)
    operation = world.switch(A, strategy)
    assert world.jobs("prepare", operation)
    world.become_ready(operation)
    assert result(world, operation).ok


def test_the_names_of_instances_carry_their_slot() -> None:
    world = serving()
    assert world.running == {"s1.1"}
    assert slot_of("s1.1") == "s1"
    assert slot_of("s2r.3") == "s2r"


@pytest.mark.parametrize("how", ["up", "beside", "replace"])
def test_a_start_of_what_is_just_failing_forgets_the_failure_when_its_process_is_gone(how: str) -> None:
    world = serving()
    world.take(CheckFailed("s1.1", BAD_MODEL))
    assert isinstance(world.world.state, Stopping)
    slot = world.up(A) if how == "up" else world.switch(A, "beside" if how == "beside" else "replace")
    assert slot not in world.finished
    assert not world.jobs("prepare", slot)
    world.perform("stop", "s1")
    world.become_ready(slot)
    assert result(world, slot).ok
    assert isinstance(world.world.state, Ready)
