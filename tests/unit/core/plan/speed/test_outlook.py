"""What is forecast of a start, and whether a switch pays."""

from __future__ import annotations

from dataclasses import replace

from orchestrator.core.plan.geometry import geometry_of
from orchestrator.core.plan.need import PlanBuild
from orchestrator.core.plan.shape import PlanShape
from orchestrator.core.plan.speed.forecast import (
    NO_CEILINGS,
    SpeedForecast,
    SpeedKey,
    SpeedSample,
    decode_amounts,
    prompt_amounts,
)
from orchestrator.core.plan.speed.outlook import SpeedOutlook, outlook_of, rate_text, switch_worth
from tests.true_geometry import header

A3B = geometry_of([header("qwen36-35b-a3b")])
SHAPE = PlanShape(context_tokens=32768, draft_max=3)
BUILD = PlanBuild("upstream", 11434)
KEY = SpeedKey("upstream", "b11434", "NVIDIA GeForce RTX 3060", "qwen35moe", A3B.tensor_types)

PLAIN = SpeedSample(KEY, "decode", decode_amounts(A3B, SHAPE, "upstream"), 20.0, 20.0)
DRAFTED = SpeedSample(KEY, "decode", decode_amounts(A3B, SHAPE, "upstream", width=4.0), 30.0, 30.0, 2.5, 4.0)
PROMPT = SpeedSample(KEY, "prompt", prompt_amounts(A3B, SHAPE, "upstream"), 1.0, 1.0)


def outlook(*samples: SpeedSample, shape: PlanShape = SHAPE) -> SpeedOutlook:
    return outlook_of(samples, KEY, A3B, shape, BUILD, NO_CEILINGS)


def rates(low: float | None, high: float | None) -> SpeedOutlook:
    return SpeedOutlook(SpeedForecast(low, high, ""), None, SpeedForecast(1000.0, 1100.0, ""))


def test_a_start_with_mtp_is_forecast_by_runs_with_drafts_and_without() -> None:
    found = outlook(PLAIN, DRAFTED, PROMPT)
    assert found.decode.low is not None
    assert found.decode.low < 50 < (found.decode.high or 0)
    assert found.generation is found.drafted
    assert found.drafted is not None
    assert found.drafted.low is not None
    assert found.drafted.low < 83 < (found.drafted.high or 0)
    assert found.prompt.low is not None


def test_without_such_a_run_or_without_mtp_it_is_that_without_drafts() -> None:
    assert outlook(PLAIN).drafted is None
    assert outlook(PLAIN, DRAFTED, shape=replace(SHAPE, draft_max=0)).drafted is None
    assert outlook(PLAIN).generation == outlook(PLAIN).decode


def test_a_switch_to_a_faster_engine_pays_after_so_many_tokens() -> None:
    text = switch_worth(rates(9.5, 10.5), rates(19.0, 21.0))
    assert text is not None
    assert "10 to 10 tokens/s now, 19 to 21 tokens/s then" in text
    assert "paid back after" in text
    assert "up to 8 s" in text


def test_a_switch_that_may_be_slower_is_called_that() -> None:
    assert "not certain" in (switch_worth(rates(9.5, 10.5), rates(10.0, 21.0)) or "")


def test_a_switch_between_unknown_speeds_says_nothing() -> None:
    assert switch_worth(rates(None, 10.0), rates(19.0, 21.0)) is None
    assert switch_worth(rates(9.0, 10.0), rates(None, None)) is None


def test_rates_are_written_as_intervals() -> None:
    assert rate_text(SpeedForecast(None, None, "")) == "not known"
    assert rate_text(SpeedForecast(None, 120.4, "")) == "at most 120 tokens/s"
    assert rate_text(SpeedForecast(20.0, None, "")) == "20 or more tokens/s"
    assert rate_text(SpeedForecast(20.0, 31.6, "")) == "20 to 32 tokens/s"
