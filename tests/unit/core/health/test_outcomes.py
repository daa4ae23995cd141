"""A window of outcomes: what makes an instance suspicious, and what does not."""

from __future__ import annotations

import pytest

from orchestrator.core.health.outcomes import (
    FIRST_GAP_S,
    LONGEST_GAP_S,
    SUSPICIOUS_AFTER,
    AnswerWindow,
    Outcome,
    add_outcome,
    after_question,
    outcome_of,
    outcome_of_question,
    suspicious,
)


@pytest.mark.parametrize(
    ("status", "outcome", "tokens", "generates", "expected"),
    [
        (200, "complete", 5, True, "answered"),
        (200, "complete", None, False, "answered"),  # an embedding
        (200, "complete", None, True, "neutral"),  # an error may have come in the stream
        (200, "error", 5, True, "failed"),  # the engine cut it
        (500, "error", None, True, "failed"),
        (502, "error", None, True, "failed"),
        (503, "error", None, False, "failed"),
        (501, "error", None, False, "neutral"),  # embeddings asked of a chat model
        (400, "error", None, True, "neutral"),
        (404, "error", None, True, "neutral"),
        (413, "error", None, True, "neutral"),
        (500, "client_gone", None, True, "neutral"),
        (499, "client_gone", None, True, "neutral"),
    ],
)
def test_what_a_request_says(status: int, outcome: str, tokens: int | None, generates: bool, expected: Outcome) -> None:
    assert outcome_of(status, outcome, tokens, generates=generates) == expected


def window(*outcomes: Outcome, in_log: bool = False) -> AnswerWindow:
    made = AnswerWindow()
    for outcome in outcomes:
        made = add_outcome(made, outcome, in_log=in_log)

    return made


def test_failures_in_a_row_are_suspicious_and_an_answer_between_ends_the_row() -> None:
    few: list[Outcome] = ["failed"] * (SUSPICIOUS_AFTER - 1)
    assert not suspicious(window(*few), 0.0)
    assert suspicious(window(*few, "failed"), 0.0)
    assert suspicious(window(*few, "neutral", "failed"), 0.0)
    assert not suspicious(window(*few, "answered", *few), 0.0)


def test_one_failure_is_enough_where_the_log_says_that_nothing_was_computed() -> None:
    assert suspicious(window("failed", in_log=True), 0.0)
    assert suspicious(window("neutral", in_log=True), 0.0)  # a stream that ended with an error in it
    assert not suspicious(add_outcome(window("failed", in_log=True), "answered"), 0.0)


def test_clients_who_ask_for_errors_cost_few_questions() -> None:
    made, now, questions = AnswerWindow(), 0.0, 0
    while now < 600.0:
        made = add_outcome(made, "failed")
        if suspicious(made, now):
            made, questions = after_question(made, now), questions + 1

        now += 0.5

    assert 600.0 / LONGEST_GAP_S <= questions <= 15
    assert made.gap_s == LONGEST_GAP_S
    assert add_outcome(made, "answered").gap_s == FIRST_GAP_S


@pytest.mark.parametrize(
    ("ok", "status", "cut", "detail", "expected"),
    [
        (True, None, False, "", "answered"),
        (False, 500, False, "Compute error.", "failed"),
        (False, 503, False, "Loading model", "failed"),
        (False, None, True, "POST /completion: ReadError", "failed"),
        (False, None, False, "no answer within 5 s", "neutral"),  # all slots may be busy
        (False, 400, False, "exceeds the context", "neutral"),
        (False, 501, False, "not supported", "neutral"),
        (False, 500, False, "[json.exception.type_error.316] invalid UTF-8 byte at index 2: 0xC3", "answered"),
    ],
)
def test_what_a_question_of_our_own_says(
    ok: bool, status: int | None, cut: bool, detail: str, expected: Outcome
) -> None:
    assert outcome_of_question(ok=ok, status=status, cut=cut, detail=detail) == expected
