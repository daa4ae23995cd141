"""The order of a bench, what is thrown away, and that any break can be gone on from."""

from __future__ import annotations

from dataclasses import replace

import pytest

from orchestrator.core.bench.blocks import (
    BenchEvent,
    BenchOver,
    BenchProgress,
    Measure,
    Throw,
    ThrownPair,
    add_event,
    lacks_figure,
    next_step,
    progress_of,
    prompt_order,
    sides_of,
)
from tests.unit.core.bench.benches import PLAN, PROMPTS, block, pairs


@pytest.mark.parametrize("seed", range(8))
def test_quads_are_abba_or_baab(seed: int) -> None:
    for quad in range(6):
        first, second = sides_of(seed, 2 * quad), sides_of(seed, 2 * quad + 1)
        assert sorted(first) == ["a", "b"]
        assert second == first[::-1]


def test_both_kinds_of_quads_are_drawn() -> None:
    assert {sides_of(seed, 0)[0] for seed in range(20)} == {"a", "b"}
    assert {sides_of(42, 2 * quad)[0] for quad in range(20)} == {"a", "b"}


def test_prompts_are_shuffled_by_pair_and_alike_within_one() -> None:
    orders = {prompt_order(42, pair, 0, 6) for pair in range(20)}
    assert len(orders) > 15
    assert all(sorted(order) == list(range(6)) for order in orders)


def test_a_bench_measures_pair_by_pair_until_it_is_sure() -> None:
    progress = BenchProgress()
    seen = []
    while isinstance(step := next_step(PLAN, progress), Measure):
        seen.append((step.pair, step.side))
        progress = add_event(progress, block(step.pair, step.side, 100.0 if step.side == "a" else 110.0))

    assert step == BenchOver("b_faster")
    assert seen == [(pair, side) for pair in range(3) for side in sides_of(42, pair)]


def test_an_undecided_bench_ends_at_its_most_blocks() -> None:
    made = [
        block(k, side, 100 * (1 + (0.06 if (k * 7 + (side == "b") * 3) % 5 < 2 else -0.03)))
        for k in range(8)
        for side in sides_of(42, k)
    ]
    step = next_step(PLAN, progress_of(made))
    assert step == BenchOver("undecided")
    assert isinstance(next_step(PLAN, progress_of(made[:14])), Measure)
    assert next_step(replace(PLAN, most_blocks=10), progress_of(made[:10])) == BenchOver("undecided")


def test_four_blocks_have_no_verdict_however_far_apart() -> None:
    quick = replace(PLAN, most_blocks=4)
    assert next_step(quick, progress_of(pairs(2, 100, 200))) == BenchOver("undecided")


def test_a_thrown_pair_is_measured_again_in_its_place_with_another_order() -> None:
    events: list[BenchEvent] = [*pairs(2, 100, 110), ThrownPair(0, "clients", "a request ran")]
    step = next_step(PLAN, progress_of(events))
    assert isinstance(step, Measure)
    assert (step.pair, step.attempt, step.side) == (0, 1, sides_of(42, 0)[0])
    assert step.order == prompt_order(42, 0, 1, 6)
    assert len(progress_of(events).measured) == 2


def test_half_a_pair_counts_for_nothing_yet() -> None:
    made = pairs(2, 100, 110)[:3]
    assert len(progress_of(made).measured) == 2
    step = next_step(PLAN, progress_of(made))
    assert isinstance(step, Measure)
    assert (step.pair, step.side) == (1, sides_of(42, 1)[1])


def test_a_far_block_is_run_again_and_not_for_ever() -> None:
    made: list[BenchEvent] = [*pairs(2, 100, 100), block(2, sides_of(42, 2)[0], 60), block(2, sides_of(42, 2)[1], 100)]
    step = next_step(PLAN, progress_of(made))
    assert isinstance(step, Throw)
    assert (step.thrown.pair, step.thrown.kind) == (2, "far")
    for _ in range(2):
        made += [ThrownPair(2, "far", "far"), block(2, sides_of(42, 2)[0], 60), block(2, sides_of(42, 2)[1], 100)]

    assert not isinstance(next_step(PLAN, progress_of(made)), Throw)


def test_a_block_without_a_figure_is_named() -> None:
    good = block(0, "a", 100)
    bad = replace(good, answers=(*good.answers[:5], replace(good.answers[5], output_tokens=1)))
    assert lacks_figure(good, PLAN) is None
    assert "`six` gave no decode figure (1 tokens" in str(lacks_figure(bad, PLAN))
    assert len(PROMPTS) == 6
