from __future__ import annotations

import pytest

from orchestrator.core.config import Config, read_config
from orchestrator.core.energy.prices import ApiPrice, CostConfig
from orchestrator.core.problems import Problems


def read(cost: object) -> tuple[Config, list[str]]:
    problems = Problems("orch.toml")
    loaded = read_config({"cost": cost}, {}, problems, Problems("environment"), lambda path: path)
    return loaded.config, [str(each) for each in problems.found]


def test_nothing_is_said_by_default() -> None:
    assert Config().cost == CostConfig(0.0, "", {})


def test_prices_are_read_by_name_and_cached_tokens_cost_as_others_unless_it_is_said() -> None:
    found, problems = read(
        {
            "electricity_per_kwh": 0.32,
            "currency": "EUR",
            "prices": {
                "small-api": {"prompt": 0.15, "output": 0.6, "cached": 0.075},
                "other": {"prompt": 1, "output": 2},
            },
        }
    )
    assert problems == []
    assert found.cost == CostConfig(
        0.32, "EUR", {"small-api": ApiPrice(0.15, 0.6, 0.075), "other": ApiPrice(1.0, 2.0, 1.0)}
    )


@pytest.mark.parametrize(
    ("prices", "problem"),
    [
        ({"a": 3}, "`cost.prices.a`: expected a table, found an integer"),
        ({"a": {"prompt": 1.0}}, "`cost.prices.a`: has no `output`"),
        ({"a": {}}, "`cost.prices.a`: has no `prompt` and no `output`"),
        ({"a": {"prompt": 1, "output": 2, "promt": 3}}, "unknown key `cost.prices.a.promt`"),
        ({"a": {"prompt": -1, "output": 2}}, "`cost.prices.a.prompt`"),
        ({"a": {"prompt": "free", "output": 2}}, "`cost.prices.a.prompt`: expected a number, found a string"),
        (7, "`cost.prices`: expected a table"),
    ],
)
def test_a_price_that_is_wrong_is_said_with_its_place(prices: object, problem: str) -> None:
    found, problems = read({"prices": prices})
    assert len(problems) == 1 and problem in problems[0]
    assert found.cost.prices == {} or "promt" in problem
