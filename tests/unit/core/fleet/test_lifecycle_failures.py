from __future__ import annotations

from dataclasses import replace

import pytest

from orchestrator.core.engine_log.signatures import SIGNATURES, FailureClass
from orchestrator.core.failure.reactions import default_action
from orchestrator.core.fleet.ladder import Rung
from orchestrator.core.fleet.lifecycle_states import (
    KEPT_ATTEMPTS,
    Backoff,
    CanaryPassed,
    CheckFailed,
    Exited,
    Failed,
    Failure,
    Loaded,
    NotStarted,
    Prepare,
    Prepared,
    Preparing,
    Spawned,
    StartRequested,
    Stopping,
    StopProcess,
    WakeAt,
    Woke,
)
from orchestrator.core.fleet.restart import CrashRecord
from tests.unit.core.fleet.lifecycle_machine import (
    CRASH,
    FIRST,
    HUNG,
    OOM,
    POLICY,
    RECOVERY,
    TERMINATED,
    A,
    Machine,
    machine_in,
    spawn,
    start,
)

PERMANENT: tuple[FailureClass, ...] = (
    "bad_flag", "bad_model", "missing_file", "missing_library", "illegal_instruction",
)  # fmt: skip
"""The same start would meet these again."""


@pytest.mark.parametrize("name", ["spawning", "starting", "loaded", "ready"])
def test_a_crash_is_answered_with_a_wait_then_with_a_start(name: str) -> None:
    machine = machine_in(name)
    state = machine.take(Exited("s.1", CRASH))
    assert isinstance(state, Backoff)
    assert state.until == machine.now + 1.0
    assert machine.asked() == (WakeAt(state.until),)
    attempt = state.start_record.attempts[-1]
    assert (attempt.outcome, attempt.failure, attempt.next) == ("engine_bug", CRASH, "start again in 1 s")
    machine.now = state.until
    assert machine.take(Woke()) == Preparing(state.start_record, "s.2")
    assert machine.asked() == (Prepare("s.2", A, FIRST),)


def test_an_early_timer_is_set_again() -> None:
    machine = machine_in("backoff")
    before = machine.state
    assert machine.take(Woke()) == before
    assert isinstance(before, Backoff)
    assert machine.asked() == (WakeAt(before.until),)


def test_nothing_wakes_what_only_a_person_can_change() -> None:
    machine = machine_in("failed")
    before = machine.state
    machine.now += 1e9
    assert machine.take(Woke()) == before
    assert machine.asked() == ()


def test_a_timer_that_outlived_its_wait_changes_nothing() -> None:
    machine = machine_in("backoff")
    machine.take(StartRequested(A, "x.1"))
    before = machine.state
    machine.now += 100
    assert machine.take(Woke()) == before
    assert machine.asked() == ()


def test_attempts_are_numbered_through_and_the_older_ones_dropped() -> None:
    machine = machine_in("ready")
    for number in range(1, 31):
        machine.now += POLICY.stable_s
        machine.take(Exited(f"s.{number}", CRASH))
        machine.now += 2
        machine.take(Woke(), *start(f"s.{number + 1}"))

    assert [attempt.number for attempt in machine.start_record.attempts] == list(range(31 - KEPT_ATTEMPTS + 1, 32))


def crash_until_rest(machine: Machine) -> Failed:
    for number in range(1, POLICY.intensity + 1):
        state = machine.take(*start(f"s.{number}"), Exited(f"s.{number}", CRASH))
        if isinstance(state, Failed):
            return state

        assert isinstance(state, Backoff)
        machine.now = state.until
        machine.take(Woke())

    raise AssertionError(machine.state)


def test_the_spent_budget_rests_then_tries_once_then_rests_longer() -> None:
    machine = machine_in("preparing")
    state = crash_until_rest(machine)
    assert state.until == machine.now + POLICY.cooldown_s
    assert machine.asked() == (WakeAt(state.until),)
    machine.now = state.until
    assert isinstance(machine.take(Woke()), Preparing)
    state_again = machine.take(*start("s.6"), Exited("s.6", CRASH))
    assert isinstance(state_again, Failed)
    assert state_again.until == machine.now + 2 * POLICY.cooldown_s


