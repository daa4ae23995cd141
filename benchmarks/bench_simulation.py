"""How often `orch bench` errs, by simulation: coverage of its interval, false differences, power, and blocks needed.

    python -m benchmarks.bench_simulation [--runs 2000] [--seed 1]

A request's log rate is the sum of: the prompt's level; what the target makes of this prompt (sd 3 %, fixed within a
bench, with mean 0, as the set of prompts is fixed); the block's own effect; noise; in one of ten requests a slow-down
(exponential, mean 8 %); drift (a warm-up that decays over 4 minutes, and a random walk from block to block).
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import exp, log

from orchestrator.core.bench.anchor import far_blocks
from orchestrator.core.bench.estimator import LOOKS, Block, Side, estimate, level_of, verdict_at
from orchestrator.core.bench.gate import PASSES, judge_speed

BLOCK_S = 19.0
WARM_UP_S = 240.0
FAR_RERUNS = 2


@dataclass(frozen=True, slots=True)
class Noise:
    name: str
    request: float
    block: float
    slow: float
    """Share of requests with a slow-down."""
    warm_up: tuple[float, float]
    walk: float
    """Standard deviation of the random walk's step from block to block."""


NOISES = (
    Noise("calm", 0.01, 0.003, 0.0, (0.0, 0.04), 0.0005),
    Noise("typical", 0.02, 0.007, 0.1, (0.0, 0.04), 0.001),
    Noise("rough", 0.03, 0.015, 0.1, (0.04, 0.06), 0.003),
)
BUSY = Noise("busy", 0.05, 0.04, 0.3, (0.04, 0.06), 0.01)
"""A real engine with other work on its processors, its waits taken off: a gate's interval is 4 to 5 % to a side."""


def sides(chance: random.Random) -> Iterator[Side]:
    while True:
        quad: tuple[Side, ...] = ("a", "b", "b", "a") if chance.random() < 0.5 else ("b", "a", "a", "b")
        yield from quad


def simulated_blocks(chance: random.Random, noise: Noise, effect: float, prompts: int) -> Iterator[Block]:
    """Yield the blocks of one bench of which B is faster by `effect`, a logarithm."""
    level = [chance.gauss(4.6, 0.15) for _ in range(prompts)]
    own = [chance.gauss(0, 0.03) for _ in range(prompts)]
    own = [value - sum(own) / prompts for value in own]
    warm_up, walk = chance.uniform(*noise.warm_up), 0.0
    for k, side in enumerate(sides(chance)):
        walk += chance.gauss(0, noise.walk)
        shared = chance.gauss(0, noise.block) + walk + warm_up * exp(-k * BLOCK_S / WARM_UP_S)
        yield Block(
            side,
            tuple(
                level[p]
                + (effect + own[p] if side == "b" else 0.0)
                + shared
                + chance.gauss(0, noise.request)
                - (chance.expovariate(1 / 0.08) if chance.random() < noise.slow else 0.0)
                for p in range(prompts)
            ),
        )


def one_fixed(chance: random.Random, noise: Noise, effect: float, size: tuple[int, int]) -> tuple[bool, bool, float]:
    """Return whether the 95 % interval holds the truth, whether it excludes 0, and its half width."""
    made = simulated_blocks(chance, noise, effect, size[1])
    found = estimate([next(made) for _ in range(size[0])], 0.05)
    assert found is not None
    return found.low <= effect <= found.high, found.low > 0 or found.high < 0, (found.high - found.low) / 2


def looked_at(
    chance: random.Random, noise: Noise, effect: float, prompts: int, is_over: Callable[[list[Block], float], bool]
) -> list[Block]:
    """Return the blocks of a whole bench: it looks after 6, 10 and 16 blocks, and runs pairs with far blocks again.

    :param is_over: from the blocks and the level of a look: whether it ends there
    """
    made, rerun = simulated_blocks(chance, noise, effect, prompts), 0
    blocks: list[Block] = []
    for look in LOOKS:
        while len(blocks) < look.blocks:
            blocks.append(next(made))
        while rerun < FAR_RERUNS and (far := far_blocks(blocks)):
            rerun += 1
            at = far[0].index // 2 * 2
            del blocks[at : at + 2]
            blocks += [next(made), next(made)]
            # The pairs of the simulation are those of its quads, and so stay pairs.

        if is_over(blocks, look.level):
            break

    return blocks


