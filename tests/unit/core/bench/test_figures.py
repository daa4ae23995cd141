"""Rates from counts and milliseconds, the same for both engines."""

from __future__ import annotations

from dataclasses import replace
from math import log

import pytest

from orchestrator.core.bench.figures import Metric, answer_of, clocks_agree, log_rate
from tests.unit.core.bench.benches import answer

UPSTREAM = {"cache_n": 3, "prompt_n": 40, "prompt_ms": 80.0, "predicted_n": 192, "predicted_ms": 1910.0}
FORK = {"n_past": 233, "prompt_n": 40, "prompt_ms": 80.0, "predicted_n": 192, "predicted_ms": 1910.0}


def test_the_first_token_is_the_prompts() -> None:
    assert answer_of("p", UPSTREAM, 2.1, 0.1).decode_tok_s == pytest.approx(100.0)
    assert answer_of("p", FORK, 2.1, 0.1).decode_tok_s == pytest.approx(100.0)


def test_both_engines_tell_what_was_in_the_cache() -> None:
    assert answer_of("p", UPSTREAM, 2.1, 0.1).cached_tokens == 3
    assert answer_of("p", FORK, 2.1, 0.1).cached_tokens == 1
    assert answer_of("p", {**FORK, "n_past": 200}, 2.1, 0.1).cached_tokens == 0


def test_drafts_by_position_are_read_where_an_engine_tells() -> None:
    depths = [{"depth": 1, "draft_n": 60, "draft_n_accepted": 45}, {"depth": 2, "draft_n": 45, "draft_n_accepted": 20}]
    found = answer_of("p", {**FORK, "draft_n": 105, "draft_n_accepted": 65, "draft_by_depth": depths}, 2.1, 0.1)
    assert found.by_depth == ((60, 45), (45, 20))
    assert found.steps == 191 - 65


@pytest.mark.parametrize("odd", [None, "12", True, -1, 1e300, float("nan")])
def test_what_is_no_count_counts_as_nothing(odd: object) -> None:
    assert answer_of("p", {**UPSTREAM, "predicted_n": odd}, 2.1, 0.1).output_tokens == 0


@pytest.mark.parametrize(
    ("metric", "rate"), [("decode", 100.0), ("turn", 1 / 1.105), ("prompt", 500.0), ("ttft", 1 / 0.104)]
)
def test_each_metric_is_larger_where_a_target_is_faster(metric: Metric, rate: float) -> None:
    assert log_rate(answer("p", 100.0), metric) == pytest.approx(log(rate))


def test_what_an_engine_waited_for_a_processor_is_no_part_of_its_turn() -> None:
    disturbed = replace(answer("p", 100.0, wall_s=1.6), waited_ms=500.0)
    assert log_rate(disturbed, "turn") == pytest.approx(log(1 / 1.1))
    assert log_rate(replace(disturbed, waited_ms=None), "turn") == pytest.approx(log(1 / 1.6))
    assert log_rate(replace(disturbed, waited_ms=1700.0), "turn") is None, "it cannot be"


def test_a_single_token_has_no_decode_rate() -> None:
    assert log_rate(answer("p", 100.0, tokens=1), "decode") is None


def test_times_that_do_not_fit_the_clients_clock_are_seen() -> None:
    good = answer("p", 100.0)
    assert clocks_agree(good)
    assert not clocks_agree(replace(good, wall_s=0.7))
    assert not clocks_agree(replace(good, wall_s=1.6))
    assert not clocks_agree(replace(good, output_ms=500.0))
