"""The energy that a device used between two samples, with requests at work and without. Pure.

A counter of the device is believed first: NVML's total energy (nvmlDeviceGetTotalEnergyConsumption, mJ since the driver
was loaded) or RAPL's (`energy_uj`, Documentation/power/powercap/powercap.rst of the kernel). A counter that fell is a
driver that was loaded again, or a machine that slept: that interval is integrated from the power at its two ends, as
are all intervals of a device without a counter. What neither tells is unknown.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

MAX_BUSY_S = 3.0
MAX_IDLE_S = 15.0
"""A longer time is not bridged by the power at its ends, s. With requests at work there is a sample each second,
without them one each ten (`daemon/telemetry/pace.py`)."""

MAX_WRAP_S = 60.0
"""Over a longer time a counter that wraps may have wrapped twice: RAPL's 262 kJ last 15 minutes at 300 W, and some
machines' 65 kJ four."""

SLEPT_S = 1.0
"""A machine that slept for longer may have begun such a counter anew, which looks as if it had wrapped."""

MAX_W = 3000.0
"""More than any device draws: its counter is another one than at the sample before."""

UPDATE_S = 0.2
"""Counters move in steps, NVML's of a tenth of a second: two close samples may see more than the time between them."""

Span = tuple[float, float]
"""Begin and end of a request at its engine, monotonic, s."""


@dataclass(frozen=True, slots=True)
class EnergySample:
    """What a device told at one moment; None for what it does not tell.

    :param at_s: monotonic time, which stands still while the machine sleeps
    :param boot_s: time since the boot, which does not
    :param counter_j: its count of energy, J
    :param wraps_at_j: where that count begins again at 0, J; None where it does not
    :param power_w: what it draws
    """

    at_s: float
    boot_s: float
    counter_j: float | None = None
    power_w: float | None = None
    wraps_at_j: float | None = None


@dataclass(frozen=True, slots=True)
class DeviceActivity:
    """Which requests were at work between two samples.

    :param span_s: between the samples
    :param busy_s: the part of it in which a request was at work
    :param busy_first: one was at work at the first sample
    :param busy_last: one was at work at the last
    :param shares_s: the part of `busy_s` of each request: each moment is shared equally by those at work in it
    """

    span_s: float
    busy_s: float
    busy_first: bool
    busy_last: bool
    shares_s: Mapping[int, float]

    @property
    def idle_s(self) -> float:
        """The part of the span in which no request was at work."""
        return max(self.span_s - self.busy_s, 0.0)


@dataclass(frozen=True, slots=True)
class IntervalEnergy:
    """The energy of an interval, J; None where it is unknown, 0 where there was no such time."""

    busy_j: float | None
    idle_j: float | None


def activity_between(first_s: float, last_s: float, requests: Mapping[int, Span]) -> DeviceActivity:
    """Return in which part of the time between two samples requests were at work, and what part is whose.

    Requests at work together share it by time: an engine computes them in one batch, and what each has of a step's
    energy is not told; tokens are counted at a request's end alone, and one of a prompt costs another energy than one
    of an answer.
    """
    clipped = {each: (max(begin, first_s), min(end, last_s)) for each, (begin, end) in requests.items()}
    clipped = {each: (begin, end) for each, (begin, end) in clipped.items() if begin < end}
    change: Counter[float] = Counter()
    for begin, end in clipped.values():
        change[begin] += 1
        change[end] -= 1

    shared_s = busy_s = 0.0
    at_work, last_edge_s = 0, first_s
    shared_until: dict[float, float] = {}
    for edge_s in sorted(change):
        if at_work:
            busy_s += edge_s - last_edge_s
            shared_s += (edge_s - last_edge_s) / at_work

        shared_until[edge_s] = shared_s
        at_work += change[edge_s]
        last_edge_s = edge_s

    return DeviceActivity(
        span_s=last_s - first_s,
        busy_s=busy_s,
        busy_first=any(begin <= first_s for begin, _ in clipped.values()),
        busy_last=any(end >= last_s for _, end in clipped.values()),
        shares_s={each: shared_until[end] - shared_until[begin] for each, (begin, end) in clipped.items()},
    )


def energy_between(
    first: EnergySample, last: EnergySample, activity: DeviceActivity, idle_w: float | None = None
) -> IntervalEnergy:
    """Return the energy between two samples of a device, divided into busy and idle time.

    :param idle_w: what the device drew when no request was at work last; None when that was never seen
    """
    rise_j = _counter_rise(first, last)
    if rise_j is not None:
        return _divided(rise_j, activity, idle_w)

    busy_s, idle_s = activity.busy_s, activity.idle_s
    slept_s = max(last.boot_s - first.boot_s - activity.span_s, 0.0)
    ends = ((first.power_w, activity.busy_first), (last.power_w, activity.busy_last))
    busy_w, idle_ends_w = (_mean([power for power, busy in ends if busy is wanted]) for wanted in (True, False))
    idle_w = idle_ends_w if not (activity.busy_first and activity.busy_last) else idle_w
    return IntervalEnergy(
        _bridged(busy_w, busy_s, busy_s + slept_s, MAX_BUSY_S), _bridged(idle_w, idle_s, idle_s + slept_s, MAX_IDLE_S)
    )


def _counter_rise(first: EnergySample, last: EnergySample) -> float | None:
    """Return the joules that the counter counted; None without one, and when it began anew."""
    if first.counter_j is None or last.counter_j is None:
        return None

    rise_j, passed_s = last.counter_j - first.counter_j, last.boot_s - first.boot_s
    if last.wraps_at_j is not None:
        slept = passed_s - (last.at_s - first.at_s) > SLEPT_S
        if slept or passed_s > MAX_WRAP_S:
            return None

        rise_j += last.wraps_at_j if rise_j < 0 else 0.0

    return rise_j if 0 <= rise_j <= MAX_W * (passed_s + UPDATE_S) else None


def _divided(total_j: float, activity: DeviceActivity, idle_w: float | None) -> IntervalEnergy:
    """Divide what a counter counted: idle time takes what the device drew when idle, or its share of the time."""
    if not activity.busy_s:
        return IntervalEnergy(0.0, total_j)

    if not activity.idle_s:
        return IntervalEnergy(total_j, 0.0)

    idle_j = total_j * activity.idle_s / activity.span_s if idle_w is None else min(idle_w * activity.idle_s, total_j)
    return IntervalEnergy(total_j - idle_j, idle_j)


def _bridged(power_w: float | None, time_s: float, gap_s: float, most_s: float) -> float | None:
    """Return power times time, the trapezoid between two samples; None over a gap, or when the power is unknown.

    :param power_w: the mean of both ends
    :param gap_s: the time with the machine's sleep in it
    """
    if not time_s:
        return 0.0

    return None if power_w is None or gap_s > most_s else power_w * time_s


def _mean(values: list[float | None]) -> float | None:
    """Return the mean; None without a value, or with one that is unknown."""
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known and len(known) == len(values) else None
