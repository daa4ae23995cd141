"""The files that `orch vram reclaim` writes: login sessions beside those that are there, and a rule for udev.

Sources of the variables: LIBGL_ALWAYS_SOFTWARE and GALLIUM_DRIVER, Mesa's docs/envvars.rst; WLR_RENDERER and
WLR_DRM_DEVICES, wlroots' docs/env_vars.md; KWIN_COMPOSE and KWIN_DRM_DEVICES, KWin's src/options.cpp and
src/backends/drm/drm_backend.cpp; __EGL_VENDOR_LIBRARY_FILENAMES, libglvnd's src/EGL/icd_enumeration.md; the tag,
mutter's meta-udev.c.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable, Mapping

from orchestrator.core.vram.desktop_facts import Family, GraphicsCard, LoginSession

MARK = "# Written by `orch vram reclaim`; `orch vram reclaim --uninstall` removes it.\n"
PREFIX = "orch-"
RULES = "/etc/udev/rules.d/61-orch-display.rules"
MUTTER_TAG = "mutter-device-preferred-primary"

_PLAIN_NAME = re.compile(r"[\w.:-]+")
"""A desktop's name that needs no quotes in `Exec`, which login screens read in ways of their own."""

_SOFTWARE = {"LIBGL_ALWAYS_SOFTWARE": "1", "GALLIUM_DRIVER": "llvmpipe"}
_COMPOSITORS: dict[tuple[Family, bool], Mapping[str, str]] = {
    ("kwin", False): {"KWIN_COMPOSE": "Q"},  # QPainter: no OpenGL at all
    ("kwin", True): {"KWIN_COMPOSE": "N"},  # QPainter is for Wayland alone; on X11 the server draws, without effects
    ("wlroots", False): {"WLR_RENDERER": "pixman"},  # wlroots refuses a GLES2 of the CPU's otherwise
}
"""Family and whether it is X11 to the compositor's own variables."""

_CARDS: dict[Family, str] = {"kwin": "KWIN_DRM_DEVICES", "wlroots": "WLR_DRM_DEVICES"}


def is_ours(path: str, text: str) -> bool:
    """Return whether a file is one that `orch vram reclaim` wrote."""
    return text.startswith(MARK) and (path == RULES or posixpath.basename(path).startswith(PREFIX))


def session_path(session: LoginSession, way: str) -> str:
    """Return where the session of a way is written: beside the one that it is made from."""
    directory, name = posixpath.split(session.path)
    return f"{directory}/{PREFIX}{name.removesuffix('.desktop')}-{way}.desktop"


def software_variables(session: LoginSession, mesa_vendor_file: str) -> dict[str, str]:
    """Return what makes a session draw on the CPU.

    :param mesa_vendor_file: of a machine with NVIDIA's libraries, which heed none of Mesa's variables; else empty
    """
    nvidia = {"__EGL_VENDOR_LIBRARY_FILENAMES": mesa_vendor_file, "__GLX_VENDOR_LIBRARY_NAME": "mesa"}
    own = _COMPOSITORS.get((session.family, session.x11), {}) if session.family else {}
    return {**_SOFTWARE, **(nvidia if mesa_vendor_file else {}), **own}


def card_variables(session: LoginSession, cards: Iterable[GraphicsCard]) -> dict[str, str]:
    """Return what makes a session draw on the first of the cards, and show its picture on the others as well.

    Nothing for a session that has no variable for it: on X11 that is the server's configuration, in Mutter a rule.
    """
    name = _CARDS.get(session.family) if session.family and not session.x11 else None
    return {name: ":".join(f"/dev/{link_of(number)}" for number, _ in enumerate(cards, 1))} if name else {}


def link_of(number: int) -> str:
    """Return the name below /dev of a card, by its place in the order: paths with the PCI address have colons in them,
    which divide cards in the variables, and `card0` may be another card after the next start."""
    return f"dri/orch-display-{number}"


def session_text(session: LoginSession, title: str, variables: Mapping[str, str]) -> str:
    """Return a session as another one, with variables set.

    :param title: added to its name
    """
    fields = session.fields
    names = (name.strip() for name in fields.get("DesktopNames", "").split(";"))
    desktop = ":".join(name for name in names if _PLAIN_NAME.fullmatch(name))
    # As a variable, which is what login screens make of it: the key is none of the Desktop Entry Specification.
    named = {**variables, **({"XDG_CURRENT_DESKTOP": desktop} if desktop else {})}
    words = " ".join(f"{name}={value}" for name, value in named.items())
    entry = {
        "Name": f"{session.name}, {title}",
        "Comment": "Leaves the memory of the graphics card to language models",
        "Exec": f"/usr/bin/env {words} {fields['Exec']}",
        **({"TryExec": fields["TryExec"]} if fields.get("TryExec") else {}),
        "Type": "Application",
    }
    lines = "".join(f"{key}={value}\n" for key, value in entry.items())
    return f"{MARK}[Desktop Entry]\n{lines}"


def rules_text(cards: Iterable[GraphicsCard], *, mutter: bool) -> str:
    """Return the rule that gives cards the names of `link_of`.

    :param cards: the one that draws first
    :param mutter: whether Mutter is to draw on the first one, too
    """
    lines = []
    for number, card in enumerate(cards, 1):
        tag = f', TAG+="{MUTTER_TAG}"' if mutter and number == 1 else ""
        match = f'SUBSYSTEM=="drm", KERNEL=="card[0-9]*", KERNELS=="{card.address}"'
        lines.append(f'{match}, SYMLINK+="{link_of(number)}"{tag}\n')

    return MARK + "".join(lines)
