"""The device memory of one DRM client, from the text of /proc/PID/fdinfo/FD.

Source: Documentation/gpu/drm-usage-stats.rst of the kernel. Device memory is the region `vram` in amdgpu, `vram0` and
up in xe, `local0` and up in i915; `gtt`, `system` and `stolen` are the host's.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_FIELD = re.compile(r"^(drm-[a-z0-9-]+):\s*(.+?)\s*$", re.MULTILINE)
_MEMORY = re.compile(r"drm-(resident|memory|total)-((?:vram|local)\d*)")
_MOST_DIGITS = 20
"""Of the kernel's numbers, which have 64 bits; Python refuses to read very long ones."""

_UNITS = {"": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}


@dataclass(frozen=True, slots=True)
class DrmClient:
    """A user of a device: one opened file, which may have several descriptors, in several processes.

    :ivar address: of the device, as `0000:03:00.0`
    :ivar client_id: the same for all descriptors of the file; empty in kernels before 5.19
    """

    driver: str
    address: str
    client_id: str
    vram_bytes: int


def parse_client(text: str) -> DrmClient | None:
    """Return the client that a descriptor belongs to; None when it is of no DRM device, or tells no device memory.

    Of each region what is resident counts: `resident`, or amdgpu's older `memory`; `total`, which has what was moved to
    the host as well, only where neither is told.
    """
    if "drm-driver" not in text:
        return None

    fields = dict(_FIELD.findall(text))
    regions: dict[str, dict[str, int]] = {}
    for name, value in fields.items():
        found = _MEMORY.fullmatch(name)
        if found:
            regions.setdefault(found[2], {})[found[1]] = _bytes(value)

    driver = fields.get("drm-driver")
    if driver is None or not regions:
        return None

    told = (
        next(region[kind] for kind in ("resident", "memory", "total") if kind in region) for region in regions.values()
    )
    return DrmClient(driver, fields.get("drm-pdev", ""), fields.get("drm-client-id", ""), sum(told))


def _bytes(text: str) -> int:
    """Return `1234 KiB` as bytes; 0 for anything that is no size."""
    number, _, unit = text.partition(" ")
    is_size = number.isdecimal() and len(number) <= _MOST_DIGITS and unit in _UNITS
    return int(number) * _UNITS[unit] if is_size else 0
