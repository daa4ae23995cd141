"""What one request of a bench measured, and the rates that follow from counts and milliseconds.

The engines' own `predicted_per_second` is not used: upstream divides the tokens after the first by the time since the
end of the prompt, the fork all of them. Here n tokens need n - 1 steps, on both.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from math import log
from typing import Any, Literal

Metric = Literal["decode", "turn", "prompt", "ttft"]
METRICS: tuple[Metric, ...] = ("decode", "turn", "prompt", "ttft")

CLOCK_TOLERANCE = 0.05
CLOCK_SLACK_MS = 30.0
"""What the client's clock may say differently from the engine's: a share, and a fixed part for the way there."""


@dataclass(frozen=True, slots=True)
class BenchAnswer:
    """One answer, as the engine counted it and as the client's clock saw it.

    :param cached_tokens: of the prompt that were not computed, as they were in the engine's cache
    :param by_depth: for engines that tell: drafts and accepted ones by position
    :param first_token_s: from the request to the first text, `wall_s` to the end; the client's clock
    :param waited_ms: how long the engine was ready to compute, and other programs had the processor; None where nobody
        tells
    """

    prompt: str
    prompt_tokens: int
    prompt_ms: float
    output_tokens: int
    output_ms: float
    wall_s: float
    first_token_s: float
    cached_tokens: int = 0
    draft_tokens: int = 0
    draft_accepted: int = 0
    by_depth: tuple[tuple[int, int], ...] = ()
    waited_ms: float | None = None

    @property
    def turn_s(self) -> float:
        """The time of the whole answer, without that in which other programs had the engine's processor."""
        return self.wall_s - (self.waited_ms or 0.0) / 1000

    @property
    def decode_tok_s(self) -> float | None:
        n, ms = self.output_tokens, self.output_ms
        return (n - 1) * 1000 / ms if n > 1 and ms > 0 else None

    @property
    def prompt_tok_s(self) -> float | None:
        return self.prompt_tokens * 1000 / self.prompt_ms if self.prompt_tokens and self.prompt_ms > 0 else None

    @property
    def steps(self) -> int:
        """Verification steps: each yields one token and the drafts that it accepts."""
        return max(self.output_tokens - 1 - self.draft_accepted, 0)


def answer_from_json(found: Mapping[str, Any]) -> BenchAnswer:
    known = {field.name: found[field.name] for field in fields(BenchAnswer) if field.name in found}
    return BenchAnswer(**{**known, "by_depth": tuple((int(a), int(b)) for a, b in found.get("by_depth", ()))})


def answer_of(prompt: str, timings: Mapping[str, Any], wall_s: float, first_token_s: float) -> BenchAnswer:
    """Return the figures of an answer from the engine's `timings`; what it does not say counts as 0.

    Upstream tells what it took from its cache (`cache_n`), the fork where its context ended (`n_past`).
    """
    prompt_n, predicted_n = _count(timings, "prompt_n"), _count(timings, "predicted_n")
    cached = _count(timings, "cache_n")
    if "cache_n" not in timings and "n_past" in timings:
        cached = max(_count(timings, "n_past") - prompt_n - predicted_n, 0)

    depths = timings.get("draft_by_depth")
    return BenchAnswer(
        prompt=prompt,
        prompt_tokens=prompt_n,
        prompt_ms=_milliseconds(timings, "prompt_ms"),
        output_tokens=predicted_n,
        output_ms=_milliseconds(timings, "predicted_ms"),
        wall_s=wall_s,
        first_token_s=first_token_s,
        cached_tokens=cached,
        draft_tokens=_count(timings, "draft_n"),
        draft_accepted=_count(timings, "draft_n_accepted"),
        by_depth=tuple(
            (_count(each, "draft_n"), _count(each, "draft_n_accepted"))
            for each in (depths if isinstance(depths, list) else ())
            if isinstance(each, dict)
        ),
    )


def log_rate(answer: BenchAnswer, metric: Metric) -> float | None:
    """Return the logarithm of a rate that is larger where the target is faster; times count by their inverse."""
    rates: dict[Metric, float | None] = {
        "decode": answer.decode_tok_s,
        "turn": 1 / answer.turn_s if answer.turn_s > 0 else None,
        "prompt": answer.prompt_tok_s,
        "ttft": 1 / answer.first_token_s if answer.first_token_s > 0 else None,
    }
    rate = rates[metric]
    return log(rate) if rate is not None and rate > 0 else None


def clocks_agree(answer: BenchAnswer) -> bool:
    """Return whether the engine's times fit between request and answer, and fill the time between first text and end.

    An engine's time ends before the client has read the end, and its first token may come in one piece with the second.
    """
    engine_ms = answer.prompt_ms + answer.output_ms
    slack = CLOCK_SLACK_MS + CLOCK_TOLERANCE * engine_ms
    streamed_ms = (answer.wall_s - answer.first_token_s) * 1000
    return engine_ms <= answer.wall_s * 1000 + slack and abs(streamed_ms - answer.output_ms) <= slack


def _count(found: Mapping[str, Any], name: str) -> int:
    value = found.get(name)
    return int(value) if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 2**53 else 0


def _milliseconds(found: Mapping[str, Any], name: str) -> float:
    value = found.get(name)
    return (
        float(value) if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 2**53 else 0.0
    )
