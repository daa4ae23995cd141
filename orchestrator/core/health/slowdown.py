"""Notice that an engine that answers has become slow, by its own earlier answers and a device's figures. Pure.

Device memory that a driver pages to the host's (Windows' fallback, unified memory, another program that takes its
share) fails nothing: decoding falls to a fraction of what it was. Published: 45 to 25 tokens/s, with traffic over PCIe
17 times as high, and the memory nearly full (docs/adr/0005-silent-spill.md).

What is compared is the time of one step of the engine, so that the share of accepted drafts does not matter, with the
steps of the same instance while it was well. No step is slow because it has more to do: one step may take longer than
another in proportion to what burdens it more, its depth in the context, the tokens that it evaluates, the streams
that share it. Engines are better than that, so that this bound never alarms without a cause; with a noise of 25 %
either way, the quotient stays below 1.25 / 0.75 = 1.67.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

Kind = Literal["ok", "slow", "throttled", "spilled"]

DEPTH_FLOOR = 512
"""So many tokens of context cost a step no more than the rest of it does: its weights have to be read as well."""

LEAST_STEPS = 16
OTHER_CPU = 0.2
"""Share of the host's CPUs that other programs may take: beside more, steps tell nothing of an engine alone."""

LEAST_PROMPT_TOKENS = 256
"""Shorter prompts are one small batch, and tell nothing of longer ones."""

_SLOWING = ("thermal", "slowdown", "brake", "power")
"""Parts of the names of those reasons for lower clocks that make a device slower than it was."""


@dataclass(frozen=True, slots=True)
class SlowdownPolicy:
    """The limits at which slowness is reported.

    :param least_steps: an answer of fewer says nothing
    :param healthy_samples: answers from which an instance's own normal is known; the nearest so many are compared with
    :param window: answers that are looked at; `agree` of them decide
    :param slow_at: times the bound that is slow by itself; `spilled_at` with a device's word; `well_at`: well again
    :param near: burdens that differ by no more than this factor; farther ones cannot show that all is well
    :param full_mib: less free memory is nearly full, or less than `full_share` of the whole
    :param pcie_factor: times its own normal that traffic is high, and at least `pcie_mib_s`
    :param taken_mib: by which the memory of other programs has to grow to be the reason
    :param other_cpu: share of the host's CPUs that other programs take more than before: that explains slowness
    :param repeat_s: the same is not reported again within this time
    """

    least_steps: int = LEAST_STEPS
    healthy_samples: int = 8
    bucket: int = 12
    window: int = 5
    agree: int = 4
    slow_at: float = 2.0
    spilled_at: float = 1.7
    well_at: float = 1.4
    near: float = 1.5
    full_mib: int = 512
    full_share: float = 0.06
    pcie_factor: float = 3.0
    pcie_mib_s: float = 1000.0
    taken_mib: int = 256
    other_cpu: float = 0.2
    repeat_s: float = 600.0


@dataclass(frozen=True, slots=True)
class DeviceLook:
    """A device while an answer was decoded; what a driver does not tell is None.

    :param pcie_mib_s: both directions together
    :param others_mib: memory of other programs
    :param throttle: reasons for lower clocks, `thermal`, `power_cap`
    """

    index: int
    name: str
    used_mib: int
    total_mib: int
    pcie_mib_s: float | None = None
    others_mib: int | None = None
    throttle: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class StepSample:
    """The steps of one answer that nobody's prompt disturbed.

    :param began: when its tokens began (monotonic)
    :param step_ms: the mean
    :param depth: tokens of context, the mean
    :param width: tokens that a step evaluated: one, and the drafts
    :param tokens_per_step: that a step yielded
    :param prompt_tokens: that were computed for the answer; `prompt_ms` what they took, None where it was not said
    :param streams: answers that shared the steps, this one included
    :param looks: at the devices meanwhile; empty where none tells, or where it was too short for one
    :param other_cpu: share of the host's CPUs that other programs took meanwhile, 0 to 1
    """

    began: float
    steps: int
    step_ms: float
    depth: float
    width: float = 1.0
    streams: float = 1.0
    looks: tuple[DeviceLook, ...] = ()
    other_cpu: float | None = None
    tokens_per_step: float = 1.0
    prompt_tokens: int = 0
    prompt_ms: float | None = None


def had_machine_to_itself(sample: StepSample) -> bool:
    """Return whether an answer was long enough, and shared neither the engine nor the processors."""
    alone = sample.streams <= 1.0 and (sample.other_cpu or 0) <= OTHER_CPU
    return alone and sample.steps >= LEAST_STEPS


@dataclass(frozen=True, slots=True)
class JudgedSample:
    """:param excess: times the longest that a healthy step would have taken"""

    sample: StepSample
    excess: float


