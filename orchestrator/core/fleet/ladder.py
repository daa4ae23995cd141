"""The ladder: what to try next after memory ran out.

A rung is a margin and the steps of `[recovery] then` that are in force. Climbing takes the next listed margin, at least
larger by the allocation that failed when the log names it (that much was missing); after the last margin the steps of
`then`, one by one, each only because the profile allows it.

Where the profile has a margin per device, only that of the device that failed rises. Which one that is:

1. With `memory.devices`, the place of its name there: upstream's list of margins has that order.
2. With `memory.rpc` alone, upstream's list begins with the remote devices: `RPC1[host:port]` is the second. How many
   there are is not known beyond one a server, so the place of a local device is not known either.
3. Else the number in its name: `CUDA1` is the second.

The limits: a number says nothing where back ends are mixed (`CUDA0`, `Vulkan0`) without `memory.devices`; and the
fork's margins go by a GPU's index, whose order with `memory.devices` or remote devices is not documented, so that 1
and 2 take it to be upstream's.

A failure whose device, or whose place, is not known raises them all.

Where host memory ran out no margin helps, and of the steps those that need less of it: a smaller context, and a smaller
type for a cache that is in host memory. `n_cpu_moe:+4` moves more into it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from orchestrator.core.profile.profile import EngineProfile, Recovery
from orchestrator.core.profile.settings import Value

Margins = int | tuple[int, ...]
"""MiB: one for every device, or one per device in the engine's order."""

_SHRINKS_CACHE = ("context:", "kv:")
"""Steps that make the KV cache smaller, wherever it is."""

_DEVICE = re.compile(r"(?P<name>(?P<backend>[A-Za-z]+)(?P<number>\d{1,3}))(?:\[.*\])?")
"""A device as the engine's log names it, a remote one with its address."""


@dataclass(frozen=True, slots=True)
class Rung:
    """One step of the ladder.

    :param margin_mib: device memory kept free when fitting, MiB; None where nothing is fitted or the engine decides.
        The largest, where there is one per device
    :param steps: the `then` steps in force, in the order taken
    :param margins_mib: one per device, where the profile has a list
    :param devices: names of the devices that `margins_mib` begins with, as far as the profile tells them
    """

    margin_mib: int | None = None
    steps: tuple[str, ...] = ()
    margins_mib: tuple[int, ...] = ()
    devices: tuple[str, ...] = ()

    @property
    def margins(self) -> Margins | None:
        return self.margins_mib or self.margin_mib

    def __str__(self) -> str:
        margins = self.margins_mib or ((self.margin_mib,) if self.margin_mib is not None else ())
        parts = [f"margin {', '.join(map(str, margins))} MiB"] if margins else []
        return ", ".join([*parts, *self.steps]) or "as the profile says"


def raise_margins(margins: Margins, floor: Margins) -> Margins:
    """Return margins of the same shape, none below the floor for its device.

    Where the shapes differ it is not known which device is which, and the largest of the floor holds for each.
    """
    if isinstance(margins, int):
        return max(margins, _largest(floor))

    floors = floor if isinstance(floor, tuple) and len(floor) == len(margins) else (_largest(floor),) * len(margins)
    return tuple(map(max, margins, floors))


def first_rung(profile: EngineProfile, learned_mib: Margins | None = None) -> Rung:
    """Return the rung of a first start: the profile's margin, or the larger one that survived before.

    Without a margin where fitting is off.
    """
    if profile.settings.get("memory.fit") is False:
        return Rung()

    margins = _profile_margins(profile)
    if margins is None and profile.settings.get("memory.fit") is True and profile.recovery.margins:
        margins = profile.recovery.margins[0]

    if learned_mib is not None:
        margins = raise_margins(0 if margins is None else margins, learned_mib)

    if isinstance(margins, tuple):
        return Rung(max(margins), margins_mib=margins, devices=_device_names(profile))

    return Rung(margins)


def raise_rung(rung: Rung, floor: Margins) -> Rung:
    """Return the rung with no margin below the floor; as it is where nothing is fitted."""
    if rung.margins is None:
        return rung

    margins = raise_margins(rung.margins, floor)
    if isinstance(margins, tuple):
        return replace(rung, margin_mib=max(margins), margins_mib=margins)

    return replace(rung, margin_mib=margins)


