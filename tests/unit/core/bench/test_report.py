"""The report has the fields that programs rely on, and says the same in a sentence."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from orchestrator.core.bench.blocks import progress_of
from orchestrator.core.bench.report import bench_report, summary, verdict_text
from orchestrator.core.bench.text import interval_plot, report_lines
from tests.unit.core.bench.benches import PLAN, TOKENS, answer, block, pairs, sides


def report(a: float, b: float, count: int = 3, shake: float = 0.001, **of_b: object) -> dict[str, Any]:
    made = bench_report(sides(**of_b), PLAN, progress_of(pairs(count, a, b, shake)), TOKENS)
    return {**made, "id": 7, "workload": "chat"}


def test_the_report_keeps_its_contract() -> None:
    found = report(100, 110)
    assert set(found) >= {"a", "b", "metric", "blocks", "ratio", "low", "high", "verdict", "conditions", "prompts"}
    assert (found["metric"], found["blocks"], found["verdict"]) == ("decode", 6, "b_faster")
    assert found["low"] <= found["ratio"] <= found["high"]
    assert abs(found["ratio"] - 1.1) < 0.002
    assert [each["name"] for each in found["prompts"]] == list(PLAN.prompts)
    assert found["a"]["engine"] == "upstream"
    assert found["conditional"] is False


def test_both_means_are_shown() -> None:
    answers = [answer("one", 100.0), answer("two", 50.0)]
    found = summary(answers)
    assert found["decode_tok_s"] == 75.0
    assert found["pooled_decode_tok_s"] == 66.667
    assert found["wall_tok_s"] == float(f"{202 / sum(each.wall_s for each in answers):.5g}")


def test_steps_and_tokens_per_step_multiply_to_the_rate() -> None:
    found = summary([answer("one", 80.0)])
    assert abs(found["tokens_per_step"] / found["ms_per_step"] * 1000 - 80.0) < 0.01


def test_sentences() -> None:
    assert verdict_text(report(100, 110)).startswith("B (ik-fork) is faster than A (upstream) by +10")
    assert verdict_text(report(110, 100)).startswith("A (upstream) is faster than B (ik-fork) by +")
    assert verdict_text(report(100, 100)).startswith("no difference worth having: B over A +0.0 %")
    assert verdict_text(report(100, 105, count=1)).startswith("nothing can be said yet")
    assert verdict_text(report(100, 110, verified=None)).endswith("; under conditions")


def test_what_nobody_verified_comes_before_any_number() -> None:
    lines = report_lines(report(100, 110, verified=None))
    assert lines[0] == "nobody has verified ik-fork (b1): `orch verify ik-fork`"
    assert "is faster" in lines[2]


def test_an_early_end_is_told() -> None:
    found = report(100, 103, count=2)
    assert found["complete"] is False
    assert any("not complete" in line for line in report_lines(found))


def test_the_plot_has_the_interval_where_it_is() -> None:
    line = interval_plot(1.02, 1.04, 1.06)[1]
    assert line.index("|") < line.index("[") < line.index("o") < line.index("]")
    left = interval_plot(0.5, 0.9, 3.0)[1]
    assert left.index("[") < left.index("o") < left.index("]")


def test_an_unfinished_bench_without_a_pair_can_be_shown() -> None:
    made = bench_report(sides(), PLAN, progress_of([block(0, "a", 100)]), TOKENS)
    assert made["ratio"] is None
    assert report_lines({**made, "id": 1, "workload": "chat"})


def test_energy_is_told_of_each_side_over_the_tokens_of_the_blocks_that_know_it() -> None:
    told = [replace(block(0, "a", 100), energy_j=606.0), block(0, "b", 100), block(1, "a", 100), block(1, "b", 100)]
    made = bench_report(sides(), PLAN, progress_of(told), TOKENS)
    assert made["a"]["energy_j_per_token"] == 1.0  # six answers of 101 tokens
    assert made["b"]["energy_j_per_token"] is None
