"""What a profile is tuned for, and the prompts of that shape."""

from __future__ import annotations

from dataclasses import replace

import pytest

from orchestrator.core.measure.request_stats import RequestRecord
from orchestrator.core.tune.use import LEAST_MEASURED, LEAST_REQUESTS, USES, sized, turns_of, use_of


def request(
    prompt: int | None, answer: int | None, outcome: str = "complete", cached: int | None = None
) -> RequestRecord:
    return RequestRecord(
        0.0, "p", "e", "b", "/v1/chat/completions", outcome, 200, 0.0, 1.0, prompt_tokens=prompt, output_tokens=answer,
        cached_tokens=cached,
    )  # fmt: skip


def test_a_use_has_its_usual_shape_until_there_are_enough_requests() -> None:
    few = [request(700, 90)] * (LEAST_REQUESTS - 1)
    assert use_of("chat", few, 32768) == USES["chat"]
    enough = use_of("chat", [*few, request(500, 70)], 32768)
    assert (enough.new_tokens, enough.answer_tokens) == (700, 90)
    assert enough.source == f"the medians of {LEAST_REQUESTS} requests"


def test_what_was_in_the_cache_is_taken_where_enough_requests_tell_it() -> None:
    silent, told = [request(4000, 90)] * 40, [request(600, 80, cached=9000)] * LEAST_REQUESTS
    found = use_of("chat", [*silent, *told], 32768)
    assert (found.shared_tokens, found.new_tokens, found.answer_tokens) == (9000, 600, 80)
    few = use_of("chat", [*silent, *told[1:]], 32768)
    assert (few.shared_tokens, few.new_tokens) == (USES["chat"].shared_tokens, 4000)


def test_requests_without_figures_count_for_nothing() -> None:
    poor = [request(None, 9), request(9, None), request(700, 90, "client_gone"), request(700, 1)] * LEAST_REQUESTS
    assert use_of("agent", poor, 32768) == USES["agent"]


@pytest.mark.parametrize("name", USES)
@pytest.mark.parametrize("context", [512, 2048, 8192])
def test_a_turn_fits_into_the_context(name: str, context: int) -> None:
    use = use_of(name, [], context)
    assert use.shared_tokens + use.new_tokens + use.answer_tokens < context


@pytest.mark.parametrize("name", USES)
def test_what_confirms_was_not_asked_in_the_search(name: str) -> None:
    search, fresh = (turns_of(USES[name], fresh=each) for each in (False, True))
    assert len(search.prompts) == len(fresh.prompts) == 6
    assert not {each.text for each in search.prompts} & {each.text for each in fresh.prompts}
    assert search.shared != fresh.shared
    assert len({each.name for each in fresh.prompts}) == 6


def test_prompts_are_about_as_long_as_the_use_says() -> None:
    for prompt in turns_of(USES["agent"], fresh=False).prompts:
        assert 0.8 * 1500 / 2.2 < len(prompt.text.split()) < 1.2 * 1500 / 2.2


def test_a_slow_machine_measures_a_part_of_each_turn() -> None:
    fast = sized(USES["chat"], 900, 2, 5000, 100)
    assert (fast.measured_share, fast.shared_tokens) == (1.0, 1200)
    slow = sized(USES["chat"], 900, 2, 100, 10)
    assert 0.1 <= slow.measured_share < 0.3
    assert slow.measured_tokens == max(LEAST_MEASURED, round(250 * slow.measured_share))
    assert len(turns_of(slow, fresh=False).prompts[0].text) <= len(turns_of(fast, fresh=False).prompts[0].text)
    assert sized(USES["chat"], 60, 60, 1, 1).measured_share == pytest.approx(0.1)


def test_an_answer_is_never_measured_by_its_first_tokens_alone() -> None:
    assert replace(USES["chat"], answer_tokens=30, measured_share=0.1).measured_tokens == LEAST_MEASURED
