"""The machine as `orch vram reclaim` goes by it: cards with their screens, login sessions, files of ours. Blocks."""

from __future__ import annotations

import os

from orchestrator.adapters.hardware.drm_cards import AMD_DRIVER, INTEL_DRIVERS, connected_screens, find_cards
from orchestrator.adapters.sysfs import names_in
from orchestrator.core.vram.desktop_facts import DesktopFacts, GraphicsCard, LoginSession
from orchestrator.core.vram.report import VramReport
from orchestrator.core.vram.session_files import RULES, is_ours

SESSION_DIRECTORIES = tuple(
    f"/usr/{below}share/{kind}" for below in ("", "local/") for kind in ("wayland-sessions", "xsessions")
)
MESA_VENDOR_FILE = "/usr/share/glvnd/egl_vendor.d/50_mesa.json"
DRIVERS = ("nvidia", "nouveau", AMD_DRIVER, "radeon", *INTEL_DRIVERS)
"""Those of cards that a desktop may draw on; others are displays alone: firmware's, a server's, a virtual one."""


def desktop_facts(report: VramReport, root: str = "/") -> DesktopFacts:
    """Return the graphics cards, the sessions of its login screen, what lies where `orch vram reclaim` writes, and
    the memory that the desktop's programs hold.

    :param report: who holds device memory now
    :param root: the directory with `sys`, `usr` and `etc`
    """
    cards = _cards(root)
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


def _cards(root: str) -> tuple[GraphicsCard, ...]:
    found = (card for card in find_cards(root) if card.driver in DRIVERS)
    return tuple(
        GraphicsCard(card.name, card.driver, card.address, card.integrated, connected_screens(root, card.name))
        for card in found
    )


def _session_paths(root: str) -> list[str]:
    found = (
        (directory, name) for directory in SESSION_DIRECTORIES for name in sorted(names_in(_below(root, directory)))
    )
    return [f"{directory}/{name}" for directory, name in found if name.endswith(".desktop")]


def _below(root: str, path: str) -> str:
    return os.path.join(root, path.lstrip("/"))


def _text(path: str) -> str | None:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except (FileNotFoundError, PermissionError, IsADirectoryError):
        return None
