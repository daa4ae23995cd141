"""The ladder: what to try next after device memory ran out.

A rung is a margin and the steps of `[recovery] then` that are in force. Climbing takes the next listed margin, at least
larger by the allocation that failed when the log names it (that much was missing); after the last margin the steps of
`then`, one by one, each only because the profile allows it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

from orchestrator.core.profile import EngineProfile, Recovery
from orchestrator.core.settings import Value


@dataclass(frozen=True, slots=True)
class Rung:
    """One step of the ladder.

    :param margin_mib: device memory kept free when fitting, MiB; None where nothing is fitted or the engine decides
    :param steps: the `then` steps in force, in the order taken
    """

    margin_mib: int | None = None
    steps: tuple[str, ...] = ()

    def __str__(self) -> str:
        parts = [f"margin {self.margin_mib} MiB"] if self.margin_mib is not None else []
        return ", ".join([*parts, *self.steps]) or "as the profile says"


def first_rung(profile: EngineProfile, learned_mib: int | None = None) -> Rung:
    """Where a start begins: the profile's margin, or the larger one that survived before; none with fitting off."""
    if profile.settings.get("memory.fit") is False:
        return Rung()

    margin = _scalar_margin(profile)
    if margin is None and profile.settings.get("memory.fit") is True and profile.recovery.margins:
        margin = profile.recovery.margins[0]

    if learned_mib is not None and (margin is None or learned_mib > margin):
        margin = learned_mib

    return Rung(margin)


def next_rung(rung: Rung, recovery: Recovery, *, margin_helps: bool, requested_mib: float | None) -> Rung | None:
    """The rung above this one, or None at the top.

    :param margin_helps: False where a bigger margin cannot (nothing is fitted, one allocation is over a limit)
    :param requested_mib: the allocation that failed, MiB, where the log names it
    """
    if margin_helps and rung.margin_mib is not None:
        current = rung.margin_mib
        listed = next((margin for margin in recovery.margins if margin > current), None)
        if listed is not None:
            missing = current + math.ceil(requested_mib) if requested_mib else 0
            return replace(rung, margin_mib=max(listed, missing))

    for step in recovery.then:
        if step not in rung.steps:
            return replace(rung, steps=(*rung.steps, step))

    return None


def on_rung(profile: EngineProfile, rung: Rung) -> EngineProfile:
    """The profile with the rung's margin and steps laid over its settings.

    No step takes more device memory than the profile: `context:65536` leaves a smaller context as it is.
    """
    changed: dict[str, Value] = dict(profile.settings)
    if rung.margin_mib is not None:
        margins = profile.settings.get("memory.fit_margin")
        if isinstance(margins, tuple):
            changed["memory.fit_margin"] = tuple(max(int(margin), rung.margin_mib) for margin in margins)
        else:
            changed["memory.fit_margin"] = rung.margin_mib

    for step in rung.steps:
        name, _, value = step.partition(":")
        if name == "kv":
            changed["kv.k"] = changed["kv.v"] = value
        elif name == "context":
            size = _int(changed, "context.size")  # 0 is the model's own, which is never small
            changed["context.size"] = min(size, int(value)) if size else int(value)
        elif name == "n_cpu_moe":
            layers = _int(changed, "memory.n_cpu_moe")
            changed["memory.n_cpu_moe"] = layers + int(value) if value.startswith("+") else max(layers, int(value))

    return replace(profile, settings=changed)


def _int(settings: Mapping[str, Value], key: str) -> int:
    value = settings.get(key)
    return value if isinstance(value, int) else 0


def _scalar_margin(profile: EngineProfile) -> int | None:
    margin = profile.settings.get("memory.fit_margin")
    if isinstance(margin, tuple):
        return max(int(each) for each in margin)

    return margin if isinstance(margin, int) else None
