"""The machine as `orch vram reclaim` goes by it: cards with their screens, login sessions, files of ours. Blocks."""

from __future__ import annotations

import os
import re

from orchestrator.core.vram.desktop_facts import DesktopFacts, GraphicsCard, LoginSession
from orchestrator.core.vram.report import VramReport
from orchestrator.core.vram.session_files import RULES, is_ours

SESSION_DIRECTORIES = tuple(
    f"/usr/{below}share/{kind}" for below in ("", "local/") for kind in ("wayland-sessions", "xsessions")
)
MESA_VENDOR_FILE = "/usr/share/glvnd/egl_vendor.d/50_mesa.json"
DRIVERS = ("nvidia", "nouveau", "amdgpu", "radeon", "i915", "xe")
APU_MOST_BYTES = 4 << 30
"""What firmware sets aside for the graphics of an AMD processor at most, as `vram`."""


def desktop_facts(report: VramReport, root: str = "/") -> DesktopFacts:
    """Return what is there.

    :param report: who holds device memory now
    :param root: the directory with `sys`, `usr` and `etc`
    """
    cards = _cards(os.path.join(root, "sys/class/drm"))
    paths = [*_session_paths(root), RULES]
    files = {path: text for path in paths if (text := _text(_below(root, path))) is not None}
    ours = {path: text for path, text in files.items() if is_ours(path, text)}
    others = [LoginSession(path, text) for path, text in files.items() if path not in ours and path != RULES]
    return DesktopFacts(
        cards=cards,
        sessions=tuple(each for each in others if not each.hidden),
        written=ours,
        foreign=tuple(path for path in files if path not in ours),
        held_mib=_held_by_desktop(report, {card.address for card in cards if card.integrated}),
        mesa_vendor_file=MESA_VENDOR_FILE if os.path.exists(_below(root, MESA_VENDOR_FILE)) else "",
    )


def _held_by_desktop(report: VramReport, integrated: set[str]) -> dict[str, int] | None:
    """Return name to MiB of the programs of the desktop; None when no driver tells any process, and when none is found
    while some could not be seen.

    Memory of an integrated GPU is the host's, and does not count.
    """
    devices = [each for each in report["devices"] if each["pci_address"] not in integrated]
    if not any(each["told_by"] for each in devices):
        return None

    held: dict[str, int] = {}
    for holder in (holder for each in devices for holder in each["holders"]):
        if holder["kind"] in ("compositor", "desktop"):
            held[holder["name"]] = held.get(holder["name"], 0) + holder["mib"]

    return held if held or not report["notes"] else None


def _cards(drm: str) -> tuple[GraphicsCard, ...]:
    try:
        names = sorted(os.listdir(drm))
    except OSError:  # no graphics driver at all
        return ()

    cards = []
    for name in (each for each in names if re.fullmatch(r"card\d+", each)):
        device = os.path.join(drm, name, "device")
        lines = (_text(os.path.join(device, "uevent")) or "").splitlines()
        fields = dict(line.split("=", 1) for line in lines if "=" in line)
        driver, address = fields.get("DRIVER", ""), fields.get("PCI_SLOT_NAME", "")
        if driver not in DRIVERS:  # a display alone: firmware's, a server's, a virtual one, USB
            continue

        connectors = [each.removeprefix(f"{name}-") for each in names if each.startswith(f"{name}-")]
        screens = [each for each in connectors if _text(os.path.join(drm, f"{name}-{each}", "status")) == "connected\n"]
        cards.append(GraphicsCard(name, driver, address, _is_integrated(driver, address, device), tuple(screens)))

    return tuple(cards)


def _is_integrated(driver: str, address: str, device: str) -> bool:
    """Return whether a card is in the processor: Intel's are always at 00:02.0; AMD's have little memory set aside, and
    may use more of the host's."""
    if driver in ("i915", "xe"):
        return address.endswith(":00:02.0")

    if driver != "amdgpu":
        return False

    own, host = (_text(os.path.join(device, f"mem_info_{kind}_total")) for kind in ("vram", "gtt"))
    return own is not None and host is not None and int(own) <= min(APU_MOST_BYTES, int(host))


def _session_paths(root: str) -> list[str]:
    paths = []
    for directory in SESSION_DIRECTORIES:
        try:
            names = sorted(os.listdir(_below(root, directory)))
        except OSError:  # no desktop, or none of this kind
            continue

        paths += [f"{directory}/{name}" for name in names if name.endswith(".desktop")]

    return paths


def _below(root: str, path: str) -> str:
    return os.path.join(root, path.lstrip("/"))


def _text(path: str) -> str | None:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:  # not there, or gone meanwhile
        return None
