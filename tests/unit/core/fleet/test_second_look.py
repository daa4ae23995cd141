"""What failed for good is tried once more when its files have changed; nothing else is disturbed by that."""

from __future__ import annotations

import pytest

from orchestrator.core.fleet.lifecycle import step
from orchestrator.core.fleet.lifecycle_states import (
    Failed,
    Failure,
    FilesChanged,
    NotStarted,
    Prepare,
    Preparing,
    StartRecord,
)
from orchestrator.core.fleet.state_summary import waits_for_files
from tests.unit.core.fleet.lifecycle_machine import POLICY, STATES, A, machine_in

CLASSES = ("bad_flag", "missing_file", "bad_model", "missing_library", "illegal_instruction", "driver", "device_oom")


@pytest.mark.parametrize("failure_class", CLASSES)
def test_what_failed_for_good_is_prepared_anew_and_what_was_tried_stays(failure_class: str) -> None:
    machine = machine_in("preparing")
    machine.take(NotStarted("s.1", Failure("bad_flag", "no", action="give_up")))
    state = machine.state
    assert isinstance(state, Failed) and waits_for_files(state)
    state = Failed(state.start_record, "s.1", Failure(failure_class, "no", action="give_up"), None)
    after, effects = step(state, FilesChanged("s.1"), 5.0, POLICY)
    assert after == Preparing(StartRecord(A, attempts=state.start_record.attempts), "s.2")
    assert effects == (Prepare("s.2", A, None, 0.0),)


def test_what_waits_for_a_time_or_speaks_of_another_start_is_left_alone() -> None:
    failed = Failed(StartRecord(A), "s.1", Failure("bad_flag", "no", action="give_up"), None)
    resting = Failed(StartRecord(A), "s.1", Failure("engine_bug", "no"), 60.0)
    assert step(failed, FilesChanged("s.0"), 5.0, POLICY) == (failed, ())
    assert step(resting, FilesChanged("s.1"), 5.0, POLICY) == (resting, ())
    assert not waits_for_files(resting)


@pytest.mark.parametrize("name", STATES)
def test_no_other_state_takes_notice(name: str) -> None:
    machine = machine_in(name)
    before = machine.state
    if not waits_for_files(before):
        assert step(before, FilesChanged("s.1"), 5.0, POLICY) == (before, ())
