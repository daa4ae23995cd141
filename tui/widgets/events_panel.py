"""Panel 5: the events and the engine's log. Both follow their newest line until somebody scrolls up."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Sequence
from typing import Literal

from textual.containers import Vertical
from textual.reactive import reactive
from textual.widgets import Input

from orchestrator.api.types import Event
from tui.text import Line, Role, line, plain
from tui.views import engine
from tui.widgets.lines import Scrolled

KEPT_LINES = 5000
_BAD = re.compile(r"^\S+ E |\b(?:error|failed|out of memory|abort(?:ed|ing)?|assert)\b", re.IGNORECASE)
_WARN = re.compile(r"^\S+ W |\bwarn(?:ing)?\b", re.IGNORECASE)

Tab = Literal["events", "log"]
TABS: tuple[Tab, ...] = ("events", "log")


class LogTail(Scrolled):
    """The newest lines, `KEPT_LINES` at most; with a filter, those that hold all of its words."""

    follow = reactive(True)

    def __init__(self, id: str, empty: str) -> None:
        super().__init__(id=id)
        self._all: deque[Line] = deque(maxlen=KEPT_LINES)
        self._words: list[str] = []
        self._empty = empty
        self.show([line(empty, "dim")])

    @property
    def line_count(self) -> int:
        """The number of lines, those that the filter leaves out included."""
        return len(self._all)

    def add(self, lines: Sequence[Line]) -> None:
        if not lines:
            return

        if not self._all:
            self.show([])

        self._all.extend(lines)
        self.append([each for each in lines if self._holds(each)], KEPT_LINES)
        if self.follow:
            self._to_end()

    def clear(self) -> None:
        self._all.clear()
        self.show([line(self._empty, "dim")])

    def filter(self, text: str) -> None:
        self._words = text.lower().split()
        kept = [each for each in self._all if self._holds(each)]
        self.show(kept or [line(f"no line holds `{text}`" if self._all else self._empty, "dim")])
        if self.follow:
            self._to_end()

    def watch_follow(self, follow: bool) -> None:
        if follow and self.is_attached:
            self._to_end()

    def action_move(self, by: int) -> None:
        super().action_move(by)
        self.follow = self.cursor >= len(self.lines) - 1

    def action_page(self, by: int) -> None:
        super().action_page(by)
        self.follow = self.cursor >= len(self.lines) - 1

    def action_first(self) -> None:
        super().action_first()
        self.follow = False

    def action_last(self) -> None:
        super().action_last()
        self.follow = True

    def on_mouse_scroll_up(self) -> None:
        self.follow = False

    def on_mouse_scroll_down(self) -> None:
        if self.is_vertical_scroll_end:
            self.follow = True

    def on_resize(self) -> None:
        if self.follow:
            self._to_end()

    def _holds(self, spans: Line) -> bool:
        if not self._words:
            return True

        text = plain(spans).lower()
        return all(word in text for word in self._words)

    def _to_end(self) -> None:
        self._set_cursor(len(self.lines) - 1, scroll=False)
        self.scroll_end(animate=False, x_axis=False)


class EventsPanel(Vertical):
    """Both lists, one shown at a time, and the line in which a filter is typed.

    :param on_tab: called when another list is shown
    """

    def __init__(self, on_tab: Callable[[], None]) -> None:
        self.tails: dict[Tab, LogTail] = {
            "events": LogTail("events", "nothing has happened yet"),
            "log": LogTail("log", "no engine has said anything yet"),
        }
        self._input = Input(
            placeholder="words to look for; enter keeps them, escape drops them", id="filter", compact=True
        )
        super().__init__(*self.tails.values(), self._input, id="journal", classes="panel")
        self.tab: Tab = "events"
        self._on_tab = on_tab
        self._last_event = 0
        self._filter = ""
        self._hidden_panels = ""

    @property
    def tail(self) -> LogTail:
        return self.tails[self.tab]

    def on_mount(self) -> None:
        self._input.display = False
        for each in self.tails.values():
            self.watch(each, "follow", self._update_titles, init=False)

        self.show_tab("events")

    def show_tab(self, tab: Tab) -> None:
        focused = self.tail.has_focus
        self.tab = tab
        for name, each in self.tails.items():
            each.display = name == tab

        if focused:
            self.tail.focus()

        self._update_titles()
        self._on_tab()

    def name_hidden_panels(self, names: str) -> None:
        """Name the panels that have no place now, in the subtitle."""
        self._hidden_panels = names
        self._update_titles()

    def next_tab(self, step: int) -> None:
        self.show_tab(TABS[(TABS.index(self.tab) + step) % len(TABS)])

    def add_events(self, events: Sequence[Event]) -> None:
        """Add those that are new; a daemon with a fresh state counts from 1 again."""
        if events and events[-1]["id"] < self._last_event:
            self._last_event = 0
            self.tails["events"].clear()

        self.tails["events"].add([engine.event(each) for each in events if each["id"] > self._last_event])
        if events:
            self._last_event = events[-1]["id"]

    def add_log(self, texts: Sequence[str]) -> None:
        self.tails["log"].add([line(text, _role(text)) for text in texts])

    def open_filter(self) -> None:
        self._input.display = True
        self._input.focus()

    def close_filter(self) -> bool:
        """End the filter.

        :return: whether there was one
        """
        if not self._input.display and not self._filter:
            return False

        self._input.value = ""
        self._apply("")
        self._input.display = False
        self.tail.focus()
        return True

    def on_input_changed(self, event: Input.Changed) -> None:
        event.stop()
        self._apply(event.value)

    def on_input_submitted(self, event: Input.Submitted) -> None:
        event.stop()
        self._input.display = bool(event.value)
        self.tail.focus()

    def _apply(self, text: str) -> None:
        if text == self._filter:
            return

        self._filter = text
        for each in self.tails.values():
            each.filter(text)

        self._update_titles()

    def _update_titles(self) -> None:
        # Titles are markup for Textual; these are our own words alone.
        names = {"events": "Events", "log": "Log"}
        tabs = "  ".join(f"[b u]{names[each]}[/]" if each == self.tab else names[each] for each in TABS)
        self.border_title = f"5 {tabs}"
        state = ["filtered"] if self._filter else []
        state.append("following" if self.tail.follow else "f follows again")
        self.border_subtitle = "  ".join([*state, *([self._hidden_panels] if self._hidden_panels else [])])


def _role(text: str) -> Role:
    return "bad" if _BAD.search(text) else "warn" if _WARN.search(text) else ""
