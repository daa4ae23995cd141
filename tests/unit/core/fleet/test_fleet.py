"""A switch that nobody interferes with, side by side and as hold and replace, and how each may fail.

`WorldSimulation` checks the invariants of every step on the way.
"""

from __future__ import annotations

import pytest

from orchestrator.core.fleet.fleet_states import (
    Returning,
    Taking,
    target_of,
)
from orchestrator.core.fleet.lifecycle_states import (
    Backoff,
    Draining,
    Failed,
    Failure,
    Preparing,
    Ready,
    Starting,
    Stopping,
)
from tests.unit.core.fleet.fleet_simulation import WorldSimulation
from tests.unit.core.fleet.lifecycle_machine import BAD_MODEL, CRASH, HUNG, OOM, A, B
from tests.unit.core.fleet.switch_phases import (
    beside,
    draining,
    result,
    returning,
    state,
    taking,
    taking_with_a_process,
)


def test_beside_the_old_one_serves_until_the_new_one_is_ready_and_then_ends_its_streams() -> None:
    world = beside()
    for kind in ("prepare", "spawn", "load"):
        world.perform(kind, "s2")
        assert world.world.current == "s1"
        assert isinstance(world.world.state, Ready)
        assert not world.world.holding

    world.now += 7
    world.perform("canary", "s2")
    assert world.world.current == "s2"
    assert isinstance(state(world, "s1"), Draining)
    finished = result(world)
    assert (finished.ok, finished.rolled_back, finished.cause) == (True, False, None)
    assert (finished.gap_s, finished.total_s) == (0.0, 7.0)
    world.settle()
    assert set(world.world.slots) == {"s2"}
    assert world.world.wanted == B


def test_beside_a_new_one_out_of_memory_climbs_the_ladder_before_it_is_given_up() -> None:
    world = beside()
    for margin_mib in (512, 1664):
        assert "s2" not in world.finished
        world.perform("prepare", "s2")
        world.perform("spawn", "s2")
        started = state(world, "s2")
        assert isinstance(started, Starting)
        assert started.course.rung is not None
        assert started.course.rung.margin_mib == margin_mib
        world.crash("s2", OOM)
        assert isinstance(state(world, "s2"), Preparing)

    world.perform("prepare", "s2")
    world.perform("spawn", "s2")
    world.crash("s2", OOM)
    finished = result(world)
    assert (finished.ok, finished.rolled_back) == (False, True)
    assert finished.cause == "out of device memory [cudaMalloc failed]"
    assert set(world.world.slots) == {"s1"}
    assert isinstance(world.world.state, Ready)
    assert world.world.wanted == A


@pytest.mark.parametrize("failure", [BAD_MODEL, CRASH], ids=["bad model", "crash"])
def test_beside_a_new_one_that_fails_is_dropped_and_the_old_one_never_stopped_serving(failure: Failure) -> None:
    world = beside()
    world.perform("prepare", "s2")
    world.perform("spawn", "s2")
    world.crash("s2", failure)
    finished = result(world)
    assert (finished.ok, finished.rolled_back, finished.gap_s) == (False, True, 0.0)
    assert set(world.world.slots) == {"s1"}
    assert isinstance(world.world.state, Ready)
    assert world.world.wanted == A
    assert not world.jobs("drain", "s1"), "the old one was told to drain"


def test_beside_a_new_one_that_cannot_be_prepared_is_dropped() -> None:
    world = beside()
    world.perform("prepare", "s2", BAD_MODEL)
    assert result(world).cause == "the file is no GGUF"
    assert set(world.world.slots) == {"s1"}


def test_beside_a_canary_that_fails_ends_the_new_one_before_it_is_dropped() -> None:
    world = beside()
    for kind in ("prepare", "spawn", "load"):
        world.perform(kind, "s2")

    world.perform("canary", "s2", HUNG)
    assert isinstance(state(world, "s2"), Stopping)
    world.perform("stop", "s2")
    assert result(world).cause == HUNG.message
    assert set(world.world.slots) == {"s1"}


def test_beside_the_old_one_may_crash_and_the_new_one_takes_over_all_the_same() -> None:
    world = beside()
    world.perform("prepare", "s2")
    world.crash("s1", CRASH)
    assert isinstance(world.world.state, Backoff)
    assert world.world.switch is not None
    for kind in ("spawn", "load", "canary"):
        world.perform(kind, "s2")

    assert result(world).ok
    assert set(world.world.slots) == {"s2"}
    world.settle()
    assert world.world.wanted == B


def test_beside_an_old_one_that_crashed_starts_again_while_the_new_one_loads() -> None:
    world = beside()
    world.perform("prepare", "s2")
    world.perform("spawn", "s2")
    world.crash("s1", CRASH)
    world.fire_timer("s1")
    world.become_ready("s1")
    assert world.world.current == "s1"
    assert len(world.running) == 2
    world.crash("s2", BAD_MODEL)
    assert result(world).rolled_back
    assert isinstance(world.world.state, Ready)


