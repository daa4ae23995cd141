from __future__ import annotations

from dataclasses import replace

import pytest

from orchestrator.core.measure.request_stats import RequestRecord, quantile, sum_requests, sum_requests_by

ONE = RequestRecord(
    started_s=1.0, profile="demo", engine="upstream", build="b1", route="/completion", outcome="complete", status=200,
    held_s=0.0, total_s=2.0, first_token_s=0.5, prompt_tokens=100, prompt_ms=50.0, output_tokens=11, output_ms=1000.0,
    draft_tokens=10, draft_accepted=4,
)  # fmt: skip


def test_rates_weigh_tokens_and_not_requests() -> None:
    usage = sum_requests(
        "x", [ONE, replace(ONE, output_tokens=101, output_ms=1000.0, prompt_tokens=900, prompt_ms=50.0)]
    )
    assert usage.decode_tok_s == 55.0  # 110 steps in 2 s
    assert usage.prompt_tok_s == 10_000.0


@pytest.mark.parametrize(
    "useless",
    [
        replace(ONE, output_tokens=None, output_ms=None),
        replace(ONE, output_tokens=1, output_ms=500.0),
        replace(ONE, output_tokens=0, output_ms=500.0),
        replace(ONE, output_tokens=50, output_ms=0.0),
        replace(ONE, output_tokens=50, output_ms=None),
    ],
)
def test_what_measures_no_speed_changes_none(useless: RequestRecord) -> None:
    assert sum_requests("x", [ONE, useless]).decode_tok_s == 10.0


def test_nothing_measured_is_none_and_not_zero() -> None:
    usage = sum_requests(None, [RequestRecord(1.0, None, None, None, "/completion", "error", 503, 9.0, 9.0)])
    assert (usage.decode_tok_s, usage.prompt_tok_s, usage.draft_acceptance) == (None, None, None)
    assert (usage.first_token_p50_s, usage.first_token_p95_s) == (None, None)
    assert (usage.requests, usage.error, usage.held_requests, usage.held_s) == (1, 1, 1, 9.0)


def test_acceptance_is_pooled() -> None:
    assert sum_requests("x", [ONE, replace(ONE, draft_tokens=90, draft_accepted=90)]).draft_acceptance == 0.94


def test_the_cached_share_is_of_the_prompts_that_tell_it() -> None:
    told = [replace(ONE, cached_tokens=0), replace(ONE, cached_tokens=300)]
    usage = sum_requests("x", [*told, ONE, replace(ONE, prompt_tokens=None, cached_tokens=9)])
    assert (usage.cached_tokens, usage.cached_share) == (300, 0.6)
    assert sum_requests("x", [ONE]).cached_share is None


def test_outcomes_and_tokens_are_counted() -> None:
    records = [ONE, replace(ONE, outcome="client_gone"), replace(ONE, outcome="error", replays=1)]
    usage = sum_requests("x", records)
    assert (usage.requests, usage.complete, usage.error, usage.client_gone, usage.replays) == (3, 1, 1, 1, 1)
    assert (usage.prompt_tokens, usage.output_tokens) == (300, 33)


@pytest.mark.parametrize(
    "values, share, expected",
    [([], 0.5, None), ([3.0], 0.95, 3.0), ([1.0, 2.0], 0.5, 1.0), ([float(n) for n in range(1, 101)], 0.95, 95.0)],
)
def test_a_quantile_is_a_value_that_was_measured(values: list[float], share: float, expected: float | None) -> None:
    assert quantile(values, share) == expected


def test_groups_are_named_by_the_field_and_the_busiest_comes_first() -> None:
    records = [replace(ONE, engine=None), ONE, replace(ONE, build="b2"), replace(ONE, engine="ik-fork")]
    assert [(each.name, each.requests) for each in sum_requests_by("engine", records)] == [
        ("upstream", 2),
        (None, 1),
        ("ik-fork", 1),
    ]
    assert {each.name for each in sum_requests_by("build", records)} == {"b1", "b2"}


def test_energy_is_summed_over_requests_that_know_it_and_divided_over_those_that_tell_their_times() -> None:
    told = replace(ONE, prompt_ms=250.0, output_ms=750.0, energy_j=440.0)  # 100 tokens in, 11 out
    usage = sum_requests("x", [told, replace(told, prompt_tokens=None, prompt_ms=None, output_ms=None), ONE])
    assert (usage.energy_requests, usage.energy_j) == (2, 880.0)
    assert (usage.prompt_j_per_token, usage.output_j_per_token) == (1.1, 30.0)


def test_without_known_energy_there_is_none_and_not_nothing() -> None:
    usage = sum_requests("x", [ONE])
    assert (usage.energy_requests, usage.energy_j, usage.output_j_per_token) == (0, None, None)
