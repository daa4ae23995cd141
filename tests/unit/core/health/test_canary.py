"""Two answers to one prompt: what an honest engine may give, and what none does."""

from __future__ import annotations

import pytest

from orchestrator.core.health.canary import Agreement, DrawnToken, compare_answers


def sure(text: str) -> DrawnToken:
    return DrawnToken(text, {text: 0.95, " other": 0.03})


def unsure(text: str, other: str) -> DrawnToken:
    return DrawnToken(text, {text: 0.31, other: 0.3})


def plain(*texts: str) -> list[DrawnToken]:
    return [DrawnToken(text) for text in texts]


@pytest.mark.parametrize(
    ("fresh", "cached", "tokens", "expected"),
    [
        ([sure(" a"), sure(" b")], [sure(" a"), sure(" b")], 4, "agree"),
        ([sure(" a"), sure(" b")], [sure(" a")], 3, "agree"),  # one was cut by its limit
        ([sure(" a"), sure(" b")], [sure(" a"), sure(" c")], 4, "differ"),
        ([unsure(" a", " b")], [unsure(" b", " a")], 2, "agree"),  # as likely: their order is rounding
        ([unsure(" a", " b"), sure(" c")], [unsure(" b", " a"), sure(" d")], 4, "agree"),  # different texts by then
        ([sure(" a")], [unsure(" b", " c")], 2, "differ"),  # sure of what the other does not think of
        ([DrawnToken(" a", {" a": 0.7, " b": 0.2})], [DrawnToken(" b", {" b": 0.5, " a": 0.45})], 2, "agree"),
        ([DrawnToken(" a", {" a": 0.9})], [DrawnToken(" a", {" b": 0.5, " c": 0.4})], 2, "differ"),
        (
            [DrawnToken(" a", {" a": 0.9})],
            [DrawnToken(" a", {" b": 0.55, " a": 0.4})],
            2,
            "differ",
        ),  # apart in log-odds
        ([DrawnToken(" a", {" a": 0.65})], [DrawnToken(" a", {" b": 0.5, " a": 0.4})], 2, "agree"),
        ([DrawnToken(" a", {" a": 0.999})], [DrawnToken(" a", {" a": 0.9})], 2, "agree"),  # both are sure
        (plain(" a", " b"), plain(" a", " c"), 4, "agree"),  # it tells no likelihoods: nothing is known
        ([], [sure(" a")], 2, "differ"),  # ended at once where the other is sure to go on
        ([sure(" a")], [], 2, "differ"),
        ([], [unsure(" a", " b")], 2, "agree"),
        ([], plain(" a"), 2, "differ"),
        ([], [], 2, "agree"),  # a model that ends at once: its end was counted
        ([], [], 0, "empty"),
        ([], [], None, "empty"),
    ],
)
def test_what_two_answers_say(
    fresh: list[DrawnToken], cached: list[DrawnToken], tokens: int | None, expected: Agreement
) -> None:
    assert compare_answers(fresh, cached, tokens) == expected