def test_surviving_the_one_try_forgets_the_crashes() -> None:
    machine = machine_in("preparing")
    machine.now = crash_until_rest(machine).until or 0.0
    machine.take(Woke(), *start("s.6"))
    machine.now += POLICY.stable_s
    state = machine.take(Exited("s.6", CRASH))
    assert isinstance(state, Backoff)
    assert state.until == machine.now + POLICY.first_delay_s


def test_a_start_by_a_person_ends_the_rest_and_resets_the_budget() -> None:
    machine = machine_in("preparing")
    crash_until_rest(machine)
    machine.take(StartRequested(A, "x.1"))
    assert machine.start_record.crashes == CrashRecord()
    assert isinstance(machine.take(*start("s.6"), Exited("s.6", CRASH)), Backoff)


@pytest.mark.parametrize("failure_class", PERMANENT)
@pytest.mark.parametrize("name", ["preparing", "spawning", "starting"])
def test_what_the_same_start_would_meet_again_is_not_tried_again(name: str, failure_class: FailureClass) -> None:
    machine = machine_in(name)
    state = machine.take(NotStarted("s.1", Failure(failure_class, "as it says", action=default_action(failure_class))))
    assert isinstance(state, Failed)
    assert state.until is None
    assert machine.asked() == ()


def test_no_line_of_a_log_gives_such_a_failure_another_action() -> None:
    rows = [row for row in SIGNATURES if row.failure_class in PERMANENT]
    assert {row.action or default_action(row.failure_class) for row in rows} == {"give_up"}


def test_a_failed_preparation_counts_as_an_attempt() -> None:
    machine = machine_in("preparing")
    machine.take(NotStarted("s.1", CRASH))
    (attempt,) = machine.start_record.attempts
    assert (attempt.number, attempt.outcome) == (1, "engine_bug")


def test_a_failed_check_ends_the_process_before_anything_follows() -> None:
    machine = machine_in("loaded")
    state = machine.take(CheckFailed("s.1", HUNG))
    assert isinstance(state, Stopping)
    assert machine.asked() == (StopProcess("s.1"),)
    state = machine.take(Exited("s.1", TERMINATED))
    assert isinstance(state, Backoff)
    assert state.failure == HUNG


def test_a_check_that_fails_after_a_healthy_time_has_the_short_delay() -> None:
    machine = machine_in("preparing")
    machine.now = crash_until_rest(machine).until or 0.0
    machine.take(Woke(), *start("s.6"))
    machine.now += POLICY.stable_s
    machine.take(CheckFailed("s.6", HUNG))
    machine.now += 15
    state = machine.take(Exited("s.6", TERMINATED))
    assert isinstance(state, Backoff)
    assert state.until == machine.now + POLICY.first_delay_s


@pytest.mark.parametrize("name", ["starting", "loaded", "ready"])
def test_out_of_device_memory_climbs_at_once_and_spends_no_budget(name: str) -> None:
    machine = machine_in(name)
    state = machine.take(Exited("s.1", OOM))
    assert isinstance(state, Preparing)
    assert machine.asked() == (Prepare("s.2", A, Rung(1792)),)
    assert state.start_record.crashes == CrashRecord()
    assert state.start_record.attempts[-1].next == "try margin 1792 MiB"


def test_the_allocation_that_failed_says_how_much_was_missing() -> None:
    machine = machine_in("starting")
    machine.take(Exited("s.1", replace(OOM, requested_mib=900.5)))
    assert machine.asked() == (Prepare("s.2", A, Rung(2565)),)


def test_where_a_margin_cannot_help_the_next_step_is_taken() -> None:
    machine = machine_in("starting")
    machine.take(Exited("s.1", replace(OOM, action="retry_other")))
    assert machine.asked() == (Prepare("s.2", A, Rung(1664, ("kv:q4_0",))),)


def test_the_top_of_the_ladder_fails_with_every_attempt_to_be_seen() -> None:
    machine = machine_in("preparing")
    rung: Rung | None = FIRST
    number = 0
    while isinstance(machine.state, Preparing):
        number += 1
        machine.take(*spawn(f"s.{number}", rung or FIRST), Exited(f"s.{number}", OOM))
        rung = machine.start_record.rung

    assert isinstance(machine.state, Failed)
    assert machine.state.until is None
    assert [str(attempt.rung) for attempt in machine.start_record.attempts] == [
        "margin 1664 MiB",
        "margin 1792 MiB",
        "margin 2048 MiB",
        "margin 2048 MiB, kv:q4_0",
    ]
    assert {attempt.outcome for attempt in machine.start_record.attempts} == {"device_oom"}


