"""Two readings are the same, close or different by what they tell of the next tokens."""

from __future__ import annotations

import math
from dataclasses import dataclass

import pytest

from orchestrator.core.verify.agreement import clear_tokens_drawn, compare, divergence

SURE = {"a": 0.9, "b": 0.05}
NEAR = {"a": 0.89, "b": 0.06}
OTHER = {"b": 0.9, "a": 0.05}
EVEN, EVEN_TURNED = {"a": 0.46, "b": 0.45}, {"b": 0.46, "a": 0.45}


@pytest.mark.parametrize(
    ("one", "other", "likeness"),
    [
        ([SURE] * 10, [SURE] * 10, "same"),
        ([SURE] * 10, [NEAR] * 10, "close"),
        ([SURE] * 10, [*[SURE] * 9, OTHER], "different"),
        ([EVEN] * 10, [EVEN_TURNED] * 10, "close"),
        ([SURE], [OTHER], "different"),
    ],
)
def test_likeness(one: list[dict[str, float]], other: list[dict[str, float]], likeness: str) -> None:
    assert compare(one, other).likeness() == likeness
    assert compare(other, one).likeness() == likeness


def test_the_first_position_where_they_part_is_told() -> None:
    assert compare([SURE, SURE, SURE], [SURE, OTHER, OTHER]).parted == 1
    assert compare([EVEN], [EVEN_TURNED]).parted is None, "nearly as likely: rounding may turn them"


def test_the_divergence_is_kullbacks_over_what_both_told_and_the_rest() -> None:
    expected = 0.9 * math.log(0.9 / 0.89) + 0.05 * math.log(0.05 / 0.06) + 0.05 * math.log(0.05 / 0.05)
    assert divergence(SURE, NEAR) == pytest.approx(expected)
    assert divergence(SURE, SURE) == 0.0
    assert divergence(SURE, {"c": 1.0}) >= 0.0


def test_nothing_to_compare_is_refused() -> None:
    with pytest.raises(ValueError, match="positions"):
        compare([], [])
    with pytest.raises(ValueError, match="1 positions of one side, 2 of the other"):
        compare([SURE], [SURE, SURE])


@dataclass(frozen=True)
class Token:
    text: str
    likely: dict[str, float]


def test_drafts_may_change_a_token_that_is_in_doubt_and_none_that_is_clear() -> None:
    sure, doubted = {"a": 0.9, "b": 0.1}, {"a": 0.5, "b": 0.45}
    told = [[Token("a", sure), Token("a", doubted), Token("a", sure)]]

    def drawn(text: str) -> list[list[Token]]:
        return [[Token(each, {}) for each in text]]

    assert clear_tokens_drawn(told, drawn("aaa")) == (2, 0, None)
    assert clear_tokens_drawn(told, drawn("abx")) == (1, 0, None), "after a doubt the texts are others"
    assert clear_tokens_drawn(told, drawn("aab")) == (2, 1, 0)
    assert clear_tokens_drawn([*told, *told], drawn("aaa") + drawn("baa")) == (3, 1, 1)