def test_beside_with_both_failed_nobody_is_told_that_the_old_one_serves_again() -> None:
    world = beside()
    world.perform("prepare", "s2")
    world.perform("spawn", "s2")
    world.crash("s1", BAD_MODEL)
    assert isinstance(world.world.state, Failed)
    world.crash("s2", BAD_MODEL)
    finished = result(world)
    assert (finished.ok, finished.rolled_back) == (False, False)
    assert isinstance(world.world.state, Failed)
    assert target_of(world.world.state) == world.world.wanted == A


def test_replace_starts_the_new_one_only_when_the_old_one_is_gone() -> None:
    world = draining()
    assert world.world.holding
    world.perform("drain", "s1")
    assert not world.jobs("prepare", "s2")
    world.perform("stop", "s1")
    assert not world.running
    assert world.jobs("prepare", "s2")


def test_replace_counts_the_gap_from_the_moment_requests_are_held_until_the_new_one_is_ready() -> None:
    world = draining()
    world.now += 3
    world.perform("drain", "s1")
    world.now += 2
    world.perform("stop", "s1")
    world.now += 20
    world.become_ready("s2")
    finished = result(world)
    assert (finished.ok, finished.rolled_back, finished.cause) == (True, False, None)
    assert finished.gap_s == finished.total_s == 25.0
    assert not world.world.holding
    assert set(world.world.slots) == {"s2"}
    assert world.world.wanted == B


def test_replace_by_one_that_fails_starts_the_old_target_again() -> None:
    world = returning()
    assert world.world.holding
    assert "s2" not in world.finished
    world.now += 5
    world.become_ready("s2r")
    finished = result(world)
    assert (finished.ok, finished.rolled_back, finished.cause) == (False, True, "the file is no GGUF")
    assert finished.gap_s == 5.0
    assert target_of(world.world.state) == world.world.wanted == A
    assert set(world.world.slots) == {"s2r"}


def test_replace_by_one_that_runs_out_of_memory_climbs_the_ladder_before_the_roll_back() -> None:
    world = taking()
    for _ in range(3):
        assert isinstance(world.world.switch, Taking)
        world.perform("prepare", "s2")
        world.perform("spawn", "s2")
        world.crash("s2", OOM)

    assert isinstance(world.world.switch, Returning)
    assert world.world.switch.cause == "out of device memory [cudaMalloc failed]"
    world.settle()
    assert result(world).rolled_back


def test_replace_by_one_that_crashes_once_is_rolled_back_without_waiting_for_a_second_try() -> None:
    world = taking_with_a_process()
    world.crash("s2", CRASH)
    assert isinstance(world.world.switch, Returning)
    assert set(world.world.slots) == {"s2r"}


def test_a_roll_back_that_fails_names_both_causes_and_shows_the_failure_of_what_ran_before() -> None:
    world = returning()
    world.perform("prepare", "s2r")
    world.perform("spawn", "s2r")
    world.crash("s2r", BAD_MODEL)
    finished = result(world)
    assert (finished.ok, finished.rolled_back) == (False, False)
    assert finished.cause == f"{BAD_MODEL.message}; and what ran before did not start again: {BAD_MODEL.message}"
    assert isinstance(world.world.state, Failed)
    assert target_of(world.world.state) == world.world.wanted == A


def test_a_roll_back_that_crashes_is_tried_again_after_the_switch_is_over() -> None:
    world = returning()
    world.perform("prepare", "s2r")
    world.perform("spawn", "s2r")
    world.crash("s2r", CRASH)
    assert not result(world).rolled_back
    assert isinstance(world.world.state, Backoff)
    world.settle()
    assert isinstance(world.world.state, Ready)
    assert target_of(world.world.state) == A


def test_an_old_one_that_crashes_while_it_drains_makes_way_at_once() -> None:
    world = draining()
    world.crash("s1", CRASH)
    assert isinstance(world.world.switch, Taking)
    world.settle()
    assert result(world).ok


def test_an_old_one_that_is_still_loading_is_ended_first() -> None:
    world = WorldSimulation()
    world.up(A)
    world.perform("prepare", "s1")
    operation = world.switch(B, "replace")
    assert isinstance(world.world.state, Stopping)
    world.perform("spawn", "s1")
    world.perform("stop", "s1")
    world.become_ready(operation)
    assert result(world).ok
    assert result(world).operation.origin == A


def test_an_old_one_that_is_still_being_prepared_has_no_process_to_wait_for() -> None:
    world = WorldSimulation()
    world.up(A)
    operation = world.switch(B, "replace")
    assert isinstance(world.world.switch, Taking)
    world.perform("prepare", "s1")
    assert not world.jobs("spawn", "s1")
    world.become_ready(operation)
    assert set(world.world.slots) == {operation}
