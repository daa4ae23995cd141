"""Which answers may be compared with those of another day, and what is kept of them."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import pytest

from orchestrator.core.course.answers import ComparableAnswer, answer_of, interval_of_median, kind_of, mark_of
from orchestrator.core.health.slowdown import DeviceLook, StepSample
from tests.unit.core.course.histories import ON

STEP = StepSample(0.0, 100, 20.0, 300.0, prompt_tokens=300, prompt_ms=600.0)


def look(*throttle: str) -> DeviceLook:
    return DeviceLook(0, "RTX 3060", 6000, 12288, throttle=throttle)


@pytest.mark.parametrize(
    "disturbed",
    [{"streams": 1.5}, {"other_cpu": 0.5}, {"steps": 3}, {"depth": 9000.0}, {"looks": (look("hw_thermal"),)}],
    ids=str,
)
def test_what_is_not_comparable_is_left_out(disturbed: dict[str, Any]) -> None:
    assert kind_of(replace(STEP, **disturbed)) is None


def test_a_power_limit_is_how_a_card_always_runs() -> None:
    assert kind_of(replace(STEP, looks=(look("power_cap"),))) == "answers"


def test_steps_with_drafts_are_compared_with_steps_of_as_many_tokens() -> None:
    assert kind_of(replace(STEP, width=3.2)) == kind_of(replace(STEP, width=2.8)) == "answers, 3 tokens a step"


def test_tokens_are_what_steps_yield_and_short_prompts_tell_no_rate() -> None:
    assert answer_of(replace(STEP, tokens_per_step=2.5)) == ComparableAnswer(125.0, 20.0, 500.0)
    assert answer_of(replace(STEP, prompt_tokens=20)).prompt_tok_s is None


def test_a_mark_is_the_median_of_eight_answers_at_least() -> None:
    answers = [ComparableAnswer(50.0 + n, 20.0, 400.0 if n else None) for n in range(9)]
    assert mark_of(answers[:7], 1.0, "p", "upstream", "answers", ON) is None
    found = mark_of(answers, 1.0, "p", "upstream", "answers", ON)
    assert found is not None
    assert (found.answers, found.decode_tok_s, found.low_tok_s, found.high_tok_s) == (9, 54.0, 50.0, 58.0)
    assert (found.step_ms, found.prompt_tok_s, found.circumstances) == (20.0, 400.0, ON)


def test_the_interval_holds_the_median_of_its_distribution_in_95_of_100_at_least() -> None:
    chance = random.Random(1)
    held = 0
    for _ in range(1000):
        low, high = interval_of_median([chance.expovariate(1.0) for _ in range(32)])
        held += low <= 0.6931 <= high

    assert 950 <= held <= 995
