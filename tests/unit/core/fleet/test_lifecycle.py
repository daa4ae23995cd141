from __future__ import annotations

import pytest

from orchestrator.core.fleet.lifecycle_states import (
    AwaitDrain,
    CanaryPassed,
    CheckFailed,
    Drained,
    Draining,
    Event,
    Exited,
    Loaded,
    NotStarted,
    Prepare,
    Prepared,
    Preparing,
    Ready,
    ResumeRequested,
    SendCanary,
    Spawn,
    Spawned,
    Starting,
    StartRecord,
    StartRequested,
    Stopped,
    Stopping,
    StopProcess,
    StopRequested,
    Survived,
    WakeAt,
    WatchLoading,
    Woke,
)
from tests.unit.core.fleet.lifecycle_machine import (
    CRASH,
    FIRST,
    HUNG,
    OOM,
    POLICY,
    RECOVERY,
    STATES,
    TERMINATED,
    A,
    B,
    Machine,
    machine_in,
)


def test_a_start_is_prepared_under_the_given_instance() -> None:
    machine = Machine()
    assert machine.take(StartRequested(A, "s.1")) == Preparing(StartRecord(A), "s.1")
    assert machine.asked() == (Prepare("s.1", A, None),)


def test_what_was_prepared_is_spawned_as_the_first_attempt() -> None:
    machine = machine_in("preparing")
    state = machine.take(Prepared("s.1", FIRST, RECOVERY))
    assert isinstance(state, Starting)
    assert machine.asked() == (Spawn("s.1"),)
    assert (state.start_record.rung, state.start_record.recovery) == (FIRST, RECOVERY)
    (attempt,) = state.start_record.attempts
    assert (attempt.number, attempt.started, attempt.rung, attempt.outcome) == (1, machine.now, FIRST, "running")


def test_a_spawned_process_is_watched_while_it_loads() -> None:
    machine = machine_in("spawning")
    state = machine.take(Spawned("s.1", 42))
    assert isinstance(state, Starting)
    assert state.pid == 42
    assert machine.asked() == (WatchLoading("s.1"),)


def test_a_loaded_engine_is_sent_a_canary_and_is_not_ready_yet() -> None:
    machine = machine_in("starting")
    assert isinstance(machine.take(Loaded("s.1")), Starting)
    assert machine.asked() == (SendCanary("s.1"),)


def test_the_canary_makes_it_ready() -> None:
    machine = machine_in("loaded")
    machine.now = 130.0
    state = machine.take(CanaryPassed("s.1"))
    assert isinstance(state, Ready)
    assert (state.pid, state.since) == (42, 130.0)
    assert state.start_record.attempts[-1].outcome == "ready"
    assert machine.asked() == (WakeAt(130.0 + POLICY.healthy_s),)


def test_what_was_learned_is_kept_after_a_healthy_time_and_not_before() -> None:
    machine = machine_in("ready")
    due = machine.now + POLICY.healthy_s
    machine.now = due - 1
    before = machine.state
    assert machine.take(Woke()) == before
    assert machine.asked() == (WakeAt(due),)
    machine.now = due
    assert machine.take(Woke()) == before
    assert machine.asked() == (Survived("s.1", FIRST),)


@pytest.mark.parametrize("failure", [CheckFailed("s.1", HUNG), Exited("s.1", CRASH), Exited("s.1", OOM)])
@pytest.mark.parametrize("name", ["ready", "draining"])
def test_what_fails_soon_after_it_became_ready_teaches_nothing(name: str, failure: Event) -> None:
    machine = machine_in(name)
    kept = False
    for event in (failure, StopRequested(force=True), Exited("s.1", TERMINATED)):
        machine.take(event)
        kept = kept or any(isinstance(effect, Survived) for effect in machine.asked())

    assert not kept


def test_a_healthy_time_that_passes_during_a_cancelled_drain_counts() -> None:
    machine = machine_in("draining")
    machine.now += POLICY.healthy_s
    machine.take(Woke())
    assert machine.asked() == ()
    machine.take(ResumeRequested())
    assert machine.asked() == (WakeAt(machine.now),)
    machine.take(Woke())
    assert machine.asked() == (Survived("s.1", FIRST),)