def next_rung(
    rung: Rung, recovery: Recovery, *, margin_helps: bool, requested_mib: float | None, device: str | None = None
) -> Rung | None:
    """Return the rung above this one, or None at the top.

    :param margin_helps: False where a bigger margin cannot (nothing is fitted, one allocation is over a limit)
    :param requested_mib: the allocation that failed, MiB, where the log names it
    :param device: that it failed on, where the log names it
    """
    if margin_helps and rung.margins is not None:
        margins = rung.margins_mib or (rung.margin_mib or 0,)
        at = _margin_index(device, rung)
        higher = tuple(
            _next_margin_mib(margin, recovery, requested_mib) if at in (None, index) else margin
            for index, margin in enumerate(margins)
        )
        if higher != margins:
            return replace(rung, margin_mib=max(higher), margins_mib=higher if rung.margins_mib else ())

    return _next_step(rung, recovery.then)


def next_host_rung(rung: Rung, recovery: Recovery, *, cache_in_host: bool) -> Rung | None:
    """Return the rung above this one that needs less host memory, or None when no step does.

    :param cache_in_host: whether the KV cache may be there; where it is not, a smaller one frees nothing
    """
    return _next_step(rung, [step for step in recovery.then if cache_in_host and step.startswith(_SHRINKS_CACHE)])


def cache_may_be_in_host(profile: EngineProfile) -> bool:
    """Return whether some of the KV cache may be in host memory: it is where its layer is, unless kept off the device.

    :param profile: for an engine that has a device
    """
    return profile.settings.get("memory.gpu_layers") != "all" or profile.settings.get("kv.offload") is False


def _next_step(rung: Rung, steps: Iterable[str]) -> Rung | None:
    step = next((step for step in steps if step not in rung.steps), None)
    return None if step is None else replace(rung, steps=(*rung.steps, step))


def apply_rung(profile: EngineProfile, rung: Rung) -> EngineProfile:
    """Return the profile with the rung's margin and steps laid over its settings.

    No step takes more device memory than the profile: `context:65536` leaves a smaller context as it is.
    """
    changed: dict[str, Value] = dict(profile.settings)
    if rung.margins is not None:
        margins = _profile_margins(profile)
        # The profile may have been edited since the first rung: its shape decides.
        changed["memory.fit_margin"] = raise_margins(margins if isinstance(margins, tuple) else 0, rung.margins)

    for step in rung.steps:
        name, _, value = step.partition(":")
        if name == "kv":
            changed["kv.k"] = changed["kv.v"] = value
        elif name == "context":
            size = _int_setting(changed, "context.size")  # 0 is the model's own, which is never small
            changed["context.size"] = min(size, int(value)) if size else int(value)
        elif name == "n_cpu_moe":
            layers = _int_setting(changed, "memory.n_cpu_moe")
            changed["memory.n_cpu_moe"] = layers + int(value) if value.startswith("+") else max(layers, int(value))

    return replace(profile, settings=changed)


def _next_margin_mib(margin_mib: int, recovery: Recovery, requested_mib: float | None) -> int:
    """Return the next listed margin, or more where more was missing; the same after the last one."""
    listed = next((each for each in recovery.margins if each > margin_mib), None)
    if listed is None:
        return margin_mib

    return max(listed, margin_mib + math.ceil(requested_mib or 0))


def _margin_index(device: str | None, rung: Rung) -> int | None:
    """Return the index of the device among the rung's margins; None when that is not known."""
    found = _DEVICE.fullmatch(device or "")
    if found is None or not rung.margins_mib:
        return None

    if rung.devices:
        place = rung.devices.index(found["name"]) if found["name"] in rung.devices else None
    else:
        place = None if found["backend"] == "RPC" else int(found["number"])

    return place if place is not None and place < len(rung.margins_mib) else None


def _device_names(profile: EngineProfile) -> tuple[str, ...]:
    listed, remote = (profile.settings.get(f"memory.{key}") for key in ("devices", "rpc"))
    if isinstance(listed, tuple) and listed:
        return tuple(map(str, listed))

    return tuple(f"RPC{index}" for index, _ in enumerate(remote)) if isinstance(remote, tuple) else ()


def _profile_margins(profile: EngineProfile) -> Margins | None:
    margins = profile.settings.get("memory.fit_margin")
    if isinstance(margins, tuple):
        return tuple(int(each) for each in margins)

    return margins if isinstance(margins, int) else None


def _largest(margins: Margins) -> int:
    return margins if isinstance(margins, int) else max(margins)


def _int_setting(settings: Mapping[str, Value], key: str) -> int:
    value = settings.get(key)
    return value if isinstance(value, int) else 0
