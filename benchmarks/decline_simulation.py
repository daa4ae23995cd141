"""How often orch tells of a profile that has become slower, by simulation: wrongly, and how soon rightly.

    python -m benchmarks.decline_simulation [--runs 1000] [--seed 1]

A history is a row of marks: each the median of 8 to 64 answers of one start, with the noise of the bench's simulation
for each answer: text and request, slow-downs, what this start has of its own, warm-up, a walk while it runs. In every
history something known changes at one start in ten (a kernel, say), which has no effect.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Sequence
from math import exp, log

from benchmarks.bench_simulation import BLOCK_S, NOISES, WARM_UP_S, Noise
from orchestrator.core.bench.estimator import interval_of, median
from orchestrator.core.course.decline import find_decline
from orchestrator.core.course.marks import Circumstances, SpeedMark

BETWEEN_S = 60.0
TEXTS = 0.03
CHANGES = 0.1
ANSWERS = (8, 16, 16, 32, 32, 64)
DAY_S = 86400.0
BEFORE = 12
"""Marks before something becomes slower."""


def simulated_mark(chance: random.Random, noise: Noise, day: int, kernel: str, slower: float) -> SpeedMark:
    """Return the mark of one start: 100 steps a second, less `slower`, a logarithm."""
    own, walk, at_s = chance.gauss(0, noise.block), 0.0, 0.0
    warm_up = chance.uniform(*noise.warm_up)
    steps_ms, answers = [], chance.choice(ANSWERS)
    for _ in range(answers):
        at_s += chance.expovariate(1 / BETWEEN_S)
        walk += chance.gauss(0, noise.walk)
        rate = own + walk + chance.gauss(0, TEXTS) + chance.gauss(0, noise.request) - slower
        rate += warm_up * exp(-at_s / WARM_UP_S)
        if chance.random() < noise.slow:
            rate -= chance.expovariate(1 / 0.08)

        steps_ms.append(10 * exp(-rate))

    step_ms = median(steps_ms)
    rate = 1000 / step_ms
    circumstances = Circumstances("b1", "m", {}, "card", "550.1", kernel)
    return SpeedMark(day * DAY_S, "p", "e", "answers", circumstances, answers, rate, rate, rate, step_ms)


def healthy_history(chance: random.Random, noise: Noise, count: int) -> list[SpeedMark]:
    """Return marks of a profile that never becomes slower, while its kernel changes now and then."""
    kernel, marks = 0, []
    for day in range(count):
        kernel += chance.random() < CHANGES
        marks.append(simulated_mark(chance, noise, day, str(kernel), 0.0))

    return marks


def slower_history(chance: random.Random, noise: Noise, count: int, slower: float, *, changed: bool) -> list[SpeedMark]:
    """Return marks of a profile that is slower by this share from the twelfth on.

    :param changed: its kernel is another one from then on
    """
    return [
        simulated_mark(
            chance, noise, day, str(int(changed and day >= BEFORE)), -log(1 - slower) if day >= BEFORE else 0.0
        )
        for day in range(count)
    ]


def drifting_history(
    chance: random.Random, noise: Noise, count: int, slower: float, changes_every: int
) -> list[SpeedMark]:
    """Return marks of a profile that becomes slower by the same share each day, by this much in sum.

    :param changes_every: marks after which the kernel is another one
    """
    return [
        simulated_mark(chance, noise, day, str(day // changes_every), -log(1 - slower) * day / count)
        for day in range(count)
    ]


def healthy_benches(chance: random.Random, noise: Noise, count: int) -> list[SpeedMark]:
    """Return marks of benches of eight blocks of six answers, of a profile that never becomes slower."""
    kernel, marks = 0, []
    for day in range(count):
        kernel += chance.random() < CHANGES
        warm_up, walk, blocks = chance.uniform(*noise.warm_up), 0.0, []
        for block in range(8):
            walk += chance.gauss(0, noise.walk)
            shared = chance.gauss(0, noise.block) + walk + warm_up * exp(-2 * block * BLOCK_S / WARM_UP_S)
            slow = sum(chance.expovariate(1 / 0.08) for _ in range(6) if chance.random() < noise.slow)
            blocks.append(shared + (sum(chance.gauss(0, noise.request) for _ in range(6)) - slow) / 6)

        mean, half = interval_of(blocks, 0.05)
        circumstances = Circumstances("b1", "m", {}, "card", "550.1", str(kernel))
        rate = 100 * exp(mean)
        marks.append(
            SpeedMark(
                day * DAY_S, "p", "e", "chat", circumstances, 48, rate, rate * exp(-half), rate * exp(half), 10.0,
                bench=day,
            )
        )  # fmt: skip

    return marks


def told_at(marks: Sequence[SpeedMark]) -> int | None:
    """Return after how many marks a decline was told first."""
    return next((count for count in range(1, len(marks) + 1) if find_decline(marks[:count]) is not None), None)


def answers_until_told(marks: Sequence[SpeedMark]) -> int | None:
    """Return how many answers were slow before that was told."""
    told = told_at(marks)
    return None if told is None else sum(mark.answers for mark in marks[BEFORE:told])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    print("noise    told in healthy histories of 60 marks; drift of 15 % found: unchanged, changes; told in 20 benches")
    for noise in NOISES:
        chance = random.Random(args.seed)
        alarms = sum(told_at(healthy_history(chance, noise, 60)) is not None for _ in range(args.runs))
        shares = []
        for changes_every in (60, 3):
            drifts = [drifting_history(chance, noise, 60, 0.15, changes_every) for _ in range(args.runs // 10)]
            shares.append(sum(told_at(marks) is not None for marks in drifts) / len(drifts))

        of_benches = sum(told_at(healthy_benches(chance, noise, 20)) is not None for _ in range(args.runs)) / args.runs
        figures = f"{alarms / args.runs:.3f}  {shares[0]:.2f}  {shares[1]:.2f}  {of_benches:.3f}"
        print(f"{noise.name:8} {figures}", flush=True)

    print("noise    slower  something changed  found within 30 marks; answers until told: median, p90")
    for noise in NOISES:
        for slower in (0.05, 0.1, 0.2):
            for changed in (True, False):
                chance = random.Random(args.seed)
                runs = args.runs // 4
                histories = [slower_history(chance, noise, BEFORE + 30, slower, changed=changed) for _ in range(runs)]
                found = sorted(each for each in map(answers_until_told, histories) if each is not None)
                ranks = [*map(str, found), *["-"] * (runs - len(found))]
                figures = f"{len(found) / runs:.3f}; {ranks[runs // 2]}, {ranks[runs * 9 // 10]}"
                print(f"{noise.name:8} {slower:.0%}  {'yes' if changed else 'no '}  {figures}", flush=True)


if __name__ == "__main__":
    main()
