"""From answers to clients to a mark: of those that say how fast the engine is, and not what else was going on. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import floor, sqrt

from orchestrator.core.bench.conditions import HOT
from orchestrator.core.bench.estimator import median
from orchestrator.core.course.marks import Circumstances, SpeedMark
from orchestrator.core.health.slowdown import LEAST_PROMPT_TOKENS, StepSample, had_machine_to_itself

SHORT_TOKENS = 2048
"""Of context: behind more, a step takes longer for it, and how long depends on what clients ask."""

LEAST_ANSWERS = 8
"""That a mark is made of: fewer have no interval of 95 % for their median."""


@dataclass(frozen=True, slots=True)
class ComparableAnswer:
    """One answer that may be compared with those of another day.

    :param decode_tok_s: tokens a second; `step_ms` what a step took
    :param prompt_tok_s: None where the prompt was short
    """

    decode_tok_s: float
    step_ms: float
    prompt_tok_s: float | None


def kind_of(sample: StepSample) -> str | None:
    """Return what an answer may be compared with; None where with nothing.

    It has to have had the engine and the machine to itself, with a short context, on devices that were not hot. A step
    with drafts evaluates several tokens: it is compared with steps that evaluate as many.
    """
    hot = any(HOT & set(look.throttle) for look in sample.looks)
    if hot or sample.depth > SHORT_TOKENS or sample.step_ms <= 0 or not had_machine_to_itself(sample):
        return None

    width = round(sample.width)
    return "answers" if width <= 1 else f"answers, {width} tokens a step"


def answer_of(sample: StepSample) -> ComparableAnswer:
    prompt_ms = sample.prompt_ms or 0.0
    told = sample.prompt_tokens >= LEAST_PROMPT_TOKENS and prompt_ms > 0
    return ComparableAnswer(
        decode_tok_s=sample.tokens_per_step * 1000 / sample.step_ms,
        step_ms=sample.step_ms,
        prompt_tok_s=sample.prompt_tokens * 1000 / prompt_ms if told else None,
    )


def mark_of(
    answers: Sequence[ComparableAnswer], when_s: float, profile: str, engine: str, kind: str, on: Circumstances
) -> SpeedMark | None:
    """Return the mark of some answers of one start; None of fewer than `LEAST_ANSWERS`.

    :param when_s: Unix time of the first
    :param on: what they were measured on
    """
    if len(answers) < LEAST_ANSWERS:
        return None

    decode = [each.decode_tok_s for each in answers]
    low, high = interval_of_median(decode)
    prompts = [each.prompt_tok_s for each in answers if each.prompt_tok_s is not None]
    return SpeedMark(
        when_s=round(when_s, 3),
        profile=profile,
        engine=engine,
        kind=kind,
        circumstances=on,
        answers=len(answers),
        decode_tok_s=_rounded(median(decode)),
        low_tok_s=_rounded(low),
        high_tok_s=_rounded(high),
        step_ms=_rounded(median([each.step_ms for each in answers])),
        prompt_tok_s=_rounded(median(prompts)) if prompts else None,
    )


def interval_of_median(values: Sequence[float]) -> tuple[float, float]:
    """Return between which of the values the median of their distribution lies, at 95 % or a little more.

    They are those of the ranks n/2 - 0.98 sqrt(n) and 1 + n/2 + 0.98 sqrt(n), the normal approximation of the binomial
    distribution of how many lie below the median (Conover, Practical Nonparametric Statistics, chapter 3.2).

    :param values: at least one
    """
    ordered = sorted(values)
    below = max(floor(len(ordered) / 2 - 0.98 * sqrt(len(ordered))), 1)
    return ordered[below - 1], ordered[len(ordered) - below]


def _rounded(value: float) -> float:
    return float(f"{value:.5g}")
