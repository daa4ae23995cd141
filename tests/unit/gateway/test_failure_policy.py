"""Each combination of a failure, what the client had, and what came before: the whole table, by rules of its own."""

from __future__ import annotations

from itertools import product

import pytest

from orchestrator.gateway.errors import CODES
from orchestrator.gateway.failure_policy import Consequence, FailureKind, Step, Written, after_failure

NO_ANSWER_YET = (Written.NOTHING, Written.COMMENTS)
ALL = list(product(FailureKind, Written, range(3), (True, False)))


def after(case: tuple[FailureKind, Written, int, bool]) -> Consequence:
    kind, written, replays, body_kept = case
    return after_failure(kind, written, replays, body_kept=body_kept)


@pytest.mark.parametrize("case", ALL, ids=str)
def test_what_was_written_decides(case: tuple[FailureKind, Written, int, bool]) -> None:
    kind, written, replays, body_kept = case
    found = after(case)
    if kind is FailureKind.CLIENT_LEFT:
        assert found == Consequence(Step.NOTHING)
        return

    may_repeat = kind is FailureKind.UNSENT or (kind is FailureKind.ENGINE_DIED and not replays and body_kept)
    if may_repeat and written in NO_ANSWER_YET:
        assert found == Consequence(Step.SEND_AGAIN, replay=kind is FailureKind.ENGINE_DIED)
        return

    assert not found.replay
    assert (
        found.step
        is {
            Written.NOTHING: Step.ANSWER_ERROR,
            Written.COMMENTS: Step.END_STREAM,
            Written.EVENTS: Step.END_STREAM,
            Written.BODY: Step.CUT,
        }[written]
    )


@pytest.mark.parametrize("case", ALL, ids=str)
def test_each_error_that_is_told_has_a_code(case: tuple[FailureKind, Written, int, bool]) -> None:
    kind, written, *_ = case
    found = after(case)
    if found.step in (Step.NOTHING, Step.SEND_AGAIN) or kind is FailureKind.REFUSED:
        assert found.code is None
        return

    expected = {
        FailureKind.CANCELLED: "cancelled",
        FailureKind.SHUTDOWN: "shutting_down",
        FailureKind.MALFORMED: "engine_protocol",
        FailureKind.UNSENT: "engine_unreachable",
        FailureKind.UNREACHABLE: "engine_unreachable",
        FailureKind.ENGINE_DIED: "not_replayed" if written in NO_ANSWER_YET else "engine_died",
        FailureKind.CONNECTION_LOST: "engine_died",
    }[kind]
    assert found.code == expected
    assert expected in CODES


def test_a_request_is_sent_again_for_one_death_and_no_more() -> None:
    kind = FailureKind.ENGINE_DIED
    steps = [after_failure(kind, Written.NOTHING, replays, body_kept=True).step for replays in range(4)]
    assert steps == [Step.SEND_AGAIN, Step.ANSWER_ERROR, Step.ANSWER_ERROR, Step.ANSWER_ERROR]


def test_nothing_is_sent_again_after_a_part_of_an_answer() -> None:
    cases = [case for case in ALL if case[1] not in NO_ANSWER_YET]
    assert Step.SEND_AGAIN not in {after(case).step for case in cases}
    assert Step.ANSWER_ERROR not in {after(case).step for case in cases}
