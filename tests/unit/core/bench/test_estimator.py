"""The estimate of a bench: what it must not be moved by, and how its verdicts follow from the interval."""

from __future__ import annotations

from math import exp, log

import pytest

from orchestrator.core.bench.estimator import (
    LOOKS,
    Block,
    Side,
    block_values,
    estimate,
    factor,
    level_of,
    look_of,
    trimmed_mean,
    verdict_at,
)

QUADS: tuple[Side, ...] = ("a", "b", "b", "a", "b", "a", "a", "b") * 2
PROMPTS = (4.0, 4.5, 5.0, 4.2, 4.8, 4.4)
SHAKE = (
    0.004,
    -0.002,
    0.001,
    -0.005,
    0.003,
    0.0,
    -0.001,
    0.002,
    0.005,
    -0.004,
    0.001,
    0.002,
    -0.003,
    0.004,
    0.0,
    -0.002,
)
"""What each block has of its own."""


def blocks(count: int, effect: float, own: tuple[float, ...] = (0,) * 6, scale: float = 1.0) -> list[Block]:
    return [
        Block(
            side,
            tuple(y + shake * scale + (effect + o if side == "b" else 0) for y, o in zip(PROMPTS, own, strict=True)),
        )
        for side, shake in list(zip(QUADS, SHAKE, strict=True))[:count]
    ]


def test_without_noise_the_estimate_is_the_truth() -> None:
    found = estimate(blocks(6, log(1.05), scale=0), 0.05)
    assert found is not None
    assert found.ratio == pytest.approx(1.05)
    assert found.low == pytest.approx(found.high)


def test_what_a_target_makes_of_one_prompt_is_in_the_mean_and_shown_by_prompt() -> None:
    own = (0.06, -0.01, -0.01, -0.02, 0.0, -0.02)
    found = estimate(blocks(6, 0.02, own, scale=0), 0.05)
    assert found is not None
    assert found.mean == pytest.approx(0.02)
    assert found.by_prompt == pytest.approx([0.02 + each for each in own])


def test_one_slow_request_in_a_block_moves_nothing() -> None:
    calm = blocks(10, 0.03)
    slow = [Block(calm[0].side, (calm[0].logs[0] - 0.8, *calm[0].logs[1:])), *calm[1:]]
    before, after = estimate(calm, 0.05), estimate(slow, 0.05)
    assert before is not None
    assert after is not None
    assert after.mean == pytest.approx(before.mean, abs=0.001)


def test_the_interval_is_that_of_t_on_pairs_times_the_factor() -> None:
    made = blocks(10, 0.03)
    values = block_values(made)
    d = [(values[k + 1] - values[k]) * (1 if made[k].side == "a" else -1) for k in range(0, 10, 2)]
    mean = sum(d) / 5
    deviation = (sum((each - mean) ** 2 for each in d) / 4) ** 0.5
    found = estimate(made, 0.05)
    assert found is not None
    assert found.high - found.mean == pytest.approx(2.776445 * deviation / 5**0.5 * 1.10, rel=1e-5)


def test_the_names_of_the_targets_can_be_changed_round() -> None:
    made = blocks(10, 0.03)
    turned = [Block("b" if block.side == "a" else "a", block.logs) for block in made]
    one, other = estimate(made, 0.05), estimate(turned, 0.05)
    assert one is not None
    assert other is not None
    assert other.mean == pytest.approx(-one.mean)
    assert (other.low, other.high) == pytest.approx((-one.high, -one.low))


def test_a_single_pair_has_no_interval() -> None:
    assert estimate(blocks(3, 0.05), 0.05) is None
    assert verdict_at(blocks(2, 0.5), 0.05) == "undecided"


@pytest.mark.parametrize(
    ("effect", "scale", "verdict"),
    [
        (0.10, 1.0, "b_faster"),
        (-0.10, 1.0, "a_faster"),
        (0.0, 0.3, "same"),
        (0.0, 10.0, "undecided"),
        (0.03, 10.0, "undecided"),
    ],
)
def test_verdicts(effect: float, scale: float, verdict: str) -> None:
    assert verdict_at(blocks(16, effect, scale=scale), 0.04) == verdict


def test_a_small_difference_that_is_sure_is_a_difference() -> None:
    assert verdict_at(blocks(16, 0.01, scale=0.1), 0.04) == "b_faster"


def test_looks_spend_less_than_they_may_and_are_at_their_blocks_alone() -> None:
    assert [(look.blocks, look.level) for look in LOOKS] == [(6, 0.005), (10, 0.015), (16, 0.04)]
    assert look_of(8) is None
    assert [level_of(each) for each in (4, 6, 9, 10, 16)] == [0.005, 0.005, 0.005, 0.015, 0.04]


def test_the_factor_never_shrinks_between_the_looks() -> None:
    assert [factor(each) for each in (4, 6, 8, 10, 12, 16, 20)] == [1.2, 1.15, 1.10, 1.10, 1.08, 1.08, 1.08]


def test_a_fifth_is_cut_at_each_end() -> None:
    assert trimmed_mean([100, 1, 2, 3, 4, -100]) == 2.5
    assert trimmed_mean([1, 5]) == 3
    assert exp(trimmed_mean([0.0] * 9)) == 1
