"""A switch that nobody interferes with, side by side and as hold and replace, and how each may fail.

`WorldSimulation` checks the invariants of every step on the way.
"""

from __future__ import annotations

import pytest

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
from orchestrator.core.fleet.resident_states import (
    EndCause,
    RollingBack,
    StartingNew,
    target_of,
)
from tests.unit.core.fleet.lifecycle_machine import BAD_MODEL, CRASH, HUNG, OOM, A, B
from tests.unit.core.fleet.resident_simulation import WorldSimulation
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
    fleet = beside()
    for kind in ("prepare", "spawn", "load"):
        fleet.perform(kind, "s2")
        assert fleet.fleet.current == "s1"
        assert isinstance(fleet.fleet.state, Ready)
        assert not fleet.fleet.holding

    fleet.now += 7
    fleet.perform("canary", "s2")
    assert fleet.fleet.current == "s2"
    assert isinstance(state(fleet, "s1"), Draining)
    finished = result(fleet)
    assert (finished.ok, finished.rolled_back, finished.cause_text) == (True, False, None)
    assert (finished.gap_s, finished.total_s) == (0.0, 7.0)
    fleet.settle()
    assert set(fleet.fleet.slots) == {"s2"}
    assert fleet.fleet.desired == B


def test_beside_a_new_one_out_of_memory_climbs_the_ladder_before_it_is_given_up() -> None:
    fleet = beside()
    for margin_mib in (512, 1664):
        assert "s2" not in fleet.finished
        fleet.perform("prepare", "s2")
        fleet.perform("spawn", "s2")
        started = state(fleet, "s2")
        assert isinstance(started, Starting)
        assert started.start_record.rung is not None
        assert started.start_record.rung.margin_mib == margin_mib
        fleet.crash("s2", OOM)
        assert isinstance(state(fleet, "s2"), Preparing)

    fleet.perform("prepare", "s2")
    fleet.perform("spawn", "s2")
    fleet.crash("s2", OOM)
    finished = result(fleet)
    assert (finished.ok, finished.rolled_back) == (False, True)
    assert finished.cause_text == "out of device memory [cudaMalloc failed]"
    assert set(fleet.fleet.slots) == {"s1"}
    assert isinstance(fleet.fleet.state, Ready)
    assert fleet.fleet.desired == A


@pytest.mark.parametrize("failure", [BAD_MODEL, CRASH], ids=["bad model", "crash"])
def test_beside_a_new_one_that_fails_is_dropped_and_the_old_one_never_stopped_serving(failure: Failure) -> None:
    fleet = beside()
    fleet.perform("prepare", "s2")
    fleet.perform("spawn", "s2")
    fleet.crash("s2", failure)
    finished = result(fleet)
    assert (finished.ok, finished.rolled_back, finished.gap_s) == (False, True, 0.0)
    assert set(fleet.fleet.slots) == {"s1"}
    assert isinstance(fleet.fleet.state, Ready)
    assert fleet.fleet.desired == A
    assert not fleet.jobs("drain", "s1"), "the old one was told to drain"


def test_beside_a_new_one_that_cannot_be_prepared_is_dropped() -> None:
    fleet = beside()
    fleet.perform("prepare", "s2", BAD_MODEL)
    assert result(fleet).cause_text == "the file is no GGUF"
    assert set(fleet.fleet.slots) == {"s1"}


def test_beside_a_canary_that_fails_ends_the_new_one_before_it_is_dropped() -> None:
    fleet = beside()
    for kind in ("prepare", "spawn", "load"):
        fleet.perform(kind, "s2")

    fleet.perform("canary", "s2", HUNG)
    assert isinstance(state(fleet, "s2"), Stopping)
    fleet.perform("stop", "s2")
    assert result(fleet).cause_text == HUNG.message
    assert set(fleet.fleet.slots) == {"s1"}


def test_beside_the_old_one_may_crash_and_the_new_one_takes_over_all_the_same() -> None:
    fleet = beside()
    fleet.perform("prepare", "s2")
    fleet.crash("s1", CRASH)
    assert isinstance(fleet.fleet.state, Backoff)
    assert fleet.fleet.switch is not None
    for kind in ("spawn", "load", "canary"):
        fleet.perform(kind, "s2")

    assert result(fleet).ok
    assert set(fleet.fleet.slots) == {"s2"}
    fleet.settle()
    assert fleet.fleet.desired == B


def test_beside_an_old_one_that_crashed_starts_again_while_the_new_one_loads() -> None:
    fleet = beside()
    fleet.perform("prepare", "s2")
    fleet.perform("spawn", "s2")
    fleet.crash("s1", CRASH)
    fleet.fire_timer("s1")
    fleet.become_ready("s1")
    assert fleet.fleet.current == "s1"
    assert len(fleet.running) == 2
    fleet.crash("s2", BAD_MODEL)
    assert result(fleet).rolled_back
    assert isinstance(fleet.fleet.state, Ready)


