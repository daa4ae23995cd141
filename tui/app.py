"""The dashboard: asks the daemon for a frame once an interval, and gives it to the panels.

While no daemon answers it says so and goes on asking; the last figures stay, dimmed.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import functools
import os
import signal
import sys
import termios
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any, ClassVar, NamedTuple

from textual import events
from textual.app import App, ComposeResult, SystemCommand
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.screen import Screen
from textual.widget import Widget
from textual.widgets import Footer, Static

from orchestrator.api.top_frames import TopFrame
from orchestrator.api.types import Status
from orchestrator.core.errors import NotRunningError, OrchError, UsageError
from tui import keys
from tui.feed import Feed, FeedUpdate
from tui.operator import Operator
from tui.screens.text import TextScreen
from tui.source import FrameSource, error_texts
from tui.text import BLANK, Line, line
from tui.views import devices, engine, header, requests
from tui.widgets.events_panel import EventsPanel
from tui.widgets.lines import Fixed, Scrolled
from tui.widgets.panels import FramePanel, Requests, SpeedPanel

LEAST_CELLS = (60, 18)
WIDE_CELLS = (110, 32)
INTERVALS_S = (0.25, 0.5, 1.0, 2.0, 5.0, 10.0)


class LostDaemon(NamedTuple):
    """Why the daemon does not answer, and the time of day since when."""

    message: str
    hint: str
    since: str


class Dashboard(App[None]):
    """
    :param interval_s: seconds between two frames
    :param readonly: refuse every action that changes what runs
    :param keys: other keys for actions, by their names
    """

    TITLE = "orch top"
    CSS_PATH = "app.tcss"
    BINDINGS: ClassVar[list[BindingType]] = [keys.RESIDENTS_SHOWN, *keys.bindings()]

    def __init__(
        self,
        source: FrameSource,
        *,
        interval_s: float = 1.0,
        readonly: bool = False,
        keys: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__()
        self.source = source
        self.frame: TopFrame | None = None
        self.frames_seen = 0
        self.lost: LostDaemon | None = None
        self._interval_s = interval_s
        self._readonly = readonly
        self._own_keymap = dict(keys or {})
        self._paused = False
        self._feed = Feed(source)
        self._lower_panel = 4
        self._zoomed: int | None = None
        self._several = False
        self._refresh_asked = asyncio.Event()
        self.operator = Operator(self, self, source)

    def compose(self) -> ComposeResult:
        self._cells = self.size
        self.head = Fixed(id="head")
        self.events_panel = EventsPanel(self.refresh_now)
        self.speed, self.requests = SpeedPanel(), Requests()
        self.memory, self.engine = FramePanel("memory", devices.devices), FramePanel("engine", engine.engine)
        self.panels: dict[int, Widget] = dict(
            enumerate((self.speed, self.memory, self.engine, self.requests, self.events_panel), 1)
        )
        for number, title in ((1, "Speed"), (2, "Memory"), (3, "Engine"), (4, "Requests")):
            self.panels[number].border_title = f"{number} {title}"

        yield self.head
        with Vertical(id="body"):
            yield Horizontal(self.speed, self.memory, id="upper")
            yield Horizontal(self.engine, self.requests, self.events_panel, id="lower")

        yield Static(id="too-small", markup=False)
        yield Footer(compact=True, show_command_palette=False)

    def on_mount(self) -> None:
        if self._own_keymap:
            self.set_keymap(self._own_keymap)

        if not self.is_headless:
            loop = asyncio.get_running_loop()
            for number in (signal.SIGTERM, signal.SIGHUP):  # Textual heeds neither, and leaves the terminal raw
                signal.signal(number, functools.partial(self._end_on_signal, loop))

        self._arrange()
        self.requests.focus()
        self.draw_head()
        self.run_worker(self._watch(), group="feed", exit_on_error=True)

    def _end_on_signal(self, loop: asyncio.AbstractEventLoop, number: int, frame: object) -> None:
        """Handle a signal, and not in the loop: once the terminal is gone, Textual's writing thread is dead, its queue
        full, and the loop waits for room in it for ever.
        """
        try:
            termios.tcgetattr(sys.__stdin__ if sys.__stdin__ is not None else 0)
        except termios.error as error:
            if error.args[0] == errno.EIO:  # hung up: there is nothing to leave in order
                os._exit(128 + number)

        loop.call_soon_threadsafe(functools.partial(self.exit, return_code=128 + number))

    def on_resize(self, event: events.Resize) -> None:
        self._cells = event.size  # `size` is still that of before
        self._arrange()
        self.draw_head()

    # The feed.

    async def _watch(self) -> None:
        while True:
            self._refresh_asked.clear()
            try:
                update = await self._feed.fetch(with_log=self.events_panel.display and self.events_panel.tab == "log")
            except (OrchError, OSError) as error:
                self._show_no_answer(error)
            else:
                self._show_update(update)

            with contextlib.suppress(TimeoutError):  # nobody was in a hurry
                await asyncio.wait_for(self._refresh_asked.wait(), self._interval_s)

    def _show_update(self, update: FeedUpdate) -> None:
        if self.lost is not None:
            self.lost = None
            self.screen_stack[0].remove_class("-stale")
            if self.frame is not None:
                self.tell("the daemon answers again")

        if update.log_restarted:
            self.events_panel.tails["log"].clear()

        self.events_panel.add_log(update.log)
        self.frames_seen += 1
        if not self._paused:
            self.frame = update.frame
            self.draw()

    def _show_no_answer(self, error: OrchError | OSError) -> None:
        message, _, hint = error_texts(error)
        if isinstance(error, UsageError):  # it does not know what a frame is
            hint = "the daemon is of another version: end it with `orch down --all`, then `orch up`"

        if self.lost is None:
            self.lost = LostDaemon(message, hint, datetime.now().strftime("%H:%M:%S"))
            self.screen_stack[0].add_class("-stale")
            if not isinstance(error, NotRunningError):
                self.operator.keep_error(error)
        else:
            self.lost = LostDaemon(message, hint, self.lost.since)

        self.draw_head()

    def refresh_now(self) -> None:
        """Ask for a frame now rather than at the next interval."""
        self._refresh_asked.set()

    # Drawing.

    def draw(self) -> None:
        frame = self.frame
        if frame is None:
            return

        self.draw_head()
        several = len(frame["status"].get("instances", [])) > 1
        if several != self._several:
            self._several = several
            self.refresh_bindings()

        for panel in (self.speed, self.memory, self.engine, self.requests):
            panel.update_frame(frame)

        self.events_panel.add_events(frame["events"])

    def current_status(self) -> Status | None:
        """Return the status as of the newest frame; None while the daemon does not answer."""
        return self.frame["status"] if self.frame is not None and self.lost is None else None

    def draw_head(self) -> None:
        width = max(self._cells.width - 2, 10)
        if self.lost is not None:
            lines = header.without_daemon(self.frame, *self.lost, width)
        elif self.frame is None:
            lines = [line("asking the daemon …", "dim")]
        else:
            lines = header.head(self.frame, width)
            if self.operator.activity:
                lines[2] = line(f"⇄ {self.operator.activity}", "accent")

            marks = [*(["paused"] if self._paused else []), *(["read-only"] if self._readonly else [])]
            if marks:
                lines[2] = header.spread(lines[2], line(", ".join(marks), "warn"), width)

        self.head.show(lines)

    def _arrange(self) -> None:
        """Give the panels their places: all on a large terminal, three on a small one, one while it is zoomed."""
        width, height = self._cells
        base = self.screen_stack[0]
        tiny = width < LEAST_CELLS[0] or height < LEAST_CELLS[1]
        base.set_class(tiny, "-tiny")
        if tiny:
            needed = f"{LEAST_CELLS[0]} x {LEAST_CELLS[1]}"
            text = f"the dashboard needs {needed} cells, this terminal has {width} x {height}"
            base.query_one("#too-small", Static).update(text)
            return

        wide = width >= WIDE_CELLS[0] and height >= WIDE_CELLS[1]
        base.set_class(wide and self._zoomed is None, "-wide")
        base.set_class(self._zoomed is not None, "-zoomed")
        for number, panel in self.panels.items():
            has_place = number <= 2 or wide or number == self._lower_panel
            panel.display = number == self._zoomed if self._zoomed else has_place

        base.query_one("#upper").display = self._zoomed in (None, 1, 2)
        base.query_one("#lower").display = self._zoomed not in (1, 2)
        others = [] if wide or self._zoomed else [n for n in (3, 4, 5) if n != self._lower_panel]
        names = {3: "Engine", 4: "Requests", 5: "Log"}
        also = "  ".join(f"{number} {names[number]}" for number in others)
        for number in (3, 4):
            self.panels[number].border_subtitle = also

        self.events_panel.name_hidden_panels(also)
        self.call_after_refresh(self.draw)

    # What the keys do (keys.py).

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        if action == keys.RESIDENTS_SHOWN.action:
            return self._several and not self._readonly

        return not (self._readonly and any(each.changes and each.name == action for each in keys.ACTIONS))

    def get_system_commands(self, screen: Screen[Any]) -> Iterable[SystemCommand]:
        for each in keys.ACTIONS:
            if each.name not in ("command_palette", "back") and not (self._readonly and each.changes):
                yield SystemCommand(each.title, each.help, self._runner(each.name))

    def _runner(self, action: str) -> Any:
        async def run() -> None:
            await self.run_action(action)

        return run

    def tell(self, text: str) -> None:
        self.notify(text, markup=False, timeout=4)

    def complain(self, text: str) -> None:
        self.notify(text, title="E shows it again", severity="error", markup=False, timeout=8)

    def action_switch(self) -> None:
        self.operator.start(self.operator.switch)

    def action_start_stop(self) -> None:
        self.operator.start(self.operator.start_stop)

    def action_restart(self) -> None:
        self.operator.start(self.operator.restart)

    def action_stop_now(self) -> None:
        self.operator.start(self.operator.stop_now)

    def action_cancel_switch(self) -> None:
        self.operator.start(self.operator.cancel)

    def action_cancel_request(self) -> None:
        row = self.requests.chosen
        if row is None or row["outcome"] not in ("held", "running"):
            self.tell("choose a request that waits or runs: 4, then j and k")
            return

        self.operator.start(functools.partial(self.operator.cancel_request, row))

    def action_residents(self) -> None:
        self.operator.start(self.operator.residents)

    action_shown_residents = action_residents

    def action_engine_menu(self) -> None:
        self.operator.start(self.operator.menu)

    def action_copy_command(self) -> None:
        self.operator.start(self.operator.command_line)

    def action_vram(self) -> None:
        self.operator.start(self.operator.vram)

    def action_last_error(self) -> None:
        self.operator.show_errors()

    def action_help(self) -> None:
        lines: list[Line] = []
        for each in keys.ACTIONS:
            shown = self._keys_of(each)
            refused = self._readonly and each.changes
            text = f"{each.help}{' (refused: --readonly)' if refused else ''}"
            name = keys.id_of(each)
            lines.append(((f"{shown:<14}", "accent"), (f"{name:<18}", "dim" if refused else "strong"), (text, "")))

        lines += [BLANK, *(((f"{shown:<14}", "accent"), (f"{'':<18}{text}", "")) for shown, text in keys.LIST_KEYS)]
        lines += [BLANK, line("another key for an action: orch top --key NAME=KEY", "dim")]
        self.push_screen(TextScreen("Keys", lines))

    def _keys_of(self, action: keys.Action) -> str:
        asked = self._own_keymap.get(keys.id_of(action), action.keys)
        return " ".join(self.get_key_display(Binding(key, "")) for key in asked.split(","))

    def action_panel(self, number: int) -> None:
        if number >= 3:
            self._lower_panel = number

        if self._zoomed is not None:
            self._zoomed = number

        self._arrange()
        self._focus(number)

    def _focus(self, number: int) -> None:
        panel = self.panels[number]
        (self.events_panel.tail if panel is self.events_panel else panel).focus()

    def action_previous_tab(self) -> None:
        self.events_panel.next_tab(-1)
        self.action_panel(5)

    def action_next_tab(self) -> None:
        self.events_panel.next_tab(1)
        self.action_panel(5)

    def action_open_log(self) -> None:
        self._zoomed = 5
        self.events_panel.show_tab("log")
        self.action_panel(5)

    def action_zoom(self) -> None:
        focused = self.focused
        number = next(
            (n for n, panel in self.panels.items() if focused is not None and panel in focused.ancestors_with_self),
            None,
        )
        self._zoomed = None if self._zoomed is not None else number or self._lower_panel
        if self._zoomed is not None and self._zoomed >= 3:
            self._lower_panel = self._zoomed

        self._arrange()

    async def action_back(self) -> None:
        if self.events_panel.close_filter():
            return

        if self._zoomed is not None:
            self._zoomed = None
            self._arrange()

    def action_filter(self) -> None:
        self.action_panel(5)
        self.events_panel.open_filter()

    def action_follow(self) -> None:
        self.events_panel.tail.follow = not self.events_panel.tail.follow

    def action_pause(self) -> None:
        self._paused = not self._paused
        self.draw_head()
        self.refresh_now()

    def action_faster(self) -> None:
        slower = [each for each in INTERVALS_S if each < self._interval_s]
        self._set_interval(slower[-1] if slower else self._interval_s)

    def action_slower(self) -> None:
        longer = [each for each in INTERVALS_S if each > self._interval_s]
        self._set_interval(longer[0] if longer else self._interval_s)

    def _set_interval(self, interval_s: float) -> None:
        self._interval_s = interval_s
        self.tell(f"a look every {interval_s:g} s")
        self.refresh_now()

    def action_sort_left(self) -> None:
        self.requests.sort_by(-1)

    def action_sort_right(self) -> None:
        self.requests.sort_by(1)

    def action_reverse_sort(self) -> None:
        self.requests.reverse()

    def on_scrolled_chosen(self, message: Scrolled.Chosen) -> None:
        if message.source is self.requests:
            row = self.requests.chosen
            if row is not None:
                self.push_screen(TextScreen(f"Request {row['id']}", requests.details(row)))
        elif isinstance(self.screen, TextScreen):
            self.screen.dismiss()
        else:
            self.push_screen(TextScreen("Line", [message.source.lines[message.index]]))
