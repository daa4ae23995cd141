"""Device memory that a dead engine still holds, from the next one's log: both log what each device has free.

For devices that orch cannot read (a remote one, a driver without an interface) this is the only measure there is.
"""

from __future__ import annotations

from collections.abc import Mapping

NOTICED_SHARE = 0.02
"""Share of the memory that was free before; less is the desktop's doing."""


def unreleased_mib_between(before: Mapping[str, int], now: Mapping[str, int]) -> int:
    """The memory, MiB, that was free when an earlier engine began and is not any more; 0 where it is little.

    :param before: device to MiB; `now` likewise
    """
    missing = {device: before[device] - free for device, free in now.items() if device in before}
    return sum(mib for device, mib in missing.items() if mib > max(before[device] * NOTICED_SHARE, 1))
