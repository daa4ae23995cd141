"""What a comparison is subject to: whatever differs beside what is compared, and whatever disturbed it. Pure.

Each is told. Those that may have made the difference, or hidden one, make the verdict conditional.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import exp
from typing import TypedDict

from orchestrator.core.bench.anchor import drifts
from orchestrator.core.bench.blocks import BenchPlan, BenchProgress, MeasuredBlock, estimator_blocks
from orchestrator.core.bench.estimator import Side, median
from orchestrator.core.bench.figures import clocks_agree

SIDES: tuple[Side, ...] = ("a", "b")
OTHERS_MIB = 256
"""Of other processes on a device that are worth a word: a desktop holds less of a card without one."""

LEAST_LAYER_MIB = 16
BAD_CLOCKS = 0.1
"""Share of answers whose times disagree with the client's clock that is worth a word."""

MUCH_WAITED = 0.05
"""Share of the time of answers that an engine waited for a processor that is worth a word."""

HOT = frozenset({"thermal", "hw_thermal", "hw_slowdown", "power_brake", "reliability"})
"""Reasons for lower clocks that come and go with the heat; a power limit is there all the time, and is told without
weight."""


class BenchCondition(TypedDict):
    """One condition. `weighs` says that the verdict holds under it only."""

    kind: str
    text: str
    weighs: bool


@dataclass(frozen=True, slots=True)
class BenchSide:
    """One target of a bench, as it was started.

    :param name: as it was written
    :param settings: laid over the profile
    :param model_bytes: with `model_type`, the file's declared quantisation, what tells another model
    :param layers: of the model; 0 where its header does not say
    :param all_settings: of the profile on its engine with `settings` laid over it, as text; what a request says goes
        before those of sampling. Empty for what an older orch kept
    :param verified: `right`, `wrong`, or None while nothing was verified
    """

    name: str
    profile: str
    engine: str
    build: str = ""
    sha256: str = ""
    argv: tuple[str, ...] = ()
    settings: Mapping[str, str] = field(default_factory=dict)
    model: str = ""
    model_bytes: int = 0
    model_type: str = ""
    layers: int = 0
    all_settings: Mapping[str, str] = field(default_factory=dict)
    verified: str | None = None

    @property
    def sampling(self) -> dict[str, str]:
        return {key: value for key, value in self.all_settings.items() if key.startswith("sampling.")}


def find_conditions(
    sides: Mapping[Side, BenchSide], plan: BenchPlan, progress: BenchProgress, tokens: int
) -> list[BenchCondition]:
    """Return what the result is subject to, the engines' own truth first."""
    blocks = progress.measured
    return [
        *_verification(sides),
        *_models(sides),
        *_memory(sides, blocks),
        *_devices(sides, blocks),
        *_answers(sides, blocks, tokens),
        *_course(sides, plan, progress),
    ]


def _condition(kind: str, text: str, *, weighs: bool = True) -> BenchCondition:
    return BenchCondition(kind=kind, text=text, weighs=weighs)


def _verification(sides: Mapping[Side, BenchSide]) -> Iterator[BenchCondition]:
    for name in dict.fromkeys(sides[side].name for side in SIDES):
        each = next(side for side in sides.values() if side.name == name)
        if each.verified is None:
            yield _condition("not_verified", f"nobody has verified {name} ({each.build}): `orch verify {each.engine}`")
        elif each.verified != "right":
            yield _condition("wrong", f"{name} ({each.build}) was found {each.verified}: its speed is of no use")


def _models(sides: Mapping[Side, BenchSide]) -> Iterator[BenchCondition]:
    a, b = sides["a"], sides["b"]
    if a.model_type != b.model_type:
        yield _condition(
            "quant", f"the models are quantised differently: {a.model_type or '?'} and {b.model_type or '?'}"
        )

    if a.model != b.model:
        yield _condition("model", f"the models are different files: {a.model} and {b.model}")
    elif a.model_bytes != b.model_bytes:
        yield _condition("model", "the model's file was another one for each target")

    if differ := sorted(key for key in {*a.sampling, *b.sampling} if a.sampling.get(key) != b.sampling.get(key)):
        yield _condition("sampling", f"the profiles sample differently: {', '.join(differ)}")


