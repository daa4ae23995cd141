"""Costs against figures that were computed by hand: each number below is a line of arithmetic on paper."""

from __future__ import annotations

from dataclasses import replace

import pytest

from orchestrator.core.energy.cost import ApiCost, card_paybacks, model_costs
from orchestrator.core.energy.prices import ApiPrice, CostConfig
from orchestrator.core.energy.sharing import IdleRecord
from orchestrator.core.energy.text import assumptions, cost_lines, payback_lines
from orchestrator.core.measure.request_stats import RequestRecord

API = ApiPrice(prompt=0.50, output=2.00, cached=0.10)
CONFIG = CostConfig(0.30, "EUR", {"api": API})
PROMPTS = RequestRecord(
    started_s=0.0, profile="qwen", engine="upstream", build="b1", route="/v1/chat/completions", outcome="complete",
    status=200, held_s=0.0, total_s=1.0, prompt_tokens=1_000_000, prompt_ms=1000.0, output_tokens=0, output_ms=0.0,
    cached_tokens=2_000_000, energy_j=360_000.0,
)  # fmt: skip
"""0.1 kWh for a million tokens of prompts."""

MIXED = replace(
    PROMPTS, prompt_tokens=0, prompt_ms=0.0, output_tokens=100_000, output_ms=5000.0, cached_tokens=0,
    energy_j=1_800_000.0,
)  # fmt: skip
"""0.5 kWh for a tenth of a million tokens of answers."""

UNKNOWN = replace(PROMPTS, energy_j=None)
IDLE = IdleRecord(0, "qwen", "upstream", 720_000.0, 36_000.0, 0.0)
"""0.2 kWh in ten hours."""


def test_electricity_and_api_prices_of_the_same_tokens_as_on_paper() -> None:
    (qwen,) = model_costs([PROMPTS, MIXED, UNKNOWN], [IDLE], CONFIG)
    assert (qwen.requests, qwen.energy.requests) == (3, 2)
    assert qwen.prompt_per_million == pytest.approx(0.03)  # 0.1 kWh x 0.30
    assert qwen.output_per_million == pytest.approx(1.50)  # 5 kWh x 0.30
    assert qwen.busy_cost == pytest.approx(0.18)  # 0.6 kWh x 0.30
    assert qwen.idle_cost == pytest.approx(0.06)  # 0.2 kWh x 0.30
    (api,) = qwen.apis
    assert api.cost == pytest.approx(0.90)  # 1 x 0.50 + 2 x 0.10 + 0.1 x 2.00
    assert api.saved == pytest.approx(0.66)  # 0.90 - 0.18 - 0.06


def test_energy_of_a_request_is_divided_by_the_engines_times() -> None:
    both = replace(PROMPTS, prompt_tokens=100, prompt_ms=250.0, output_tokens=50, output_ms=750.0, energy_j=400.0)
    (qwen,) = model_costs([both], [], CONFIG)
    assert (qwen.energy.prompt_j, qwen.energy.output_j) == (100.0, 300.0)
    assert (qwen.energy.prompt_j_per_token, qwen.energy.output_j_per_token) == (1.0, 6.0)


def test_embeddings_have_no_times_and_are_prompts_alone() -> None:
    embedded = replace(PROMPTS, prompt_ms=None, output_tokens=None, output_ms=None)
    (qwen,) = model_costs([embedded], [], CONFIG)
    assert (qwen.energy.prompt_j, qwen.energy.output_j, qwen.untold_requests) == (360_000.0, 0.0, 0)


def test_a_card_is_paid_by_what_is_saved_as_on_paper() -> None:
    costs = model_costs([PROMPTS, MIXED, UNKNOWN], [IDLE], CONFIG)
    (card,) = card_paybacks(costs, CONFIG, card_price=720.0, over_s=2 * 86_400.0)
    assert card.per_million == pytest.approx(0.72 / 3.1)  # (0.90 - 0.18) for 3.1 million tokens
    assert card.million_tokens == pytest.approx(3100)  # 720 / 0.72 times 3.1
    assert card.million_tokens_a_day == pytest.approx(1.55)
    assert card.saved_a_day == pytest.approx(0.33)  # 0.66 in two days
    assert card.days == pytest.approx(2181.82, abs=0.01)  # 720 / 0.33


def test_electricity_that_costs_more_than_the_api_never_pays() -> None:
    dear = replace(CONFIG, electricity_per_kwh=3.00)
    costs = model_costs([PROMPTS, MIXED], [IDLE], dear)
    (card,) = card_paybacks(costs, dear, 720.0, 86_400.0)
    assert (card.million_tokens, card.days) == (None, None)
    assert "api: never; a million tokens costs 0.29 EUR more here" in payback_lines([card], dear, 720.0, 86_400.0)[1]
    assert any(line.startswith("  lost against api, idle time counted: 1.50 EUR") for line in cost_lines(costs, dear))


