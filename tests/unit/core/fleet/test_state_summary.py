from __future__ import annotations

from typing import get_args

import pytest

from orchestrator.core.fleet.lifecycle_states import (
    Exited,
    Failure,
    StartRequested,
    Stopped,
    StopRequested,
    describe,
)
from orchestrator.core.fleet.routing import refusal_of
from orchestrator.core.fleet.state_summary import StateName, failure_of, name_of, pid_of, progress_of, start_record_of
from tests.unit.core.fleet.lifecycle_machine import (
    BAD_MODEL,
    CRASH,
    HUNG,
    OOM,
    STATES,
    TERMINATED,
    A,
    B,
    in_state,
)

NOW = 100.0


def test_every_state_has_its_name() -> None:
    names = [name_of(in_state(name)) for name in STATES]
    assert set(names) == set(get_args(StateName))
    for state, name in zip(STATES, names, strict=True):
        assert state.startswith(name) or state in ("spawning", "loaded")


@pytest.mark.parametrize("name", ["draining", "stopping"])
def test_while_another_target_follows_clients_wait(name: str) -> None:
    state = in_state(name, StartRequested(B, "s.1"))
    assert refusal_of(state, NOW) is None
    assert progress_of(state) == f"switching to {B}"


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


def test_the_start_record_of_what_was_stopped_is_still_there() -> None:
    stopped = in_state("ready", StopRequested(force=True), Exited("s.1", TERMINATED))
    start_record = start_record_of(stopped)
    assert start_record is not None
    assert start_record.target == A
    assert start_record_of(Stopped()) is None


def test_a_failure_is_described_with_its_evidence_where_there_is_some() -> None:
    assert describe(OOM) == "out of device memory [cudaMalloc failed]"
    assert describe(BAD_MODEL) == "the file is no GGUF"
