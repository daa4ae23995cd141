"""The cards of /sys/class/drm: their drivers, and where they are. Connectors and render nodes are no cards."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass

from orchestrator.adapters.sysfs import names_in, read_text

AMD_DRIVER = "amdgpu"
INTEL_DRIVERS = ("i915", "xe")
APU_MOST_BYTES = 4 << 30
"""What firmware sets aside for the graphics of an AMD processor at most, as `vram`."""


@dataclass(frozen=True, slots=True)
class DrmCard:
    """:ivar name: `card0`
    :ivar address: on the PCI bus, `0000:01:00.0`
    :ivar device: its directory in sysfs
    """

    name: str
    driver: str
    address: str
    device: str

    @property
    def integrated(self) -> bool:
        """Whether it is in the processor: Intel's are always at 00:02.0; AMD's have little memory set aside, and may
        use more of the host's."""
        if self.driver in INTEL_DRIVERS:
            return self.address.endswith(":00:02.0")

        if self.driver != AMD_DRIVER:
            return False

        own, host = (read_text(self.device, f"mem_info_{kind}_total") for kind in ("vram", "gtt"))
        return own.isdecimal() and host.isdecimal() and int(own) <= min(APU_MOST_BYTES, int(host))


def find_cards(root: str) -> list[DrmCard]:
    """Return the cards on the PCI bus, by number.

    :param root: the directory with `sys`
    """
    drm = os.path.join(root, "sys/class/drm")
    cards = []
    for name in sorted((each for each in names_in(drm) if re.fullmatch(r"card\d+", each)), key=_number):
        device = os.path.join(drm, name, "device")
        lines = read_text(device, "uevent").splitlines()
        fields = dict(line.split("=", 1) for line in lines if "=" in line)
        if "DRIVER" in fields and "PCI_SLOT_NAME" in fields:
            cards.append(DrmCard(name, fields["DRIVER"], fields["PCI_SLOT_NAME"], device))

    return cards


def _number(name: str) -> int:
    return int(name.removeprefix("card"))


def connected_screens(root: str, card: str) -> tuple[str, ...]:
    """Return the connectors of a card that have a screen, as `HDMI-A-1`."""
    drm = os.path.join(root, "sys/class/drm")
    names = sorted(name for name in names_in(drm) if name.startswith(f"{card}-"))
    found = (name for name in names if read_text(os.path.join(drm, name), "status") == "connected")
    return tuple(name.removeprefix(f"{card}-") for name in found)