def one_run(chance: random.Random, noise: Noise, effect: float, prompts: int) -> tuple[str, int, bool]:
    """Return the verdict and the blocks of a whole bench, and whether the interval that it shows holds the truth."""
    blocks = looked_at(chance, noise, effect, prompts, lambda made, level: verdict_at(made, level) != "undecided")
    shown = estimate(blocks, level_of(len(blocks)))
    assert shown is not None
    return verdict_at(blocks, level_of(len(blocks))), len(blocks), shown.low <= effect <= shown.high


def one_gate(chance: random.Random, noise: Noise, effect: float, tolerate_slower: float) -> tuple[str, int]:
    """Return what a gate says of a new build, and its blocks."""
    most = LOOKS[-1].blocks
    blocks = looked_at(chance, noise, effect, 6, lambda made, _: judge_speed(made, tolerate_slower, most) != "unknown")
    return judge_speed(blocks, tolerate_slower, most), len(blocks)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--runs", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--tolerate", type=float, default=0.03, help="share that a new build may be slower by")
    options = parser.parse_args()

    print(f"95 % interval at a fixed number of blocks, {options.runs} runs a cell, seed {options.seed}")
    for size in ((4, 6), (6, 6), (10, 6), (10, 12), (16, 6)):
        for noise in NOISES:
            cells = []
            for percent in (0, 2, 5, 10):
                chance = random.Random(f"{options.seed} {size} {noise.name} {percent}")
                cells.append([one_fixed(chance, noise, log(1 + percent / 100), size) for _ in range(options.runs)])

            covered = [sum(hit for hit, _, _ in runs) / options.runs for runs in cells]
            beyond = [sum(out for _, out, _ in runs) / options.runs for runs in cells]
            half = sum(width for _, _, width in cells[0]) / options.runs
            print(
                f"  {size[0]:2} x {size[1]:2} {noise.name:8} coverage {covered[0]:.3f}  false {beyond[0]:.3f}  "
                f"power 2/5/10 % {beyond[1]:.2f} {beyond[2]:.2f} {beyond[3]:.2f}  half width {100 * half:.1f} %"
            )

    print("a bench with its looks at 6, 10 and 16 blocks")
    for noise in NOISES:
        for percent in (0, 2, 5, 10):
            chance = random.Random(f"{options.seed} looks {noise.name} {percent}")
            ended = [one_run(chance, noise, log(1 + percent / 100), 6) for _ in range(options.runs)]
            share = {
                verdict: sum(each == verdict for each, _, _ in ended) / options.runs
                for verdict in ("b_faster", "a_faster", "same", "undecided")
            }
            text = "  ".join(f"{verdict} {value:.3f}" for verdict, value in share.items())
            held = sum(hit for *_, hit in ended) / options.runs
            used = sum(n for _, n, _ in ended) / options.runs
            print(f"  {noise.name:8} truth {percent:2} %  {text}  interval holds it {held:.3f}  blocks {used:.1f}")

    print(f"a gate that tolerates {options.tolerate:.0%}")
    for noise in (*NOISES, BUSY):
        for slower in (0, -1.5, -5, -8, -12):
            chance = random.Random(f"{options.seed} gate {noise.name} {slower}")
            judged = [one_gate(chance, noise, log(1 + slower / 100), options.tolerate) for _ in range(options.runs)]
            passed = sum(speed in PASSES for speed, _ in judged) / options.runs
            open_end = sum(speed.startswith("probably") for speed, _ in judged) / options.runs
            used = sum(n for _, n in judged) / options.runs
            print(
                f"  {noise.name:8} truth {slower:4} %  made current {passed:.4f}  by the estimate {open_end:.3f}  "
                f"blocks {used:.1f}"
            )


if __name__ == "__main__":
    main()
