"""How good what `orch tune` finds is, on simulated machines: regret, deaths, and improvements that are none.

    python -m benchmarks.tune_simulation [--machines 100] [--starts 20] [--seed 1]

A machine is a card of 8 to 16 GB with a mixture of experts of 35 B (3 B active) partly in host memory, drawn at random;
its true turn time is known for each of 1008 settings, and a margin below what it hides dies. The tuner's own search
(`core/tune`) and confirmation (`core/bench`) run on it, over the noise of `benchmarks/bench_simulation.py`.
"""

from __future__ import annotations

import argparse
import functools
import random
from dataclasses import dataclass
from math import exp, log
from statistics import median

from benchmarks.bench_simulation import NOISES, Noise, one_run
from orchestrator.core.tune.search import TuneStart, TuneTrial, next_start
from orchestrator.core.tune.space import Axis, AxisChoice, Point, Space

PROMPTS = 6
MARGINS = (2048, 1536, 1024, 768, 512, 256)
DRAFTS = (0, 1, 2, 3, 4, 6)
P_MIN = (0.0, 0.4, 0.6, 0.75)
UBATCHES = (256, 512, 1024, 2048)
KV = ("f16", "q8_0")

EXPERTS_GB = 17.4
REST_GB = 1.1
EXPERT_TOKEN_GB = EXPERTS_GB * 8 / 256
LAYERS = 40


def card_space() -> Space:
    """Return the axes of the simulated card; the current settings are margin 1024, no drafts, micro-batch 512, f16."""

    def axis(name: str, kind: str, values: tuple[object, ...], current: int, muting: str = "") -> Axis:
        choices = tuple(
            AxisChoice(str(each), ((name, str(each)),), ("p_min",) if muting and not each else ()) for each in values
        )
        return Axis(name, kind, choices, current, planned=True)  # type: ignore[arg-type]

    return Space(
        (
            axis("draft_max", "drafts", DRAFTS, 0, "p_min"),
            axis("ubatch", "speed", UBATCHES, 1),
            axis("kv", "quality", KV, 0),
            axis("margin", "memory", MARGINS, 2),
            axis("p_min", "speed", P_MIN, 0),
        )
    )


@dataclass
class Card:
    """One machine, and what is true of it."""

    chance: random.Random
    flat: bool = False

    def __post_init__(self) -> None:
        draw = self.chance.uniform
        self.vram_gb: float = draw(8, 16)
        self.ram_gb_s: float = draw(30, 70)
        self.vram_gb_s: float = draw(280, 700)
        self.pcie_gb_s: float = draw(10, 24)
        self.fixed_ms: float = draw(3.5, 6)
        self.acceptance: float = draw(0.55, 0.9)
        self.context = self.chance.choice((32768, 65536, 131072))
        self.prompt = int(exp(draw(log(1024), log(16384))))
        self.answer = 500
        self.taken_gb: float = draw(0.3, 0.9)
        self.hidden_mib: float = draw(150, 900)
        self.compute_tok_s: float = draw(1500, 4000)

    def turn_s(self, point: Point) -> float | None:
        """Return the true time of a turn; None where it dies."""
        if self.flat:
            return 10.0

        drafts, ubatch, kv, margin, p_min = (
            DRAFTS[point[0]], UBATCHES[point[1]], KV[point[2]], MARGINS[point[3]], P_MIN[point[4]],
        )  # fmt: skip
        need_mib = self.hidden_mib + (120 if drafts else 0) + 0.08 * ubatch
        if margin < need_mib:
            return None

        kv_gb = self.context * 20480 / 1e9 * (1 if kv == "f16" else 0.53)
        compute_gb = 0.25 + ubatch * 0.00085
        head_gb = 0.45 if drafts else 0.0
        room = self.vram_gb - self.taken_gb - margin / 1024 - REST_GB - kv_gb - compute_gb - head_gb
        on_card = min(max(room / EXPERTS_GB, 0.0), 1.0)
        if room < 0:
            return None

        width, gained, passes = self._drafted(drafts, p_min)
        distinct = 256 * (1 - (1 - 8 / 256) ** width) / 8
        experts = EXPERT_TOKEN_GB * distinct
        depth_gb = self.prompt * 20480 / 1e9 * (1 if kv == "f16" else 0.6)
        step_ms = (
            self.fixed_ms * (1 + 0.05 * (width - 1))
            + 1000 * (REST_GB + depth_gb + experts * on_card) / self.vram_gb_s
            + 1000 * experts * (1 - on_card) / self.ram_gb_s
            + 0.03 * LAYERS * (1 - on_card)
            + passes * (0.35 * self.fixed_ms / 2 + 0.3)
        )
        decode_s = self.answer / gained * step_ms / 1000
        batches = self.prompt / ubatch
        prompt_s = batches * EXPERTS_GB * (1 - on_card) / self.pcie_gb_s + self.prompt / (
            self.compute_tok_s * (1 - 0.35 * exp(-ubatch / 400))
        )
        turn_s: float = decode_s + prompt_s
        return turn_s

    def _drafted(self, most: int, p_min: float) -> tuple[float, float, float]:
        """Return the tokens that a step evaluates and yields, and the passes of the drafter."""
        if not most:
            return 1.0, 1.0, 0.0

        keep = 1 - 0.45 * p_min
        right = min(self.acceptance + (1 - self.acceptance) * 0.6 * p_min, 0.97)
        width = gained = 1.0
        going, passes = 1.0, 0.0
        alive = 1.0
        for _ in range(most):
            passes += going
            going *= keep if p_min else 1.0
            alive *= right
            width += going
            gained += going * alive
        return width, gained, passes