def test_beside_with_both_failed_nobody_is_told_that_the_old_one_serves_again() -> None:
    fleet = beside()
    fleet.perform("prepare", "s2")
    fleet.perform("spawn", "s2")
    fleet.crash("s1", BAD_MODEL)
    assert isinstance(fleet.fleet.state, Failed)
    fleet.crash("s2", BAD_MODEL)
    finished = result(fleet)
    assert (finished.ok, finished.rolled_back) == (False, False)
    assert isinstance(fleet.fleet.state, Failed)
    assert target_of(fleet.fleet.state) == fleet.fleet.desired == A


def test_replace_starts_the_new_one_only_when_the_old_one_is_gone() -> None:
    fleet = draining()
    assert fleet.fleet.holding
    fleet.perform("drain", "s1")
    assert not fleet.jobs("prepare", "s2")
    fleet.perform("stop", "s1")
    assert not fleet.running
    assert fleet.jobs("prepare", "s2")


def test_replace_counts_the_gap_from_the_moment_requests_are_held_until_the_new_one_is_ready() -> None:
    fleet = draining()
    fleet.now += 3
    fleet.perform("drain", "s1")
    fleet.now += 2
    fleet.perform("stop", "s1")
    fleet.now += 20
    fleet.become_ready("s2")
    finished = result(fleet)
    assert (finished.ok, finished.rolled_back, finished.cause_text) == (True, False, None)
    assert finished.gap_s == finished.total_s == 25.0
    assert not fleet.fleet.holding
    assert set(fleet.fleet.slots) == {"s2"}
    assert fleet.fleet.desired == B


def test_replace_by_one_that_fails_starts_the_old_target_again() -> None:
    fleet = returning()
    assert fleet.fleet.holding
    assert "s2" not in fleet.finished
    fleet.now += 5
    fleet.become_ready("s2r")
    finished = result(fleet)
    assert (finished.ok, finished.rolled_back, finished.cause_text) == (False, True, "the file is no GGUF")
    assert finished.gap_s == 5.0
    assert target_of(fleet.fleet.state) == fleet.fleet.desired == A
    assert set(fleet.fleet.slots) == {"s2r"}


def test_replace_by_one_that_runs_out_of_memory_climbs_the_ladder_before_the_roll_back() -> None:
    fleet = taking()
    for _ in range(3):
        assert isinstance(fleet.fleet.switch, StartingNew)
        fleet.perform("prepare", "s2")
        fleet.perform("spawn", "s2")
        fleet.crash("s2", OOM)

    assert isinstance(fleet.fleet.switch, RollingBack)
    assert fleet.fleet.switch.cause == EndCause("failed", "out of device memory [cudaMalloc failed]")
    fleet.settle()
    assert result(fleet).rolled_back


def test_replace_by_one_that_crashes_once_is_rolled_back_without_waiting_for_a_second_try() -> None:
    fleet = taking_with_a_process()
    fleet.crash("s2", CRASH)
    assert isinstance(fleet.fleet.switch, RollingBack)
    assert set(fleet.fleet.slots) == {"s2r"}


def test_a_roll_back_that_fails_names_both_causes_and_shows_the_failure_of_what_ran_before() -> None:
    fleet = returning()
    fleet.perform("prepare", "s2r")
    fleet.perform("spawn", "s2r")
    fleet.crash("s2r", BAD_MODEL)
    finished = result(fleet)
    assert (finished.ok, finished.rolled_back) == (False, False)
    assert finished.cause_text == f"{BAD_MODEL.message}; and what ran before did not start again: {BAD_MODEL.message}"
    assert isinstance(fleet.fleet.state, Failed)
    assert target_of(fleet.fleet.state) == fleet.fleet.desired == A


def test_a_roll_back_that_crashes_is_tried_again_after_the_switch_is_over() -> None:
    fleet = returning()
    fleet.perform("prepare", "s2r")
    fleet.perform("spawn", "s2r")
    fleet.crash("s2r", CRASH)
    assert not result(fleet).rolled_back
    assert isinstance(fleet.fleet.state, Backoff)
    fleet.settle()
    assert isinstance(fleet.fleet.state, Ready)
    assert target_of(fleet.fleet.state) == A


def test_an_old_one_that_crashes_while_it_drains_makes_way_at_once() -> None:
    fleet = draining()
    fleet.crash("s1", CRASH)
    assert isinstance(fleet.fleet.switch, StartingNew)
    fleet.settle()
    assert result(fleet).ok


def test_an_old_one_that_is_still_loading_is_ended_first() -> None:
    fleet = WorldSimulation()
    fleet.up(A)
    fleet.perform("prepare", "s1")
    operation = fleet.switch(B, "replace")
    assert isinstance(fleet.fleet.state, Stopping)
    fleet.perform("spawn", "s1")
    fleet.perform("stop", "s1")
    fleet.become_ready(operation)
    assert result(fleet).ok
    assert result(fleet).operation.origin == A


def test_an_old_one_that_is_still_being_prepared_has_no_process_to_wait_for() -> None:
    fleet = WorldSimulation()
    fleet.up(A)
    operation = fleet.switch(B, "replace")
    assert isinstance(fleet.fleet.switch, StartingNew)
    fleet.perform("prepare", "s1")
    assert not fleet.jobs("spawn", "s1")
    fleet.become_ready(operation)
    assert set(fleet.fleet.slots) == {operation}
