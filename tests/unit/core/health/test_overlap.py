from __future__ import annotations

import pytest

from orchestrator.core.health.overlap import KEPT, AnsweredRequest, OverlapTracker, add_request, streams_beside


def request(begin: float, end: float, *, prompt_s: float = 0.0, queued_s: float = 0.0) -> AnsweredRequest:
    """Tokens from `begin` to `end`, a prompt before them."""
    return AnsweredRequest(begin - prompt_s - queued_s, end, prompt_s * 1000, (end - begin) * 1000, steps=10)


def test_an_answer_alone_is_alone() -> None:
    overlap, known = add_request(OverlapTracker(), request(0, 10), 0)
    assert known == ((request(0, 10), 1.0),)
    assert overlap.waiting == ()


def test_an_answer_waits_until_those_beside_it_have_ended_too() -> None:
    first, second = request(0, 10), request(0, 20)
    overlap, known = add_request(OverlapTracker(), first, 1)
    assert known == ()
    _, known = add_request(overlap, second, 0)
    assert dict(known)[first] == pytest.approx(2.0)
    assert dict(known)[second] == pytest.approx(4 / 3)  # half of it with two, half alone: 1 / (0.5 / 2 + 0.5)


def test_under_a_load_that_never_ends_answers_are_known_as_soon_as_those_beside_them_end() -> None:
    overlap = OverlapTracker()
    known: list[tuple[AnsweredRequest, float]] = []
    for number in range(100):
        overlap, more = add_request(overlap, request(number, number + 2.0), 1)
        known += more

    assert len(known) > 90
    assert all(streams == pytest.approx(2.0) for _, streams in known[1:90])
    assert len(overlap.waiting) < KEPT


def test_those_that_came_after_an_answer_s_end_are_not_waited_for_in_place_of_those_beside_it() -> None:
    overlap, _ = add_request(OverlapTracker(), request(0, 10), 1)
    overlap, known = add_request(overlap, request(11, 12), 1)
    assert known == ()
    _, known = add_request(overlap, request(0, 20), 0)
    assert len(known) == 3


def test_an_answer_beside_which_a_prompt_was_read_is_not_judged() -> None:
    reader = request(8, 12, prompt_s=5)
    assert streams_beside(request(0, 10), [reader]) is None


def test_an_end_that_is_seen_a_moment_late_disturbs_nobody() -> None:
    queued = request(10.1, 20, prompt_s=0.4, queued_s=9)
    assert streams_beside(request(0, 10), [queued]) == pytest.approx(1.0)


def test_a_request_that_waits_in_the_engine_s_own_queue_shares_nothing() -> None:
    first, second = request(0, 10), request(10.5, 20, prompt_s=0.5, queued_s=10)
    overlap, _ = add_request(OverlapTracker(), first, 1)
    assert dict(add_request(overlap, second, 0)[1]) == {first: 1.0, second: 1.0}


def test_nothing_is_concluded_beside_a_request_whose_times_are_not_known() -> None:
    embedding = AnsweredRequest(2, 8)
    assert streams_beside(request(0, 10), [embedding]) is None
    assert add_request(OverlapTracker(), embedding, 0)[1] == ()


def test_what_never_ends_keeps_no_more_than_so_many_waiting() -> None:
    overlap = OverlapTracker()
    for number in range(1000):
        overlap, _ = add_request(overlap, request(number, number + 0.5), 1)

    assert len(overlap.waiting) <= KEPT and len(overlap.ended) <= KEPT
