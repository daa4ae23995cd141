"""Whose energy it is: what devices used between two samples, shared out to requests and loaded models. Pure.

Busy energy belongs to the requests that were at work on the device; idle energy, kept apart, to the models that are
loaded on it, in equal parts: what a device draws with nothing to do hardly depends on how much lies in its memory. A
model on several devices has the sum. Where one of them does not tell, the whole is unknown. A device is measured as a
whole: a game or a desktop that uses it as well is counted with the model.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field

from orchestrator.core.energy.intervals import (
    DeviceActivity,
    EnergySample,
    IntervalEnergy,
    Span,
    activity_between,
    energy_between,
)

Pair = tuple[str, str]
"""Profile and engine; empty strings for a request that never got to one."""

BASELINE_S = 0.5
"""What an idle device draws is not told by a shorter interval."""


@dataclass(frozen=True, slots=True)
class RequestAtWork:
    """A request that an engine works on, or has answered.

    :param span: an end after the last sample stands for one that is not known yet
    """

    model: Pair
    span: Span


@dataclass(slots=True)
class ModelEnergy:
    """The energy of a loaded model, J and s.

    :ivar busy_j: of requests, as far as it is known
    :ivar idle_s: time without a request of its own, of known energy
    :ivar idle_unknown_s: the same, of unknown energy
    """

    busy_j: float = 0.0
    idle_j: float = 0.0
    idle_s: float = 0.0
    idle_unknown_s: float = 0.0

    def add(self, other: ModelEnergy) -> None:
        """Add the energy of a later interval."""
        self.busy_j += other.busy_j
        self.idle_j += other.idle_j
        self.idle_s += other.idle_s
        self.idle_unknown_s += other.idle_unknown_s


@dataclass(frozen=True, slots=True)
class IdleRecord:
    """The idle energy of a model in an hour, or a part of one, as the history keeps it.

    :param hour_s: Unix time at which the hour began
    :param idle_j: in `idle_s`; in `idle_unknown_s` more nobody knows
    """

    hour_s: int
    profile: str
    engine: str
    idle_j: float
    idle_s: float
    idle_unknown_s: float


@dataclass(frozen=True, slots=True)
class SharedEnergy:
    """What the time between two samples adds to the energy of requests and models.

    :param requests: J by request; None where it is unknown
    :param idle_w: by device, what it drew if no request was at work on it
    """

    requests: Mapping[int, float | None] = field(default_factory=dict)
    models: Mapping[Pair, ModelEnergy] = field(default_factory=dict)
    idle_w: Mapping[str, float] = field(default_factory=dict)


def share_out(
    span: Span,
    samples: Mapping[str, tuple[EnergySample, EnergySample]],
    loaded: Mapping[Pair, Collection[str]],
    requests: Mapping[int, RequestAtWork],
    idle_w: Mapping[str, float],
) -> SharedEnergy:
    """Return what requests and models used between two samples, and what idle devices drew.

    :param span: begin and end of the interval, monotonic
    :param samples: of each device that told something at both ends
    :param loaded: the devices that each model is on; none: nobody tells about any
    :param idle_w: what each device drew when it was idle last
    """
    first_s, last_s = span
    devices = sorted({device for names in loaded.values() for device in names})
    found: dict[str, DeviceInterval] = {}
    for device in devices:
        here = [model for model, names in loaded.items() if device in names]
        activity = activity_between(first_s, last_s, _spans(requests, here))
        ends = samples.get(device)
        energy = energy_between(*ends, activity, idle_w.get(device)) if ends else UNKNOWN
        found[device] = DeviceInterval(activity, energy, len(here))

    joules: dict[int, float | None] = {}
    models: dict[Pair, ModelEnergy] = {}
    for model, names in loaded.items():
        own = activity_between(first_s, last_s, _spans(requests, [model]))
        on = [found[name] for name in names]
        for number in own.shares_s:
            joules[number] = _sum(each.busy_j(number) for each in on)

        busy_j = math.fsum(joules[number] or 0.0 for number in own.shares_s)
        idle_j = _sum(each.idle_j for each in on)
        models[model] = ModelEnergy(
            busy_j,
            idle_j or 0.0,
            idle_s=0.0 if idle_j is None else own.idle_s,
            idle_unknown_s=own.idle_s if idle_j is None else 0.0,
        )

    for number, each in requests.items():
        if each.model not in loaded and each.span[0] < last_s and each.span[1] > first_s:
            joules[number] = None

    return SharedEnergy(joules, models, {name: each.idle_w for name, each in found.items() if each.idle_w is not None})


UNKNOWN = IntervalEnergy(None, None)


@dataclass(frozen=True, slots=True)
class DeviceInterval:
    """One device between two samples, with the number of models that are loaded on it."""

    activity: DeviceActivity
    energy: IntervalEnergy
    models: int

    def busy_j(self, request: int) -> float | None:
        """Return one request's part of the busy energy, by its share of the time; None where it is unknown."""
        share_s = self.activity.shares_s[request]
        return None if self.energy.busy_j is None else self.energy.busy_j * share_s / self.activity.busy_s

    @property
    def idle_j(self) -> float | None:
        """Each model's equal part of the device's idle energy; None where it is unknown."""
        return None if self.energy.idle_j is None else self.energy.idle_j / self.models

    @property
    def idle_w(self) -> float | None:
        """What the device drew when idle; None when a request was at work, or too short a time to tell."""
        if self.activity.busy_s or self.energy.idle_j is None or self.activity.span_s < BASELINE_S:
            return None

        return self.energy.idle_j / self.activity.span_s


def _spans(requests: Mapping[int, RequestAtWork], models: Collection[Pair]) -> dict[int, Span]:
    """Return when each request of these models was at work."""
    return {number: each.span for number, each in requests.items() if each.model in models}


def _sum(parts: Iterable[float | None]) -> float | None:
    """Return the sum; None without a part, or with one that is unknown."""
    known = list(parts)
    return math.fsum(each for each in known if each is not None) if known and None not in known else None
