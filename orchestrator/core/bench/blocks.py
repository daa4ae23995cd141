"""What a bench measures next: the order of the blocks, which pairs are thrown away, and when it ends. Pure.

A bench is its plan and the list of what happened to it. Both are kept, so that it can be gone on with after any break:
whatever is next follows from them alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from hashlib import sha256
from math import exp

from orchestrator.core.bench.anchor import far_blocks
from orchestrator.core.bench.estimator import Block, Side, Verdict, look_of, verdict_at
from orchestrator.core.bench.figures import BenchAnswer, Metric, log_rate
from orchestrator.core.bench.gate import judge_speed

FAR_RERUNS = 2
"""Pairs that are run again because a block lies far from the others: what comes back is how the machine is."""


@dataclass(frozen=True, slots=True)
class BenchPlan:
    """What a bench is asked to do.

    :param prompts: names, in the order of the workload
    :param most_blocks: where it ends undecided; below 6 it has no verdict at all
    :param tolerate_slower: of a gate, which ends once it is known whether B is slower by more than this share of A's
        rate; None for a bench, which ends with a verdict
    """

    seed: int
    metric: Metric
    prompts: tuple[str, ...]
    most_blocks: int
    tolerate_slower: float | None = None


@dataclass(frozen=True, slots=True)
class BenchDevice:
    """One device, at the worst moment of a block: the most memory, each reason of throttling that was seen.

    :param engine_mib: held by orch's engine, `others_mib` by other processes; None where no driver tells
    """

    index: int
    name: str
    used_mib: int
    engine_mib: int | None = None
    others_mib: int | None = None
    throttle: tuple[str, ...] = ()
    temperature_c: float | None = None
    sm_clock_mhz: int | None = None
    memory_clock_mhz: int | None = None
    power_w: float | None = None


@dataclass(frozen=True, slots=True)
class MeasuredBlock:
    """One residency that was measured.

    :param attempt: how often the pair had been thrown away before
    :param answers: in the order in which they were measured
    :param rss_mib: memory of the engine's process on the host
    :param energy_j: of the answers, as `orch stats` knows it; None where it is not known of each
    """

    pair: int
    attempt: int
    side: Side
    started_s: float
    took_s: float
    answers: tuple[BenchAnswer, ...]
    devices: tuple[BenchDevice, ...] = ()
    rss_mib: int | None = None
    energy_j: float | None = None


@dataclass(frozen=True, slots=True)
class ThrownPair:
    """A pair that does not count.

    :param kind: `clients`, `interrupted`, `changed`, `unusable`, or `far`
    """

    pair: int
    kind: str
    reason: str


BenchEvent = MeasuredBlock | ThrownPair


@dataclass(frozen=True, slots=True)
class Measure:
    """The next block: this target, with the prompts in this order (numbers of the plan's prompts)."""

    pair: int
    attempt: int
    side: Side
    order: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Throw:
    """A pair that is to be thrown away and run again."""

    thrown: ThrownPair


@dataclass(frozen=True, slots=True)
class BenchOver:
    """The bench is over."""

    verdict: Verdict


@dataclass(frozen=True, slots=True)
class BenchProgress:
    """Where a bench is: the blocks that count, by pair, and what was thrown away."""

    pairs: tuple[tuple[MeasuredBlock, ...], ...] = ()
    thrown: tuple[ThrownPair, ...] = ()
    attempts: Mapping[int, int] = field(default_factory=dict)
    """How often each pair was thrown away."""

    @property
    def measured(self) -> tuple[MeasuredBlock, ...]:
        """The blocks of whole pairs, in the order of the pairs."""
        return tuple(block for pair in self.pairs if len(pair) == 2 for block in pair)


def add_event(progress: BenchProgress, event: BenchEvent) -> BenchProgress:
    """Return the progress after one more thing that happened."""
    pairs = list(progress.pairs)
    if isinstance(event, ThrownPair):
        if event.pair < len(pairs):
            pairs[event.pair] = ()

        attempts = {**progress.attempts, event.pair: progress.attempts.get(event.pair, 0) + 1}
        return BenchProgress(tuple(pairs), (*progress.thrown, event), attempts)

    pairs += [()] * (event.pair + 1 - len(pairs))
    pairs[event.pair] = (*pairs[event.pair], event)
    return replace(progress, pairs=tuple(pairs))


def progress_of(events: Sequence[BenchEvent]) -> BenchProgress:
    progress = BenchProgress()
    for event in events:
        progress = add_event(progress, event)

    return progress


def sides_of(seed: int, pair: int) -> tuple[Side, Side]:
    """Return the order within a pair: quads are A B B A or B A A B, drawn by the seed."""
    a_first = _digest(seed, "quad", pair // 2)[0] % 2 == pair % 2
    return ("a", "b") if a_first else ("b", "a")


def prompt_order(seed: int, pair: int, attempt: int, count: int) -> tuple[int, ...]:
    """Return the order of the prompts: the same in both blocks of a pair."""
    return tuple(sorted(range(count), key=lambda each: _digest(seed, "order", pair, attempt, each)))


def next_step(plan: BenchPlan, progress: BenchProgress) -> Measure | Throw | BenchOver:
    """Return what is next."""
    pair = next((k for k, each in enumerate(progress.pairs) if len(each) < 2), len(progress.pairs))
    done = len(progress.measured)
    if pair == len(progress.pairs):
        look = look_of(done)
        if look is not None:
            blocks = estimator_blocks(plan, progress.measured)
            reruns = sum(each.kind == "far" for each in progress.thrown)
            if reruns < FAR_RERUNS and (far := far_blocks(blocks)):
                text = f"block {far[0].index + 1} lies {_percent(far[0].distance)} from the others of its target"
                return Throw(ThrownPair(far[0].index // 2, "far", text))

            verdict = verdict_at(blocks, look.level)
            if _is_answered(plan, blocks, verdict) or done >= plan.most_blocks:
                return BenchOver(verdict)

        if done >= plan.most_blocks:
            return BenchOver("undecided")

    attempt = progress.attempts.get(pair, 0)
    half = progress.pairs[pair] if pair < len(progress.pairs) else ()
    side = sides_of(plan.seed, pair)[len(half)]
    return Measure(pair, attempt, side, prompt_order(plan.seed, pair, attempt, len(plan.prompts)))


def _is_answered(plan: BenchPlan, blocks: Sequence[Block], verdict: Verdict) -> bool:
    if plan.tolerate_slower is None:
        return verdict != "undecided"

    return judge_speed(blocks, plan.tolerate_slower, plan.most_blocks) != "unknown"


def estimator_blocks(plan: BenchPlan, blocks: Sequence[MeasuredBlock]) -> list[Block]:
    """Return the logarithms of the plan's metric, each block's in the order of the plan's prompts."""
    return [Block(block.side, tuple(_logs(block, plan)[name] for name in plan.prompts)) for block in blocks]


def lacks_figure(block: MeasuredBlock, plan: BenchPlan) -> str | None:
    """Return the prompt that gave no rate, and why; None for a block that can be used."""
    for answer in block.answers:
        if log_rate(answer, plan.metric) is None:
            return f"`{answer.prompt}` gave no {plan.metric} figure ({answer.output_tokens} tokens were generated)"

    return None


def _logs(block: MeasuredBlock, plan: BenchPlan) -> dict[str, float]:
    return {each.prompt: value for each in block.answers if (value := log_rate(each, plan.metric)) is not None}


def _digest(*parts: object) -> bytes:
    return sha256("/".join(map(str, parts)).encode()).digest()


def _percent(logarithm: float) -> str:
    return f"{100 * (exp(logarithm) - 1):+.0f} %"
