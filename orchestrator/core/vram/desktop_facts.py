"""A machine's desktops as they were found: graphics cards with their screens, and the sessions of its login screen."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Family = Literal["kwin", "mutter", "wlroots"]
"""Who draws a session: compositors of one family heed the same variables."""

_FAMILIES: tuple[tuple[Family, str], ...] = (
    ("kwin", r"startplasma-\w+|startkde|kwin_\w+"),
    ("mutter", r"gnome-session(-\w+)?|gnome-shell|mutter"),
    ("wlroots", r"sway|labwc|wayfire|river|cage|dwl"),
)


@dataclass(frozen=True, slots=True)
class GraphicsCard:
    """A card as the kernel's DRM shows it.

    :ivar name: `card0`
    :ivar address: `0000:01:00.0`
    :ivar integrated: whether it is in the processor, and its memory the host's
    :ivar screens: the connectors that have a screen, as `HDMI-A-1`
    """

    name: str
    driver: str
    address: str
    integrated: bool
    screens: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class LoginSession:
    """A session that the login screen offers: a file of /usr/share/wayland-sessions or /usr/share/xsessions."""

    path: str
    text: str

    @property
    def x11(self) -> bool:
        """Whether it runs on an X server, by the directory that it is in."""
        return posixpath.basename(posixpath.dirname(self.path)) == "xsessions"

    @property
    def fields(self) -> dict[str, str]:
        """The keys of its entry, without those in other languages (Desktop Entry Specification 1.5)."""
        group = re.search(r"^\[Desktop Entry\][ \t]*$(.*?)(?=^\[|\Z)", self.text, re.MULTILINE | re.DOTALL)
        lines = group[1].splitlines() if group else []
        pairs = (line.split("=", 1) for line in lines if "=" in line and not line.startswith("#"))
        return {key.strip(): value.strip() for key, value in pairs}

    @property
    def hidden(self) -> bool:
        """Whether the login screen leaves it out."""
        return "true" in (self.fields.get("Hidden"), self.fields.get("NoDisplay"))

    @property
    def name(self) -> str:
        """What the login screen calls it."""
        return self.fields.get("Name") or posixpath.basename(self.path).removesuffix(".desktop")

    @property
    def family(self) -> Family | None:
        """Who draws it; None where orch does not know how that one is told what to draw on."""
        programs = [posixpath.basename(word) for word in self.fields.get("Exec", "").split()]
        return next(
            (family for family, pattern in _FAMILIES if any(re.fullmatch(pattern, each) for each in programs)), None
        )


@dataclass(frozen=True, slots=True)
class DesktopFacts:
    """The machine's cards, sessions and files as they were found: what the ways to get memory back are decided by.

    :ivar sessions: those that others have installed
    :ivar written: path to text of what `orch vram reclaim` has written, and is there
    :ivar foreign: the paths among those that it may write where something lies that it has not written
    :ivar held_mib: what the programs of the desktop hold of the devices with memory of their own, by name; None where
        no driver tells
    :ivar mesa_vendor_file: the file that makes Mesa the EGL library beside NVIDIA's; empty where there is none
    """

    cards: tuple[GraphicsCard, ...] = ()
    sessions: tuple[LoginSession, ...] = ()
    written: Mapping[str, str] = field(default_factory=dict)
    foreign: tuple[str, ...] = ()
    held_mib: Mapping[str, int] | None = None
    mesa_vendor_file: str = ""

    @property
    def nothing_held(self) -> bool:
        """Whether it is known that no program of the desktop holds device memory now."""
        return self.held_mib is not None and not sum(self.held_mib.values())

    @property
    def integrated(self) -> GraphicsCard | None:
        """The card in the processor; None where the kernel shows none."""
        return next((each for each in self.cards if each.integrated), None)

    @property
    def discrete(self) -> tuple[GraphicsCard, ...]:
        """The cards with memory of their own."""
        return tuple(each for each in self.cards if not each.integrated)
