"""Every action of the dashboard: its name, keys and help. Bindings, help and command palette are made from this.

The keys are those that people know from other tools: `q` and `?` everywhere, `/` `space` `f` `z` `[` `]` of k9s, btop
and process-compose, `K` of k9s and btop for what hurts.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass

from textual.binding import Binding

from orchestrator.core.errors import UsageError


@dataclass(frozen=True, slots=True)
class Action:
    """One thing that a person can do.

    :ivar name: what `--key NAME=KEY` calls it, and the method `action_NAME` of the app
    :ivar keys: as Textual names them, with commas between
    :ivar footer: whether the footer shows it
    :ivar changes: whether it changes what runs; refused with `--readonly`
    """

    name: str
    keys: str
    title: str
    help: str
    footer: bool = False
    changes: bool = False


ACTIONS = (
    Action("help", "question_mark,f1", "Help", "this list", footer=True),
    Action("switch", "w", "Switch", "choose another engine or profile, with a preview", footer=True, changes=True),
    Action("start_stop", "s", "Start/stop", "stop once the running requests are done; start again", True, True),
    Action("restart", "r", "Restart", "end what runs once its requests are done, start the same again", True, True),
    Action("stop_now", "K", "Stop at once", "cut the running requests off", changes=True),
    Action("cancel_switch", "c", "Cancel switch", "end the switch under way; what ran before serves on", changes=True),
    Action("cancel_request", "D,delete", "Cancel request", "end the request under the cursor, no other", changes=True),
    Action("residents", "m", "Models", "what is loaded: load another one, unload, pin, choose the focus", changes=True),
    Action("engine_menu", "x", "Engine menu", "all of the above as a menu", changes=True),
    Action("open_log", "l", "Log", "the engine's log, on the whole screen", footer=True),
    Action("copy_command", "y", "Copy command", "copy the engine's command line to the clipboard, and show it"),
    Action("vram", "v", "Device memory", "who holds the memory of each device, and what frees it"),
    Action("last_error", "E", "Last error", "what went wrong last, and before"),
    Action("panel(1)", "1", "Speed", "panel 1: tokens per second over time"),
    Action("panel(2)", "2", "Memory", "panel 2: devices and host"),
    Action("panel(3)", "3", "Engine", "panel 3: slots and attempts"),
    Action("panel(4)", "4", "Requests", "panel 4: requests in flight and recent"),
    Action("panel(5)", "5", "Log", "panel 5: events and log"),
    Action("previous_tab", "left_square_bracket", "Previous tab", "events or log"),
    Action("next_tab", "right_square_bracket", "Next tab", "events or log"),
    Action("zoom", "z", "Zoom", "the focused panel on the whole screen, and back", footer=True),
    Action("filter", "slash", "Filter", "show only events and log lines with these words", footer=True),
    Action("follow", "f", "Follow", "stay at the newest line; scrolling up pauses it"),
    Action("pause", "space", "Pause", "freeze the picture; the daemon goes on"),
    Action("faster", "plus", "Faster", "look more often"),
    Action("slower", "minus", "Slower", "look less often"),
    Action("sort_left", "less_than_sign", "Sort left", "sort requests by the column to the left"),
    Action("sort_right", "greater_than_sign", "Sort right", "sort requests by the column to the right"),
    Action("reverse_sort", "R", "Reverse", "reverse the order of the requests"),
    Action("command_palette", "colon,ctrl+p", "Palette", "every action by its name"),
    Action("change_theme", "f2", "Theme", "choose colours"),
    Action("back", "escape", "Back", "close what is open: filter, zoom"),
    Action("quit", "q", "Quit", "leave; the daemon and the engine go on", footer=True),
)

RESIDENTS_SHOWN = Binding("m", "shown_residents", "Models", tooltip="what is loaded: load, unload, pin")
"""In the footer while several profiles are loaded; the action has the same key anyway."""

LIST_KEYS = (
    ("j k ↑ ↓", "move in the focused panel"),
    ("g G home end", "to its first and last line"),
    ("← →", "scroll sideways"),
    ("enter", "details of the line"),
    ("tab", "to the next panel"),
)


def bindings() -> list[Binding]:
    return [
        Binding(each.keys, each.name, each.title, show=each.footer, id=id_of(each), tooltip=each.help)
        for each in ACTIONS
    ]


def id_of(action: Action) -> str:
    """Return the name for people: `panel(1)` is `panel-1`."""
    return action.name.replace("(", "-").replace(")", "").replace("_", "-")


def read_keys(texts: Sequence[str]) -> dict[str, str]:
    """Return the keymap that `--key NAME=KEY` asks for.

    :raises UsageError: when there is no such action, or a text has another form
    """
    known = [id_of(each) for each in ACTIONS]
    keymap: dict[str, str] = {}
    for text in texts:
        name, equals, key = text.partition("=")
        if not equals or not key:
            raise UsageError(f"`--key {text}`: expected NAME=KEY", hint="for example `--key switch=f6`")

        if name not in known:
            near = difflib.get_close_matches(name, known, 1)
            hint = f"did you mean `{near[0]}`?" if near else None
            raise UsageError(f"there is no action `{name}`", details=(f"known: {', '.join(known)}",), hint=hint)

        keymap[name] = key

    return keymap
