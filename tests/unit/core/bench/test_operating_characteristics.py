"""How often the whole protocol errs, by a short simulation: `benchmarks/bench_simulation.py` has the long one."""

from __future__ import annotations

import random
from math import log

import pytest

from benchmarks.bench_simulation import NOISES, one_gate, one_run
from orchestrator.core.bench.gate import PASSES

RUNS = 250


@pytest.mark.parametrize("noise", NOISES, ids=lambda each: each.name)
def test_equal_targets_are_seldom_called_different(noise: object) -> None:
    chance = random.Random(5)
    found = [one_run(chance, next(each for each in NOISES if each is noise), 0.0, 6) for _ in range(RUNS)]
    # 5.5 % and three standard errors of so few runs.
    assert sum(verdict.endswith("faster") for verdict, *_ in found) <= 0.055 * RUNS + 3 * (0.055 * 0.945 * RUNS) ** 0.5
    assert sum(held for *_, held in found) >= 0.94 * RUNS - 3 * (0.94 * 0.06 * RUNS) ** 0.5


def test_five_percent_are_found_and_never_the_wrong_way_round() -> None:
    chance = random.Random(6)
    found = [one_run(chance, NOISES[1], log(1.05), 6)[0] for _ in range(RUNS)]
    assert found.count("b_faster") >= 0.97 * RUNS
    assert found.count("a_faster") == 0


@pytest.mark.parametrize("noise", range(len(NOISES)), ids=lambda each: NOISES[each].name)
def test_a_gate_passes_a_build_as_fast_and_none_that_is_eight_percent_slower(noise: int) -> None:
    chance = random.Random(7)
    equal = [one_gate(chance, NOISES[noise], 0.0, 0.03)[0] for _ in range(RUNS)]
    slower = [one_gate(chance, NOISES[noise], log(0.92), 0.03)[0] for _ in range(RUNS)]
    # The long simulation passes 0.994 at the roughest, and 0.000 of the slower ones.
    assert sum(speed in PASSES for speed in equal) >= 0.97 * RUNS
    assert sum(speed in PASSES for speed in slower) <= 0.01 * RUNS