def test_idle_time_can_cost_more_than_is_saved() -> None:
    costs = model_costs([PROMPTS, MIXED], [replace(IDLE, idle_j=36e6)], CONFIG)
    (card,) = card_paybacks(costs, CONFIG, 720.0, 86_400.0)
    assert card.million_tokens == pytest.approx(3100) and card.days is None  # 0.72 a day saved, 3.00 for idle time
    assert "never, idle time costs more than is saved (-2.28 EUR a day)" in "\n".join(
        payback_lines([card], CONFIG, 720.0, 86_400.0)
    )


def test_without_a_price_of_electricity_energy_is_shown_and_no_money() -> None:
    unpriced = CostConfig(prices={"api": API})
    costs = model_costs([PROMPTS], [IDLE], unpriced)
    assert (costs[0].busy_cost, costs[0].idle_cost, costs[0].prompt_per_million) == (None, None, None)
    assert costs[0].apis == (ApiCost("api", API, pytest.approx(0.7), None),)  # type: ignore[arg-type]
    assert card_paybacks(costs, unpriced, 720.0, 86_400.0) == ()
    assert not any("saved" in line or "local" in line for line in cost_lines(costs, unpriced))


def test_requests_of_unknown_energy_cost_an_unknown_amount_and_not_nothing() -> None:
    (qwen,) = model_costs([UNKNOWN], [replace(IDLE, idle_j=0.0, idle_s=0.0, idle_unknown_s=60.0)], CONFIG)
    assert qwen.busy_cost is None and qwen.apis[0].saved is None
    assert cost_lines([qwen], CONFIG) == ["qwen: 1 request, the energy of none of them is known"]


def test_a_model_that_was_loaded_and_never_asked_has_its_idle_cost() -> None:
    (qwen,) = model_costs([], [IDLE], CONFIG)
    assert (qwen.requests, qwen.busy_cost) == (0, 0.0)
    assert qwen.idle_cost == pytest.approx(0.06)
    assert qwen.apis[0].saved == pytest.approx(-0.06)
    assert cost_lines([qwen], CONFIG) == ["qwen: no request", "  idle: 200 Wh in 10.0 h without a request, 0.060 EUR"]


def test_energy_of_requests_that_were_broken_off_is_told_and_compared_with_nothing() -> None:
    gone = replace(
        PROMPTS, outcome="client_gone", prompt_ms=None, output_ms=None, prompt_tokens=None, energy_j=36_000.0
    )
    (qwen,) = model_costs([PROMPTS, gone], [], CONFIG)
    assert (qwen.requests, qwen.energy.requests, qwen.untold_requests) == (2, 1, 1)
    assert qwen.busy_cost == pytest.approx(0.03)
    assert "  not compared: 10 Wh of 1 request of which the engine told nothing, 0.0030 EUR" in cost_lines(
        [qwen], CONFIG
    )


def test_where_only_broken_off_requests_are_known_nothing_is_compared() -> None:
    gone = replace(PROMPTS, prompt_ms=None, output_ms=None, prompt_tokens=None)
    assert cost_lines(model_costs([gone], [], CONFIG), CONFIG) == [
        "qwen: 1 request",
        "  not compared: 100 Wh of 1 request of which the engine told nothing, 0.030 EUR",
    ]


def test_requests_that_never_got_to_an_engine_cost_nothing_and_are_not_counted() -> None:
    assert model_costs([replace(UNKNOWN, engine=None), replace(UNKNOWN, profile=None)], [], CONFIG) == ()


def test_a_person_reads_a_table_for_each_model() -> None:
    costs = model_costs([PROMPTS, MIXED, UNKNOWN], [IDLE], CONFIG)
    assert cost_lines(costs, CONFIG) == [
        "qwen: 2 of 3 requests",
        "  per million tokens     prompt     cached   output  these requests",
        "  energy                 100 Wh               5 kWh          600 Wh",
        "  local                   0.030          0     1.50        0.18 EUR",
        "  api                      0.50       0.10     2.00        0.90 EUR",
        "  tokens              1,000,000  2,000,000  100,000",
        "  idle: 200 Wh in 10.0 h without a request, 0.060 EUR",
        "  saved against api, idle time counted: 0.66 EUR",
    ]
    assert assumptions(costs, card=True)[0].startswith("2 of 3 requests compared")
