"""All that is forecast of one start's speed, and what a switch from one to another would cost and bring. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

from orchestrator.core.plan.geometry import Geometry
from orchestrator.core.plan.need import PlanBuild
from orchestrator.core.plan.shape import PlanShape
from orchestrator.core.plan.speed.forecast import (
    Ceilings,
    SpeedForecast,
    SpeedKey,
    SpeedSample,
    break_even_tokens,
    decode_amounts,
    forecast_decode,
    forecast_drafted,
    forecast_prompt,
    prompt_amounts,
)

DEPTH = 8192
"""Tokens of context that a switch has read again, in what is said of it."""


class SpeedOutlook(NamedTuple):
    """Forecasts, tokens/s.

    :param decode: without drafts; `drafted` with MTP, None where the start has none or no such run was measured
    """

    decode: SpeedForecast
    drafted: SpeedForecast | None
    prompt: SpeedForecast

    @property
    def generation(self) -> SpeedForecast:
        """How the start would generate: with its drafts where it has any."""
        return self.drafted or self.decode


def outlook_of(
    samples: Sequence[SpeedSample], key: SpeedKey, geometry: Geometry, shape: PlanShape, build: PlanBuild,
    ceilings: Ceilings,
) -> SpeedOutlook:  # fmt: skip
    """Return what is forecast of a start.

    :param samples: oldest first
    """
    amounts_at = partial(_amounts_at, geometry, shape, build)
    return SpeedOutlook(
        forecast_decode(samples, key, amounts_at(1.0), ceilings),
        forecast_drafted(samples, key, amounts_at) if shape.draft_max else None,
        forecast_prompt(samples, key, prompt_amounts(geometry, shape, build.kind)),
    )


def switch_worth(now: SpeedOutlook, then: SpeedOutlook) -> str | None:
    """Return after how many tokens a switch has paid that reads a context again; None where speeds are not known."""
    slow, fast = now.generation, then.generation
    if None in (slow.low, slow.high, fast.low, fast.high) or not then.prompt.low:
        return None

    told = f"decoding {rate_text(slow)} now, {rate_text(fast)} then"
    paid = break_even_tokens(DEPTH, then.prompt.low, slow, fast, 0.0)
    if paid is None:
        return f"{told}: not certain to be faster"

    read = f"reading a context of {DEPTH} tokens again takes up to {DEPTH / then.prompt.low:.0f} s"
    return f"{told}: {read}, paid back after {paid[0]:.0f} to {paid[1]:.0f} tokens, besides the load"


def rate_text(speed: SpeedForecast) -> str:
    """Return an interval of tokens/s for people; `not known` where nothing bounds it."""
    if speed.low is None and speed.high is None:
        return "not known"

    if speed.low is None:
        return f"at most {speed.high:.0f} tokens/s"

    return f"{speed.low:.0f} {f'to {speed.high:.0f}' if speed.high is not None else 'or more'} tokens/s"


def _amounts_at(geometry: Geometry, shape: PlanShape, build: PlanBuild, width: float) -> tuple[float, float, float]:
    return decode_amounts(geometry, shape, build.kind, width=width)
