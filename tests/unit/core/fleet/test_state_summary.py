from __future__ import annotations

from typing import get_args

import pytest

from orchestrator.core.fleet.ladder import Rung
from orchestrator.core.fleet.lifecycle_states import (
    CheckFailed,
    Event,
    Exited,
    Failure,
    Ready,
    StartRequested,
    State,
    Stopped,
    StopRequested,
    Woke,
    describe,
)
from orchestrator.core.fleet.routing import MAX_RETRY_AFTER_S, refusal_of
from orchestrator.core.fleet.state_summary import StateName, failure_of, name_of, pid_of, progress_of, start_record_of
from orchestrator.daemon.control.status import Clock, attempts_of
from tests.unit.core.fleet.lifecycle_machine import (
    BAD_MODEL,
    CRASH,
    HUNG,
    OOM,
    POLICY,
    STATES,
    TERMINATED,
    A,
    B,
    Machine,
    machine_in,
    start,
)

CLOCK = Clock(1_800_000_000.0)
NOW = 100.0


def in_state(name: str, *events: Event) -> State:
    machine = machine_in(name)
    machine.take(*events)
    return machine.state


def resting() -> State:
    """Failed because the restart budget is spent; one more try is due after the cooldown."""
    machine = Machine()
    machine.take(StartRequested(A, "s.1"))
    for number in range(1, POLICY.intensity + 1):
        machine.take(*start(f"s.{number}"), Exited(f"s.{number}", CRASH))
        if number < POLICY.intensity:
            machine.now += POLICY.max_delay_s
            machine.take(Woke())

    return machine.state


def test_every_state_has_its_name() -> None:
    names = [name_of(in_state(name)) for name in STATES]
    assert set(names) == set(get_args(StateName))
    for state, name in zip(STATES, names, strict=True):
        assert state.startswith(name) or state in ("spawning", "loaded")


@pytest.mark.parametrize("name", ["preparing", "spawning", "starting", "loaded", "ready", "backoff"])
def test_while_something_is_on_its_way_nobody_is_refused(name: str) -> None:
    assert refusal_of(in_state(name), NOW) is None


def test_an_instance_that_is_ended_because_of_a_failure_comes_back_so_clients_wait() -> None:
    assert refusal_of(in_state("ready", CheckFailed("s.1", HUNG)), NOW) is None


@pytest.mark.parametrize("name", ["draining", "stopping"])
def test_while_another_target_follows_clients_wait(name: str) -> None:
    state = in_state(name, StartRequested(B, "s.1"))
    assert refusal_of(state, NOW) is None
    assert progress_of(state) == f"switching to {B}"


@pytest.mark.parametrize("name", ["draining", "stopping"])
def test_while_it_is_being_stopped_clients_are_told_so(name: str) -> None:
    refusal = refusal_of(in_state(name), NOW)
    assert refusal is not None
    assert (refusal.code, refusal.retry_after_s) == ("stopping", None)


@pytest.mark.parametrize("state", [Stopped(), in_state("ready", StopRequested(force=True), Exited("s.1", TERMINATED))])
def test_with_nothing_running_clients_are_told_how_to_start_something(state: State) -> None:
    refusal = refusal_of(state, NOW)
    assert refusal is not None
    assert (refusal.code, refusal.retry_after_s) == ("not_running", None)
    assert "orch up" in refusal.message


def test_after_a_failure_for_good_clients_are_told_the_cause_and_not_to_retry() -> None:
    refusal = refusal_of(in_state("ready", Exited("s.1", BAD_MODEL)), NOW)
    assert refusal is not None
    assert refusal.message == f"{A} failed: {BAD_MODEL.message}"
    assert (refusal.code, refusal.retry_after_s) == ("bad_model", None)


@pytest.mark.parametrize(
    ("left_s", "told_s"), [(60.0, 60), (0.2, 1), (-5.0, 1), (12.3, 13), (10_000.0, MAX_RETRY_AFTER_S)]
)
def test_while_a_failed_one_rests_clients_are_told_when_to_try_again(left_s: float, told_s: int) -> None:
    state = resting()
    until = getattr(state, "until", None)
    assert isinstance(until, float)
    refusal = refusal_of(state, until - left_s)
    assert refusal is not None
    assert refusal.retry_after_s == told_s
    assert CRASH.evidence is not None
    assert CRASH.evidence in refusal.message


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("stopped", "stopped"),
        ("preparing", f"preparing {A}"),
        ("spawning", f"loading {A}"),
        ("starting", f"loading {A} (40 % read)"),
        ("loaded", f"checking that {A} answers"),
        ("ready", f"ready {A}"),
        ("draining", f"draining {A}"),
        ("stopping", f"stopping {A}"),
        ("backoff", f"{A} failed, it will be started again: {describe(CRASH)}"),
        ("failed", f"failed {A}"),
    ],
)
def test_those_who_wait_read_one_line(name: str, text: str) -> None:
    assert progress_of(in_state(name), "40 % read" if name == "starting" else "") == text


@pytest.mark.parametrize(
    ("name", "failure"),
    [("ready", None), ("stopping", None), ("stopping for a failure", HUNG), ("backoff", CRASH), ("failed", BAD_MODEL)],
)
def test_the_failure_is_shown_where_it_is_why_the_state_is_what_it_is(name: str, failure: Failure | None) -> None:
    assert failure_of(in_state(name)) == failure


def test_the_pid_is_shown_while_there_is_a_process_to_look_at() -> None:
    pids = {name: pid_of(in_state(name)) for name in STATES}
    assert {name for name, pid in pids.items() if pid == 42} == {"starting", "loaded", "ready", "draining"}
    assert {pid for pid in pids.values() if pid != 42} == {None}


def test_the_course_of_what_was_stopped_is_still_there() -> None:
    stopped = in_state("ready", StopRequested(force=True), Exited("s.1", TERMINATED))
    start_record = start_record_of(stopped)
    assert start_record is not None
    assert start_record.target == A
    assert start_record_of(Stopped()) is None


def test_attempts_are_told_with_wall_clock_times_and_what_came_of_them() -> None:
    ready = in_state("starting", Exited("s.1", OOM), *start("s.2"))
    assert isinstance(ready, Ready)
    first, _ = attempts_of(ready.start_record, CLOCK)
    assert first == {
        "number": 1,
        "started": "2027-01-15T08:01:40.000+00:00",
        "margin_mib": 1664,
        "steps": [],
        "outcome": "device_oom",
        "cause": "out of device memory",
        "evidence": "cudaMalloc failed",
        "next": f"try {Rung(1792)}",
    }


def test_without_a_course_there_are_no_attempts() -> None:
    assert attempts_of(None, CLOCK) == []


def test_a_failure_is_described_with_its_evidence_where_there_is_some() -> None:
    assert describe(OOM) == "out of device memory [cudaMalloc failed]"
    assert describe(BAD_MODEL) == "the file is no GGUF"
