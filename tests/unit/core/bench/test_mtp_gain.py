from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from orchestrator.core.bench.blocks import MeasuredBlock
from orchestrator.core.bench.conditions import BenchSide
from orchestrator.core.bench.estimator import Side
from orchestrator.core.bench.mtp_gain import (
    MtpMeasurement,
    MtpRatio,
    describe_gain,
    draft_cost,
    gain_at,
    holds_for,
    measured_by_depth,
    measured_by_pair,
    mtp_and_none,
    mtp_findings,
)
from orchestrator.core.bench.records import BenchSpec
from orchestrator.core.bench.workloads import CHAT
from tests.unit.core.bench.benches import PLAN, pairs, sides

MTP = {"context.size": "4096", "speculative.type": "mtp", "sampling.temperature": "1.0"}
NONE = {"context.size": "4096", "speculative.type": "none"}
SIDES: dict[Side, BenchSide] = {
    "a": replace(sides()["a"], all_settings=NONE),
    "b": replace(sides()["a"], all_settings=MTP),
}
SPEC = BenchSpec(PLAN, CHAT, 192, SIDES, (), {})
WHEN_S = 1_700_000_000.0
"""2023-11-14."""


def measured(
    mtp_tok_s: float, none_tok_s: float, *, prompt_ms: float = 100.0, shake: float = 0.02, drafts: int = 0
) -> MtpMeasurement | None:
    """B drafts with MTP: 3 tokens a step, where there are drafts."""

    def made(block: MeasuredBlock) -> MeasuredBlock:
        if block.side == "a":
            return block

        answers = (
            replace(each, prompt_ms=prompt_ms, draft_tokens=drafts, draft_accepted=drafts * 2 // 3)
            for each in block.answers
        )
        return replace(block, answers=tuple(answers))

    return measured_by_pair("bench 12", WHEN_S, SPEC, list(map(made, pairs(6, none_tok_s, mtp_tok_s, shake))))


def kinds(found: MtpMeasurement | None) -> list[str]:
    assert found is not None
    return [each.kind for each in mtp_findings(found, "p")]


@pytest.mark.parametrize(
    ("arms", "found"),
    [
        ((MTP, NONE), (0, 1)),
        ((NONE, MTP), (1, 0)),
        ((NONE, {**MTP, "speculative.type": "('ngram-mod', 'mtp')"}), (1, 0)),
        (({"context.size": "4096"}, MTP), (1, 0)),  # none is what is not said
        ((MTP, MTP), None),
        ((MTP, {**NONE, "speculative.type": "ngram-mod"}), None),
        ((MTP, {**NONE, "context.size": "8192"}), None),
        ((MTP,), None),
    ],
)
def test_a_comparison_is_one_of_mtp_and_none_with_all_else_equal(
    arms: tuple[Mapping[str, str], ...], found: tuple[int, int] | None
) -> None:
    assert mtp_and_none(arms) == found


def test_mtp_that_is_slower_is_said_with_figures_interval_and_the_command() -> None:
    found = measured(80.0, 100.0)
    assert found is not None
    [finding] = mtp_findings(found, "p")
    assert finding.kind == "mtp_slower" and finding.hint == "`orch profile set p speculative.type=none`"
    assert finding.message.startswith("MTP is slower than none on this machine: 100 against 123.8 tok/s, -19.2 % (-2")
    assert finding.message.endswith(" %); bench 12, 2023-11-14")


@pytest.mark.parametrize(
    ("mtp_tok_s", "shake"),
    [
        (150.0, 0.02),  # faster
        (99.0, 0.001),  # certainly slower, and by nothing that is worth a word
        (95.0, 0.5),  # the pairs contradict each other
    ],
)
def test_mtp_that_is_as_fast_or_may_be_is_no_finding(mtp_tok_s: float, shake: float) -> None:
    assert kinds(measured(mtp_tok_s, 100.0, shake=shake)) == []


def test_prompts_that_mtp_makes_slower_are_said_with_what_it_gains() -> None:
    found = measured(150.0, 100.0, prompt_ms=150.0)
    assert found is not None
    [finding] = mtp_findings(found, "p")
    assert finding.kind == "mtp_slower_prompts"
    assert "333.3 against 500 tok/s, -33.3 %" in finding.message and "it decodes +5" in finding.message
    assert kinds(measured(150.0, 100.0, prompt_ms=102.0)) == []
    assert "MTP decodes 187.5 against 123.8 tok/s" in describe_gain(found) and "prompts 333" in describe_gain(found)


def test_the_cost_of_a_draft_follows_from_the_speed_the_tokens_in_a_step_and_the_right_drafts() -> None:
    # 3 tokens in a step, of 3 drafts 2 are right; 3 / 1.5 - 1 = one step more for 3 drafts.
    assert draft_cost(1.5, 3.0, 2 / 3) == pytest.approx(1 / 3)
    assert gain_at(1 / 3, 2 / 3, 3.0) == pytest.approx(1.5)
    assert gain_at(1 / 3, 1 / 3, 3.0) == pytest.approx(1.0)  # it pays above its cost
    assert draft_cost(1.5, None, None) is None
    assert draft_cost(0.0, 3.0, 2 / 3) is None
    assert draft_cost(3.1, 3.0, 2 / 3) == 0  # by chance: a draft gives no time
    found = measured(150.0, 100.0, drafts=99)
    assert found is not None and found.draft_cost == pytest.approx(
        2 / 3 * (100 / 34 / 1.515 - 1) / (100 / 34 - 1), 0.05
    )


def test_a_side_that_is_no_mtp_or_too_few_pairs_say_nothing() -> None:
    spec = BenchSpec(PLAN, CHAT, 192, sides(), (), {})
    assert measured_by_pair("bench 1", WHEN_S, spec, pairs(6, 80, 100)) is None
    assert measured_by_pair("bench 1", WHEN_S, SPEC, pairs(1, 80, 100)) is None


def by_depth(decode: float, prompt: float) -> MtpMeasurement | None:
    def series(settings: Mapping[str, str], decode: float, prompt: float) -> dict[str, Any]:
        points = [{"depth": at, "decode_tok_s": decode, "prompt_tok_s": prompt} for at in (512, 1024, 2048)]
        return {"all_settings": settings, "points": points}

    return measured_by_depth("bench 3", WHEN_S, {"series": [series(MTP, decode, prompt), series(NONE, 20.0, 800.0)]})


@pytest.mark.parametrize(
    ("decode", "prompt", "found"),
    [
        (17.0, 800.0, ["mtp_slower"]),
        (30.0, 400.0, ["mtp_slower_prompts"]),
        (18.9, 750.0, []),  # without an interval a little is chance
        (30.0, 800.0, []),
        (17.0, 400.0, ["mtp_slower"]),  # what is slower anyway is turned off anyway
    ],
)
def test_a_bench_by_depth_says_so_where_the_difference_is_large(decode: float, prompt: float, found: list[str]) -> None:
    assert kinds(by_depth(decode, prompt)) == found


def test_a_bench_by_depth_of_one_series_or_of_an_older_orch_says_nothing() -> None:
    assert measured_by_depth("bench 3", WHEN_S, {"series": [{"points": []}, {"points": []}]}) is None
    assert measured_by_depth("bench 3", WHEN_S, {"series": []}) is None


SIDE = BenchSide(
    name="p", profile="p", engine="e", build="b1 (abc)", sha256="f" * 64, model="/models/m.gguf", model_bytes=77,
    all_settings=MTP,
)  # fmt: skip
SETTINGS: dict[str, object] = {"context.size": 4096, "speculative.type": "mtp", "sampling.temperature": 0.2}


@pytest.mark.parametrize(
    ("build", "model", "settings", "holds"),
    [
        ("b1 (abc) ffffffffffff", "m.gguf:77:1", SETTINGS, True),
        ("b2 (abc) ffffffffffff", "m.gguf:77:1", SETTINGS, False),
        ("b1 (abc) ffffffffffff", "m.gguf:78:1", SETTINGS, False),
        ("b1 (abc) ffffffffffff", "m.gguf:77:1", {**SETTINGS, "context.size": 8192}, False),
        ("b1 (abc) ffffffffffff", "m.gguf:77:1", {**SETTINGS, "speculative.draft_max": 1}, False),
    ],
)
def test_a_measurement_holds_for_the_same_build_model_and_settings(
    build: str, model: str, settings: dict[str, object], holds: bool
) -> None:
    assert holds_for(SIDE, build, model, settings) is holds


def test_one_figure_each_has_to_differ_by_more() -> None:
    assert not MtpRatio(0.93, None, None, "").is_lower(0.03)
    assert MtpRatio(0.89, None, None, "").is_lower(0.03)
    assert MtpRatio(0.93, 0.91, 0.95, "").is_lower(0.03)
