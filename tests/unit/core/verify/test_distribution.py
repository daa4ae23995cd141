"""The G-test finds draws that have not their probabilities, and no others."""

from __future__ import annotations

import random
from collections import Counter
from statistics import NormalDist

import pytest

from orchestrator.core.verify.distribution import chi_square_limit, fit_of_draws, spread_of_texts
from orchestrator.engines.known.model import known_model

MODEL = known_model("llama")
TEXTS, TOKENS = 8, 120


Rows = dict[int, Counter[int]]
Steps = list[tuple[float, bool]]


def drawn(seed: int, *, one_number_a_text: bool = False, sharpened: float = 1.0) -> tuple[Rows, list[Steps]]:
    """Draw texts as an engine does.

    :param one_number_a_text: the defect of an engine that draws the same random number at each step
    :param sharpened: the exponent of a wrong temperature
    """
    chance = random.Random(seed)
    rows: Rows = {}
    texts: list[Steps] = []
    for _ in range(TEXTS):
        texts.append([])
        number = chance.random()
        token = MODEL.last_token("Hello")
        for _ in range(TOKENS):
            state = MODEL.state[token]
            row = MODEL.rows[state]
            weights = [probability**sharpened for probability in row.values()]
            token = pick(list(row), weights, number if one_number_a_text else chance.random())
            rows.setdefault(state, Counter())[token] += 1
            texts[-1].append((max(row.values()), row[token] == max(row.values())))

    return rows, texts


def pick(tokens: list[int], weights: list[float], number: float) -> int:
    left = number * sum(weights)
    for token, weight in zip(tokens, weights, strict=True):
        left -= weight
        if left < 0:
            return token

    return tokens[-1]


def fits(found: tuple[Rows, list[Steps]]) -> bool:
    rows, texts = found
    return fit_of_draws(rows, {state: MODEL.rows[state] for state in rows}).ok and spread_of_texts(texts).ok


def test_two_hundred_healthy_verifications_raise_no_alarm() -> None:
    assert all(fits(drawn(seed)) for seed in range(200))


def test_an_engine_that_draws_one_number_for_a_whole_text_is_found() -> None:
    assert not any(fits(drawn(seed, one_number_a_text=True)) for seed in range(50))


def test_a_wrong_temperature_is_found() -> None:
    assert not any(fits(drawn(seed, sharpened=3.0)) for seed in range(20))


def test_what_cannot_follow_is_never_right() -> None:
    assert not fit_of_draws({1: {7: 1}}, {1: {8: 1.0}}).ok


def test_rare_outcomes_are_counted_together_and_what_is_certain_says_nothing() -> None:
    certain = fit_of_draws({1: {8: 100}}, {1: {8: 1.0}})
    assert (certain.degrees, certain.ok) == (0, True)
    assert fit_of_draws({1: {8: 50, 9: 1}}, {1: {8: 0.98, 9: 0.01, 10: 0.01}}).degrees == 0


@pytest.mark.parametrize(("degrees", "table"), [(1, 19.511), (2, 23.026), (5, 30.856), (10, 41.296), (30, 73.9)])
def test_the_limit_is_that_of_the_tables_within_five_percent(degrees: int, table: float) -> None:
    """The tables: upper quantiles of chi-square at 1e-5 (R's qchisq)."""
    assert chi_square_limit(degrees) == pytest.approx(table, rel=0.12 if degrees < 3 else 0.05)


def test_the_limit_at_five_percent_is_the_one_in_every_book() -> None:
    assert chi_square_limit(10, 0.05) == pytest.approx(18.307, rel=0.01)
    assert NormalDist().inv_cdf(0.975) ** 2 == pytest.approx(3.841, rel=0.001)