@pytest.mark.parametrize("name", ["spawning", "starting"])
def test_a_canary_without_a_load_is_not_believed(name: str) -> None:
    machine = machine_in(name)
    before = machine.state
    assert machine.take(CanaryPassed("s.1")) == before


def test_loaded_twice_sends_one_canary() -> None:
    machine = machine_in("loaded")
    machine.take(Loaded("s.1"))
    assert machine.asked() == ()


def test_a_stop_drains_first_and_ends_the_process_when_drained() -> None:
    machine = machine_in("ready")
    assert isinstance(machine.take(StopRequested()), Draining)
    assert machine.asked() == (AwaitDrain("s.1"),)
    assert isinstance(machine.take(Drained("s.1")), Stopping)
    assert machine.asked() == (Survived("s.1", FIRST), StopProcess("s.1"))
    state = machine.take(Exited("s.1", TERMINATED))
    assert isinstance(state, Stopped)
    assert state.last is not None
    assert state.last.attempts[-1].outcome == "stopped"
    assert machine.asked() == ()


@pytest.mark.parametrize("name", ["ready", "draining"])
def test_a_forced_stop_waits_for_no_request(name: str) -> None:
    machine = machine_in(name)
    assert isinstance(machine.take(StopRequested(force=True)), Stopping)
    assert machine.asked() == (Survived("s.1", FIRST), StopProcess("s.1"))


@pytest.mark.parametrize("name", ["preparing", "backoff", "failed"])
def test_where_no_process_is_a_stop_is_done_at_once(name: str) -> None:
    machine = machine_in(name)
    assert isinstance(machine.take(StopRequested()), Stopped)
    assert machine.asked() == ()


@pytest.mark.parametrize("name", ["spawning", "starting", "loaded"])
def test_a_stop_while_starting_ends_the_process(name: str) -> None:
    machine = machine_in(name)
    assert isinstance(machine.take(StopRequested()), Stopping)
    assert machine.asked() == (StopProcess("s.1"),)


def test_a_process_that_appears_after_the_stop_is_stopped_again() -> None:
    machine = machine_in("spawning")
    machine.take(StopRequested())
    assert isinstance(machine.take(Spawned("s.1", 42)), Stopping)
    assert machine.asked() == (StopProcess("s.1"),)


def test_a_stop_before_the_spawn_that_never_happened_is_stopped() -> None:
    machine = machine_in("spawning")
    machine.take(StopRequested())
    assert isinstance(machine.take(NotStarted("s.1", CRASH)), Stopped)


def test_a_stop_during_the_end_of_a_failed_process_means_no_restart_and_keeps_the_cause() -> None:
    machine = machine_in("stopping for a failure")
    machine.take(StopRequested())
    state = machine.take(Exited("s.1", TERMINATED))
    assert isinstance(state, Stopped)
    assert state.last is not None
    assert (state.last.attempts[-1].outcome, state.last.attempts[-1].failure) == ("engine_bug", HUNG)


def test_a_stop_takes_back_the_start_that_was_to_follow() -> None:
    machine = machine_in("draining")
    machine.take(StartRequested(B, "x.1"), StopRequested(), Drained("s.1"))
    assert isinstance(machine.take(Exited("s.1", TERMINATED)), Stopped)


def test_a_cancelled_drain_serves_on_as_if_nothing_had_been() -> None:
    machine = machine_in("ready")
    before = machine.state
    machine.now += 50
    assert machine.take(StopRequested(), ResumeRequested()) == before


@pytest.mark.parametrize("name", [name for name in STATES if name != "draining"])
def test_nothing_but_a_drain_can_be_cancelled(name: str) -> None:
    machine = machine_in(name)
    before = machine.state
    assert machine.take(ResumeRequested()) == before
    assert machine.asked() == ()


def test_the_drain_of_before_a_resume_does_not_stop_what_serves_again() -> None:
    machine = machine_in("draining")
    machine.take(ResumeRequested())
    assert isinstance(machine.take(Drained("s.1")), Ready)


def test_an_engine_that_fails_its_check_while_draining_is_not_waited_for() -> None:
    machine = machine_in("draining")
    assert isinstance(machine.take(CheckFailed("s.1", HUNG)), Stopping)
    assert machine.asked() == (StopProcess("s.1"),)
    state = machine.take(Exited("s.1", TERMINATED))
    assert isinstance(state, Stopped)
    assert state.last is not None
    assert state.last.attempts[-1].failure == HUNG


