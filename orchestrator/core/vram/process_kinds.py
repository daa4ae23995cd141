"""What a process is that holds device memory, from its name and its command line.

A program is known by the base name of its file, its first argument or its `comm`; what runs in an interpreter (Python,
Wine, Electron) by a part of its command line. A program that is in no table is `other`, under its own name.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

ProcessKind = Literal["orch", "engine", "compositor", "desktop", "browser", "game", "other", "hidden"]
"""`orch` is an engine that this orch runs, `hidden` a process that /proc does not show."""

COMM_LENGTH = 15
"""The kernel cuts `comm` off there (TASK_COMM_LEN)."""


@dataclass(frozen=True, slots=True)
class ProcessFacts:
    """A process as /proc shows it.

    :ivar comm: its name, of 15 characters at most
    :ivar words: its command line; empty where it may not be read
    :ivar program: the path of its executable; empty where it may not be read
    :ivar user: whose it is; None when it is ours
    :ivar container: the kind of container that it is in, such as `docker`; None outside of one
    """

    pid: int
    comm: str
    words: tuple[str, ...] = ()
    program: str = ""
    user: str | None = None
    container: str | None = None


@dataclass(frozen=True, slots=True)
class Identity:
    """What a process is, and what it is called.

    :ivar name: of the program, for people; of one of orch's engines, the profile
    """

    kind: ProcessKind
    name: str


_COMMAND_LINES: tuple[tuple[ProcessKind, str, str], ...] = (
    ("engine", "LM Studio", r"/\.?lm-?studio/|LM[ -]Studio"),
    ("engine", "Ollama", r"/ollama/"),
    ("engine", "Jan", r"/share/Jan/"),
    ("engine", "vLLM", r"^VLLM::|\bvllm(\.entrypoints| serve)"),
    ("engine", "SGLang", r"^sglang::|\bsglang\.launch_server"),
    ("engine", "KoboldCpp", r"(?i:koboldcpp)"),
    ("engine", "ComfyUI", r"(?i:comfyui)"),
    ("engine", "text-generation-webui", r"text-generation-webui|\boobabooga"),
    ("engine", "Stable Diffusion web UI", r"stable-diffusion-webui|/sd-webui"),
    ("engine", "InvokeAI", r"(?i:invokeai)"),
    ("engine", "TabbyAPI", r"(?i:tabbyapi)"),
    ("game", "", r"(?i:([^\\/\n]+\.exe)\b)"),  # in Wine, whose own program may lie among Steam's
    ("game", "", r"/steamapps/common/([^/]+)/"),
)
"""Kind, name and a pattern of a command line, the first that is found; without a name it is the pattern's group."""

_PROGRAMS: dict[tuple[ProcessKind, str], str] = {
    (
        "engine",
        "llama.cpp",
    ): "llama-server llama-cli llama-bench llama-perplexity llama-fit-params rpc-server llamafile",
    ("engine", "Ollama"): "ollama ollama_llama_server",
    ("engine", "orch's embedded engine"): "orch-embedded-server",
    ("engine", "LocalAI"): "local-ai",
    ("engine", "Jan"): "jan",
    ("engine", "whisper.cpp"): "whisper-server whisper-cli",
    ("engine", "stable-diffusion.cpp"): "sd sd-server",
    ("engine", "mistral.rs"): "mistralrs-server mistralrs",
    ("engine", "TGI"): "text-generation-server text-generation-launcher",
    ("compositor", "KWin"): "kwin_wayland kwin_x11",
    ("compositor", "GNOME Shell"): "gnome-shell mutter",
    ("compositor", "sway"): "sway",
    ("compositor", "Hyprland"): "hyprland",
    ("compositor", "X server"): "xorg x xwayland",
    (
        "compositor",
        "",
    ): "weston labwc wayfire river niri cosmic-comp cinnamon muffin marco xfwm4 picom compiz cage hikari",
    ("desktop", "Plasma"): "plasmashell krunner kded5 kded6 systemsettings ksplashqml kscreenlocker_greet",
    ("desktop", "login screen"): "sddm-greeter sddm-greeter-qt6 gdm-session-worker lightdm-gtk-greeter",
    (
        "desktop",
        "",
    ): "dolphin nautilus waybar nemo thunar gsd-xsettings xdg-desktop-portal-gnome xdg-desktop-portal-kde",
    ("browser", "Firefox"): "firefox firefox-bin firefox-esr",
    ("browser", "Chrome"): "chrome google-chrome google-chrome-stable",
    ("browser", "Chromium"): "chromium chromium-browser ungoogled-chromium",
    ("browser", "Brave"): "brave brave-browser",
    ("browser", "Edge"): "msedge microsoft-edge",
    (
        "browser",
        "",
    ): "librewolf zen zen-bin waterfox vivaldi vivaldi-bin opera epiphany falkon konqueror webkitwebprocess",
    ("game", "Steam"): "steam steamwebhelper",
    ("game", "Wine"): "wine wine64 wine-preloader wine64-preloader wineserver",
    ("game", ""): "lutris heroic gamescope gamescope-wl retroarch minetest supertuxkart dolphin-emu",
}
"""Kind and name (empty: the program's own) to base names, in lower case."""

_KNOWN: dict[str, Identity] = {
    program: Identity(kind, name or program)
    for (kind, name), programs in _PROGRAMS.items()
    for program in programs.split()
}
_CUT = {program[:COMM_LENGTH]: identity for program, identity in _KNOWN.items()}
_INTERPRETER = re.compile(r"(?:python|node|ruby|java|perl|wine(?:64)?(?:-preloader)?)[\d.]*")


def identify(facts: ProcessFacts, profiles: Mapping[int, str]) -> Identity:
    """Return kind and name of a process: of our engines by pid, of others by their command line, then their program.

    :param profiles: of the engines that this orch runs, by pid
    """
    if facts.pid in profiles:
        return Identity("orch", profiles[facts.pid])

    line = f"{_command(facts)}\n{facts.program}"
    for kind, name, pattern in _COMMAND_LINES:
        found = re.search(pattern, line)
        if found:
            return Identity(kind, name or found[1])

    known = next((_KNOWN[each] for each in map(str.lower, _names(facts)) if each in _KNOWN), None)
    return known or _CUT.get(facts.comm.lower()) or Identity("other", _own_name(facts))


def _command(facts: ProcessFacts) -> str:
    """Return the words that say which program it is: of an interpreter with what it runs, else the first alone.

    Further words may name another program's files: a llama-server that reads Ollama's models is no Ollama.
    """
    count = 4 if any(_INTERPRETER.fullmatch(each) for each in _names(facts)) else 1
    return " ".join(facts.words[:count])


def _names(facts: ProcessFacts) -> tuple[str, ...]:
    """Return the file names of its executable and of its first argument, as far as these may be read."""
    first = facts.words[0].split(" ")[0] if facts.words else ""  # Chromium's helpers have all of it in one word
    return tuple(os.path.basename(each).removesuffix(" (deleted)") for each in (facts.program, first) if each)


def _own_name(facts: ProcessFacts) -> str:
    """Return the name of a program that is in no table; of an interpreter with what it runs."""
    name = next(iter(_names(facts)), "") or facts.comm
    script = next((word for word in facts.words[1:] if not word.startswith("-")), "")
    return f"{name} {os.path.basename(script)}" if script and _INTERPRETER.fullmatch(name) else name