def test_a_recovery_has_no_more_starts_than_allowed() -> None:
    machine = machine_in("preparing")
    recovery = replace(RECOVERY, max_attempts=2)
    machine.take(Prepared("s.1", FIRST, recovery), Spawned("s.1", 1), Exited("s.1", OOM))
    machine.take(Prepared("s.2", Rung(1792), recovery), Spawned("s.2", 2), Exited("s.2", OOM))
    assert isinstance(machine.state, Failed)
    assert len(machine.start_record.attempts) == 2


def test_a_long_healthy_time_begins_a_new_recovery_on_the_rung_reached() -> None:
    machine = machine_in("preparing")
    recovery = replace(RECOVERY, max_attempts=2)
    machine.take(Prepared("s.1", FIRST, recovery), Spawned("s.1", 1), Exited("s.1", OOM))
    machine.take(Prepared("s.2", Rung(1792), recovery), Spawned("s.2", 2), Loaded("s.2"), CanaryPassed("s.2"))
    machine.now += POLICY.stable_s
    machine.take(Exited("s.2", OOM))
    assert machine.asked() == (Prepare("s.3", A, Rung(2048)),)


def test_out_of_memory_that_nothing_can_help_is_given_up() -> None:
    machine = machine_in("starting")
    state = machine.take(Exited("s.1", replace(OOM, action="give_up")))
    assert isinstance(state, Failed)
    assert state.until is None


def test_memory_that_ran_out_under_the_canary_climbs_although_the_canary_was_noticed_first() -> None:
    machine = machine_in("loaded")
    machine.take(CheckFailed("s.1", HUNG), Exited("s.1", OOM))
    assert machine.asked() == (Prepare("s.2", A, Rung(1792)),)


def test_the_exit_of_a_stopped_process_does_not_hide_a_check_that_is_final() -> None:
    machine = machine_in("loaded")
    no_drafts = Failure("engine_bug", "no drafts were made", action="give_up")
    machine.take(CheckFailed("s.1", no_drafts))
    state = machine.take(Exited("s.1", CRASH))
    assert isinstance(state, Failed)
    assert state.failure == no_drafts


def test_a_crash_between_two_climbs_keeps_the_rung() -> None:
    machine = machine_in("starting")
    machine.take(Exited("s.1", OOM), *spawn("s.2", Rung(1792)), Exited("s.2", CRASH))
    machine.now += 1
    machine.take(Woke())
    assert machine.asked() == (Prepare("s.3", A, Rung(1792)),)


def test_memory_that_runs_out_after_a_long_healthy_time_forgets_earlier_crashes() -> None:
    machine = machine_in("backoff")
    machine.now += 1
    machine.take(Woke(), *start("s.2"))
    machine.now += POLICY.stable_s
    machine.take(Exited("s.2", OOM))
    assert machine.asked() == (Prepare("s.3", A, Rung(1792)),)
    assert machine.start_record.crashes == CrashRecord()


def test_memory_that_a_dead_engine_still_held_is_waited_for_once_on_the_same_rung() -> None:
    machine = machine_in("starting")
    kept = replace(OOM, unreleased_mib=7000)
    state = machine.take(Exited("s.1", kept))
    assert isinstance(state, Preparing)
    assert machine.asked() == (Prepare("s.2", A, FIRST, POLICY.settle_s),)
    assert state.start_record.climbed == 0
    told = "try the same again in 10 s: 7000 MiB were not given back yet by what ran before"
    assert state.start_record.attempts[-1].next == told
    machine.take(*spawn("s.2"), Exited("s.2", kept))
    assert machine.asked() == (Prepare("s.3", A, Rung(1792)),)
    machine.take(*spawn("s.3", Rung(1792)), Exited("s.3", kept))
    assert machine.asked() == (Prepare("s.4", A, Rung(1792), POLICY.settle_s),)


def test_memory_that_was_still_held_is_no_reason_to_wait_once_the_engine_was_ready() -> None:
    machine = machine_in("ready")
    machine.now += 1
    machine.take(Exited("s.1", replace(OOM, unreleased_mib=7000)))
    assert machine.asked() == (Prepare("s.2", A, Rung(1792)),)