def measured(chance: random.Random, noise: Noise, levels: list[float], card: Card, point: Point) -> TuneTrial:
    time = card.turn_s(point)
    if time is None:
        return TuneTrial(point, "died", reason="out of device memory")

    shared = chance.gauss(0, noise.block)
    logs = tuple(
        level
        - log(time)
        + shared
        + chance.gauss(0, noise.request)
        - (chance.expovariate(1 / 0.08) if chance.random() < noise.slow else 0.0)
        for level in levels
    )
    return TuneTrial(point, "measured", logs)


@dataclass(frozen=True)
class Result:
    """What became of one machine.

    :param regret: of what was saved against the best settings that live, a share of time
    """

    regret: float
    proposed_regret: float
    starts: int
    deaths: int
    saved: bool
    saved_dies: bool
    claimed: float
    true_gain: float
    default_dies: bool


def tune_one(
    seed: str, noise: Noise, starts: int, *, flat: bool = False, forecast_error: float | None = 0.05
) -> Result:
    chance = random.Random(seed)
    card, space = Card(chance, flat), card_space()
    levels = [chance.gauss(0, 0.15) for _ in range(PROMPTS)]
    wrong = [[chance.gauss(0, forecast_error or 0.0) for _ in axis.choices] for axis in space.axes]

    @functools.cache
    def forecast(point: Point) -> float | None:
        """As the planner would have it: it does not know what the machine hides, and errs on each axis."""
        if forecast_error is None:
            return 0.0

        hidden = card.hidden_mib
        card.hidden_mib = 150.0
        time = card.turn_s(point)
        card.hidden_mib = hidden
        return None if time is None else -log(time) + sum(wrong[k][at] for k, at in enumerate(point))

    trials: list[TuneTrial] = []
    while isinstance(step := next_start(space, trials, forecast, starts), TuneStart):
        trials.append(measured(chance, noise, levels, card, step.point))

    alive = [time for point in space.planned_points(space.current) if (time := card.turn_s(point)) is not None]
    best, was = min(alive), card.turn_s(space.current)
    now = card.turn_s(step.point)
    differs = step.point != space.current
    gain = log(was / now) if was is not None and now is not None else 0.0
    saved = differs and (was is None or one_run(chance, noise, gain, PROMPTS)[0] == "b_faster")
    final = now if saved else was
    return Result(
        regret=(final / best - 1) if final is not None else float("inf"),
        proposed_regret=(now / best - 1) if now is not None else float("inf"),
        starts=len(trials),
        deaths=sum(each.outcome == "died" for each in trials),
        saved=saved,
        saved_dies=saved and now is None,
        claimed=step.claimed or 0.0,
        true_gain=gain,
        default_dies=was is None,
    )


def percentile(values: list[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(int(share * len(ordered)), len(ordered) - 1)]


def told(found: list[Result]) -> str:
    """Return a line about machines whose settings differ."""
    regrets = [each.regret for each in found]
    count = len(found)
    alive = [each for each in found if not each.default_dies]
    more = sum(each.claimed - each.true_gain for each in alive) / max(1, len(alive))
    return (
        f"regret median {100 * median(regrets):.1f} % p90 {100 * percentile(regrets, 0.9):.1f} %, "
        f"starts {sum(each.starts for each in found) / count:.1f}, "
        f"deaths {sum(each.deaths for each in found) / count:.1f}, "
        f"saved {sum(each.saved for each in found) / count:.0%}, "
        f"dead ones saved {sum(each.saved_dies for each in found)}, "
        f"claimed less true {100 * more:+.1f} %"
    )


def told_flat(found: list[Result]) -> str:
    """Return a line about machines on which all settings are the same."""
    count = len(found)
    return (
        f"flat: claimed {100 * sum(each.claimed for each in found) / count:.1f} %, "
        f"proposed in {sum(each.claimed > 0 for each in found) / count:.0%}, "
        f"saved in {sum(each.saved for each in found) / count:.1%}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--machines", type=int, default=100)
    parser.add_argument("--starts", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    for noise in NOISES:
        seed, numbers = f"{options.seed} {noise.name}", range(options.machines)
        for name, error in (("forecast", 0.05), ("no forecast", None)):
            found = [tune_one(f"{seed} {k}", noise, options.starts, forecast_error=error) for k in numbers]
            print(f"{noise.name:8} {name:11} {told(found)}", flush=True)

        flat = [
            tune_one(f"{seed} flat {k}", noise, options.starts, flat=True, forecast_error=None)
            for k in range(4 * options.machines)
        ]
        print(f"{noise.name:8} {told_flat(flat)}", flush=True)


if __name__ == "__main__":
    main()
