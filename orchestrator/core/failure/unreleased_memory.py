"""Device memory that a dead engine still holds, told by the next one: both log what each device has free.

For devices that orch cannot read (a remote one, a driver without an interface) this is the only measure there is.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from orchestrator.core.failure.signatures import DEVICE_FREE

NOTICED = 0.02
"""Share of what was free before; less is the desktop's doing."""


def parse_free_mib(lines: Iterable[str]) -> dict[str, int]:
    """Device to MiB that it had free when the engine began; the first telling counts, later ones are a fit's."""
    told: dict[str, int] = {}
    for line in lines:
        if found := DEVICE_FREE.search(line):
            told.setdefault(found["device"], int(found["free"]))

    return told


def unreleased_mib_between(before: Mapping[str, int], now: Mapping[str, int]) -> int:
    """What the devices had free when an earlier engine began, and have not any more; 0 where it is little."""
    missing = {device: before[device] - free for device, free in now.items() if device in before}
    return sum(mib for device, mib in missing.items() if mib > max(before[device] * NOTICED, 1))