@dataclass(frozen=True, slots=True)
class SlowdownHistory:
    """The samples and verdicts of one instance so far.

    :param since: samples that began before are not judged
    :param healthy: its own normal: the first ones of each kind of burden, so that it does not follow a slow decline
    :param reported: the present verdict was reported
    :param reported_at: when each verdict was reported last, monotonic
    """

    since: float = float("-inf")
    healthy: tuple[StepSample, ...] = ()
    recent: tuple[JudgedSample, ...] = ()
    kind: Kind = "ok"
    reason: str = ""
    reported: bool = False
    reported_at: Mapping[Kind, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class SlowdownVerdict:
    """:param reason: for people; empty when all is well
    :param news: it is to be reported now
    :param taken_mib: device memory that other programs took since all was well, where that is the reason
    """

    kind: Kind
    reason: str = ""
    news: bool = False
    taken_mib: int = 0


def resume(history: SlowdownHistory, now: float) -> SlowdownHistory:
    """Nobody, or nothing, ran for a while (a suspend, a stopped process): what spans that time says nothing."""
    return replace(history, since=now, recent=())


def assess(
    history: SlowdownHistory, sample: StepSample, now: float, policy: SlowdownPolicy
) -> tuple[SlowdownHistory, SlowdownVerdict]:
    """Judge one more answer, in this order.

    1. Too short, or begun before the instance was well known to run: nothing changes.
    2. Until its normal is known, all is well.
    3. Most of the last answers were slow: throttled when a device says so; spilled when a device is nearly full and has
       far more traffic than before; else slow, unless other programs took the CPUs.
    4. Most of the last answers were as they should be: all is well again.
    """
    if sample.steps < policy.least_steps or sample.began < history.since:
        return history, SlowdownVerdict(history.kind, history.reason)

    if len(history.healthy) < policy.healthy_samples:
        return replace(history, healthy=(*history.healthy, sample)), SlowdownVerdict("ok")

    judged, near = _judge(history, sample, policy)
    if judged.excess >= policy.spilled_at or near:
        history = replace(history, recent=(*history.recent, judged)[-policy.window :])

    if history.kind == "ok" and judged.excess < policy.spilled_at:
        history = replace(history, healthy=_widened(history.healthy, sample, policy))

    kind, reason, taken_mib = _decide(history, policy)
    if kind == history.kind:
        return history, SlowdownVerdict(kind, history.reason)

    return _changed(history, kind, reason, taken_mib, now, policy)


def burden(sample: StepSample, than: StepSample) -> float:
    """The factor by which a step may take longer than another, at most, because it has more to do."""
    depth = (sample.depth + DEPTH_FLOOR) / (than.depth + DEPTH_FLOOR)
    return max(depth, 1) * max(sample.width / than.width, 1) * max(sample.streams / than.streams, 1)


def _judge(history: SlowdownHistory, sample: StepSample, policy: SlowdownPolicy) -> tuple[JudgedSample, bool]:
    """:return: also whether the answers that it is compared with had about as much to do"""

    def apart(each: StepSample) -> float:
        return burden(sample, each) * burden(each, sample)

    nearest = sorted(history.healthy, key=apart)[: policy.healthy_samples]
    bound_ms = _median(each.step_ms * burden(sample, each) for each in nearest)
    return JudgedSample(sample, sample.step_ms / bound_ms), _median(map(apart, nearest)) <= policy.near


def _widened(healthy: tuple[StepSample, ...], sample: StepSample, policy: SlowdownPolicy) -> tuple[StepSample, ...]:
    """With one more sample, where few are like it."""
    like = sum(_bucket(each) == _bucket(sample) for each in healthy)
    return (*healthy, sample) if like < policy.bucket else healthy


def _bucket(sample: StepSample) -> tuple[int, int, int]:
    """Doublings of each burden."""
    depth = int(sample.depth / DEPTH_FLOOR) + 1
    return depth.bit_length(), int(sample.width).bit_length(), int(sample.streams).bit_length()


def _decide(history: SlowdownHistory, policy: SlowdownPolicy) -> tuple[Kind, str, int]:
    late = [each for each in history.recent if each.excess >= policy.spilled_at]
    if len(late) >= policy.agree:
        samples = [each.sample for each in late]
        throttled = _throttled(history.healthy, samples)
        if throttled:
            return "throttled", f"{_how_slow(late)}; {throttled}", 0

        spilled = _spilled(history.healthy, samples, policy)
        if spilled is not None:
            return "spilled", f"{_how_slow(late)}; {spilled[0]}", spilled[1]

        usual_cpu = _median(each.other_cpu for each in history.healthy if each.other_cpu is not None)
        slow = [each for each in late if each.excess >= policy.slow_at and not _cpus_taken(each, usual_cpu, policy)]
        if history.kind == "ok" and len(slow) >= policy.agree:
            return "slow", f"{_how_slow(slow)}, and nothing that can be seen says why", 0

    if sum(each.excess < policy.well_at for each in history.recent) >= policy.agree:
        return "ok", "", 0

    return history.kind, history.reason, 0


def _cpus_taken(judged: JudgedSample, usual_cpu: float, policy: SlowdownPolicy) -> bool:
    other_cpu = judged.sample.other_cpu
    return other_cpu is not None and other_cpu >= usual_cpu + policy.other_cpu


def _throttled(healthy: Sequence[StepSample], samples: Sequence[StepSample]) -> str | None:
    """The device that lowers its clocks most of the time, and did not before, with the reason; as text."""
    for index in _devices(samples):
        before, looks = _looks(healthy, index), _looks(samples, index)
        reasons = sorted(
            {reason for look in looks for reason in look.throttle if any(map(reason.__contains__, _SLOWING))}
        )
        for reason in reasons:
            usual = 2 * sum(reason in look.throttle for look in before) > len(before)
            if 2 * sum(reason in look.throttle for look in looks) > len(looks) and not (before and usual):
                return f"GPU {index} ({looks[-1].name}) lowers its clocks: {reason.replace('_', ' ')}"

    return None


def _spilled(
    healthy: Sequence[StepSample], samples: Sequence[StepSample], policy: SlowdownPolicy
) -> tuple[str, int] | None:
    """The device that is nearly full and has far more traffic than decoding needs, as text.

    :return: also the MiB that other programs took there
    """
    for index in _devices(samples):
        before = [each.pcie_mib_s for each in _looks(healthy, index) if each.pcie_mib_s is not None]
        looks = [each for each in _looks(samples, index) if each.pcie_mib_s is not None]
        if not before or len(looks) < policy.agree // 2:
            continue

        usual = _median(before)
        high = max(policy.pcie_mib_s, policy.pcie_factor * usual)
        paging = [look for look in looks if _full(look, policy) and (look.pcie_mib_s or 0) >= high]
        if 2 * len(paging) <= len(looks):
            continue

        last = paging[-1]
        traffic = _median(each.pcie_mib_s or 0 for each in paging)
        text = (
            f"the memory of GPU {index} ({last.name}) is nearly full, {last.used_mib} of {last.total_mib} MiB, and is"
            f" paged to the host's: {traffic:.0f} MiB/s over PCIe, {usual:.0f} before"
        )
        taken_mib = _taken(_looks(healthy, index), looks)
        if taken_mib < policy.taken_mib:
            return text, 0

        return f"{text}; other programs took {taken_mib} MiB of it", taken_mib

    return None


def _full(look: DeviceLook, policy: SlowdownPolicy) -> bool:
    return look.total_mib - look.used_mib <= max(policy.full_mib, policy.full_share * look.total_mib)


def _taken(before: Sequence[DeviceLook], looks: Sequence[DeviceLook]) -> int:
    """MiB that other programs hold more than before; 0 where that is not known."""
    then, now = ([each.others_mib for each in some if each.others_mib is not None] for some in (before, looks))
    return int(_median(now) - _median(then)) if then and now else 0


def _changed(
    history: SlowdownHistory, kind: Kind, reason: str, taken_mib: int, now: float, policy: SlowdownPolicy
) -> tuple[SlowdownHistory, SlowdownVerdict]:
    if kind == "ok":
        verdict = SlowdownVerdict("ok", news=history.reported)
        return replace(history, kind="ok", reason="", reported=False, recent=()), verdict

    news = now - history.reported_at.get(kind, float("-inf")) >= policy.repeat_s
    reported_at = {**history.reported_at, kind: now} if news else history.reported_at
    reported = history.reported or news
    history = replace(history, kind=kind, reason=reason, reported=reported, reported_at=reported_at)
    return history, SlowdownVerdict(kind, reason, news, taken_mib)


def _how_slow(judged: Sequence[JudgedSample]) -> str:
    excess = _median(each.excess for each in judged)
    step_ms = _median(each.sample.step_ms for each in judged)
    return (
        f"it decodes {excess:.1f} times slower than it did ({step_ms:.3g} ms a step; {step_ms / excess:.3g} ms at most)"
    )


def _devices(samples: Iterable[StepSample]) -> list[int]:
    return sorted({look.index for sample in samples for look in sample.looks})


def _looks(samples: Iterable[StepSample], index: int) -> list[DeviceLook]:
    return [look for sample in samples for look in sample.looks if look.index == index]


def _median(values: Iterable[float]) -> float:
    """The upper one of two; 0 of none."""
    ordered = sorted(values)
    return ordered[len(ordered) // 2] if ordered else 0.0