def test_a_crash_while_draining_is_shown_and_not_restarted() -> None:
    machine = machine_in("draining")
    state = machine.take(Exited("s.1", CRASH))
    assert isinstance(state, Stopped)
    assert state.last is not None
    assert state.last.attempts[-1].failure == CRASH


@pytest.mark.parametrize("name", ["preparing", "spawning", "starting", "loaded", "ready"])
def test_asking_again_for_what_is_on_its_way_changes_nothing(name: str) -> None:
    machine = machine_in(name)
    before = machine.state
    assert machine.take(StartRequested(A, "x.1")) == before
    assert machine.asked() == ()


def test_another_target_replaces_one_that_is_being_prepared() -> None:
    machine = machine_in("preparing")
    assert machine.take(StartRequested(B, "s.1")) == Preparing(StartRecord(B), "s.2")
    assert machine.asked() == (Prepare("s.2", B, None),)


def test_the_late_answer_of_a_replaced_preparation_is_ignored() -> None:
    machine = machine_in("preparing")
    machine.take(StartRequested(B, "x.1"))
    before = machine.state
    assert machine.take(Prepared("s.1", FIRST, RECOVERY)) == before
    assert machine.asked() == ()


@pytest.mark.parametrize("name", ["spawning", "starting", "loaded"])
def test_another_target_waits_for_the_end_of_one_that_starts(name: str) -> None:
    machine = machine_in(name)
    machine.take(StartRequested(B, "x.1"))
    assert machine.asked() == (StopProcess("s.1"),)
    assert machine.take(Exited("s.1", TERMINATED)) == Preparing(StartRecord(B), "s.2")


def test_another_target_waits_until_the_ready_one_is_drained_and_gone() -> None:
    machine = machine_in("ready")
    machine.take(StartRequested(B, "x.1"))
    assert machine.asked() == (AwaitDrain("s.1"),)
    machine.take(Drained("s.1"))
    assert machine.take(Exited("s.1", TERMINATED)) == Preparing(StartRecord(B), "s.2")
    assert machine.asked() == (Prepare("s.2", B, None),)


@pytest.mark.parametrize("name", ["draining", "stopping", "stopping for a failure"])
def test_a_start_during_the_end_of_a_process_follows_it(name: str) -> None:
    machine = machine_in(name)
    machine.take(StartRequested(B, "x.1"), Drained("s.1"))
    assert machine.take(Exited("s.1", TERMINATED)) == Preparing(StartRecord(B), "s.2")


@pytest.mark.parametrize("name", ["draining", "stopping", "stopping for a failure"])
def test_the_last_start_asked_for_is_the_one_that_follows(name: str) -> None:
    machine = machine_in(name)
    machine.take(StartRequested(B, "x.1"), StartRequested(A, "y.1"), Drained("s.1"))
    assert machine.take(Exited("s.1", TERMINATED)) == Preparing(StartRecord(A), "s.2")


@pytest.mark.parametrize("name", ["backoff", "failed"])
def test_a_person_is_quicker_than_any_wait_and_gets_a_fresh_budget(name: str) -> None:
    machine = machine_in(name)
    assert machine.take(StartRequested(A, "x.1")) == Preparing(StartRecord(A), "s.2")


OF_ANOTHER: tuple[Event, ...] = (
    Prepared("s.0", FIRST, RECOVERY),
    Spawned("s.0", 7),
    Loaded("s.0"),
    CanaryPassed("s.0"),
    CheckFailed("s.0", HUNG),
    NotStarted("s.0", CRASH),
    Drained("s.0"),
    Exited("s.0", OOM),
)


@pytest.mark.parametrize("event", OF_ANOTHER, ids=lambda event: type(event).__name__)
@pytest.mark.parametrize("name", STATES)
def test_events_of_another_instance_change_nothing(name: str, event: Event) -> None:
    machine = machine_in(name)
    before = machine.state
    assert machine.take(event) == before
    assert machine.asked() == ()


def test_an_instance_whose_name_has_dots_is_followed_by_the_next_number() -> None:
    machine = Machine()
    machine.take(StartRequested(A, "qwen3.6-35b"), NotStarted("qwen3.6-35b", OOM))
    machine.take(StartRequested(A, "x.1"))
    assert machine.asked() == (Prepare("qwen3.6-35b.2", A, None),)