def _memory(sides: Mapping[Side, BenchSide], blocks: Sequence[MeasuredBlock]) -> Iterator[BenchCondition]:
    """Device memory that was really held, not what was asked for: more of a model on a card is faster."""
    held: dict[Side, float] = {}
    for side in SIDES:
        sums = [
            sum(look.engine_mib if look.engine_mib is not None else look.used_mib for look in block.devices)
            for block in blocks
            if block.side == side and block.devices
        ]
        if sums:
            held[side] = median(sums)

    if len(held) < 2:
        return

    most = max((each.model_bytes / 2**20 / each.layers for each in sides.values() if each.layers), default=0.0)
    if abs(held["a"] - held["b"]) > max(most, LEAST_LAYER_MIB):
        text = f"A held {held['a']:.0f} MiB of device memory and B {held['b']:.0f}: more than a layer apart"
        yield _condition("memory", text)


def _devices(sides: Mapping[Side, BenchSide], blocks: Sequence[MeasuredBlock]) -> Iterator[BenchCondition]:
    looks = [(block.side, look) for block in blocks for look in block.devices]
    for index in sorted({look.index for _, look in looks}):
        of = [(side, look) for side, look in looks if look.index == index]
        throttled = {side: {reason for own, look in of if own == side for reason in look.throttle} for side in SIDES}
        hot = sorted(reason for reason in throttled["a"] | throttled["b"] if reason in HOT)
        if hot:
            share = {side: sum(bool(HOT & set(look.throttle)) for own, look in of if own == side) for side in SIDES}
            text = f"device {index} was throttled ({', '.join(hot)}) in {share['a']} blocks of A and {share['b']} of B"
            yield _condition("throttled", text)

        capped = sorted((throttled["a"] | throttled["b"]) - HOT)
        if capped:
            yield _condition("limited", f"device {index} ran at a limit: {', '.join(capped)}", weighs=False)

        others = [look.others_mib for _, look in of if look.others_mib is not None]
        if others and max(others) >= OTHERS_MIB:
            yield _condition("other_processes", f"other processes held up to {max(others)} MiB of device {index}")


def _answers(sides: Mapping[Side, BenchSide], blocks: Sequence[MeasuredBlock], tokens: int) -> Iterator[BenchCondition]:
    for side in SIDES:
        name = f"{side.upper()} ({sides[side].name})"
        answers = [answer for block in blocks if block.side == side for answer in block.answers]
        cached = [each for each in answers if each.cached_tokens > 1]
        if cached:
            most = max(each.cached_tokens for each in cached)
            text = f"{name} took up to {most} tokens of {len(cached)} of {len(answers)} prompts from its cache"
            yield _condition("cache_hits", text)

        short = [each for each in answers if each.output_tokens < tokens]
        if short:
            least = min(each.output_tokens for each in short)
            count = f"{len(short)} of {len(answers)} answers"
            text = f"{name} gave fewer than the {tokens} tokens asked in {count}, once {least}"
            yield _condition("short_answers", text)

        unclear = sum(not clocks_agree(each) for each in answers)
        if answers and unclear > BAD_CLOCKS * len(answers):
            text = f"{name}: its own times disagree with the client's clock in {unclear} of {len(answers)} answers"
            yield _condition("clock", text)

        waited_s = sum(each.waited_ms or 0.0 for each in answers) / 1000
        if waited_s > MUCH_WAITED * sum(each.wall_s for each in answers):
            share = waited_s / sum(each.wall_s for each in answers)
            text = f"{name}: other programs had its processor for {100 * share:.0f} % of the time of its answers"
            yield _condition("waited", f"{text}, which `turn` leaves out", weighs=False)


def _course(sides: Mapping[Side, BenchSide], plan: BenchPlan, progress: BenchProgress) -> Iterator[BenchCondition]:
    kinds = {
        "clients": "a client's request ran",
        "interrupted": "the bench was interrupted",
        "far": "a block lay far off",
    }
    for kind in dict.fromkeys(each.kind for each in progress.thrown):
        found = [each for each in progress.thrown if each.kind == kind]
        why = kinds.get(kind, found[-1].reason)
        count = "a pair" if len(found) == 1 else f"{len(found)} pairs"
        yield _condition(f"thrown_{kind}", f"{count} of blocks thrown away and run again: {why}", weighs=kind == "far")

    for each in drifts(estimator_blocks(plan, progress.measured)):
        text = (
            f"{sides[each.side].name} changed by {100 * (exp(each.change) - 1):+.0f} % from its first block to its last"
        )
        yield _condition("drift", text)
