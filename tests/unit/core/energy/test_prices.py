from __future__ import annotations

import math
from datetime import date
from pathlib import Path

import pytest

from orchestrator.adapters.config.config_file import load_config
from orchestrator.adapters.paths import find_paths
from orchestrator.core.config import Config, read_config
from orchestrator.core.energy.prices import ApiPrice, CostConfig
from orchestrator.core.problems import Problems, ProblemsError


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
        ({"a": {"prompt": 1, "output": math.nan}}, "`cost.prices.a.output`: expected 0 to 1000000, found nan"),
        ({"a": {"prompt": 1, "output": date(2026, 1, 1)}}, "`cost.prices.a.output`: expected a number, found a date"),
        ({"a": {"prompt": 1, "output": 2, "zzz": 3}}, "(a price has `prompt` and `output`, and may have `cached`)"),
        ({"a": {"prompt": 1.0}}, "(a price has `prompt` and `output`, and may have `cached`)"),
        ({"": {"prompt": 1, "output": 2}}, "`cost.prices`: expected a name of printable characters, found ``"),
        ({"a\nb": {"prompt": 1, "output": 2}}, "expected a name of printable characters, found `a\\nb`"),
        (7, "`cost.prices`: expected a table"),
    ],
)
def test_a_price_that_is_wrong_is_said_with_its_place(prices: object, problem: str) -> None:
    found, problems = read({"prices": prices})
    assert len(problems) == 1 and problem in problems[0]
    assert found.cost.prices == {} or "unknown key" in problems[0]


def test_a_currency_that_would_break_the_table_is_refused() -> None:
    _, problems = read({"currency": "E\nUR"})
    assert problems == ["orch.toml: `cost.currency`: expected printable characters, found `E\\nUR`"]


def test_a_wrong_price_is_told_with_its_line(tmp_path: Path) -> None:
    paths = find_paths({"ORCH_HOME": str(tmp_path)})
    Path(paths.config_file).parent.mkdir(parents=True, exist_ok=True)
    Path(paths.config_file).write_text("[cost]\n\n[cost.prices.foo]\nprompt = 1\noutput = nan\n")
    with pytest.raises(ProblemsError) as caught:
        load_config(paths, {})

    [problem] = caught.value.problems
    assert (problem.line, problem.key) == (5, "cost.prices.foo.output")
