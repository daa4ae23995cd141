"""The choice of a target to switch to, with a preview of the switch."""

from __future__ import annotations

import asyncio
from typing import ClassVar

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.screen import ModalScreen
from textual.widgets import OptionList, Static
from textual.widgets.option_list import Option

from orchestrator.api.choices import TargetChoice, Targets
from orchestrator.api.types import GatewayStatus
from orchestrator.core.errors import OrchError
from tui.source import FrameSource, error_texts
from tui.text import Line, line, wrap
from tui.views.preview import preview
from tui.widgets.lines import Scrolled

SETTLE_S = 0.12
"""A choice that is passed over quicker than this is not previewed."""


class SwitchScreen(ModalScreen[str | None]):
    """Gives `profile@engine`, or None.

    :param gateway: how many requests run and wait right now
    :param drain_s: how long those that run may take to end
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,q", "dismiss(None)", "Close"),
        Binding("j", "list('cursor_down')", "Down", show=False),
        Binding("k", "list('cursor_up')", "Up", show=False),
    ]

    def __init__(
        self, targets: Targets, source: FrameSource, gateway: GatewayStatus | None, drain_s: float | None
    ) -> None:
        super().__init__()
        self._targets = targets
        self._source = source
        self._gateway = gateway
        self._drain_s = drain_s
        self.previewed: str | None = None

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog -switch"):
            yield Static("Switch to", classes="dialog-title", markup=False)
            with Horizontal():
                yield OptionList(*map(_option, self._targets["targets"]), id="targets", markup=False, compact=True)
                yield Scrolled(id="preview")

            yield Static("enter switches, tab to the preview, esc closes", classes="dialog-keys", markup=False)

    def on_mount(self) -> None:
        choices = self.query_one(OptionList)
        running = next((n for n, each in enumerate(self._targets["targets"]) if each["running"]), None)
        choices.highlighted = running if running is not None else 0
        choices.focus()
        if not self._targets["targets"]:
            self.call_after_refresh(self._show, [line("nothing can be started", "bad"), *self._left_out()])

    def action_list(self, action: str) -> None:
        choices = self.query_one(OptionList)
        if choices.has_focus:
            getattr(choices, f"action_{action}")()
        else:
            self.query_one(Scrolled).action_move(1 if action == "cursor_down" else -1)

    def on_option_list_option_highlighted(self, event: OptionList.OptionHighlighted) -> None:
        if event.option_id is not None:
            self.run_worker(self._preview(event.option_id), exclusive=True, exit_on_error=False)

    def on_option_list_option_selected(self, event: OptionList.OptionSelected) -> None:
        self.dismiss(event.option_id)

    async def _preview(self, target: str) -> None:
        await asyncio.sleep(SETTLE_S)
        try:
            plan = await asyncio.to_thread(self._source.post, "/v1/switch", {"target": target, "dry_run": True})
        except OrchError as error:
            message, details, hint = error_texts(error)
            self._show([line(message, "bad"), *map(line, details), line(hint, "accent")])
        else:
            self._show([*preview(plan, self._gateway, self._drain_s, self._width), *self._left_out()])

        self.previewed = target

    def _left_out(self) -> list[Line]:
        if not self._targets["left_out"]:
            return []

        lines = [line(""), line("not offered:", "dim")]
        for each in self._targets["left_out"]:
            lines += [line(part, "dim") for part in wrap(f"- {each}", self._width)]

        return lines

    @property
    def _width(self) -> int:
        return max(self.query_one(Scrolled).size.width - 1, 20)

    def _show(self, lines: list[Line]) -> None:
        box = self.query_one(Scrolled)
        box.show(lines)
        box.scroll_to(y=0, animate=False)


def _option(each: TargetChoice) -> Option:
    name = f"{each['profile']}@{each['engine']}"
    return Option(Text(f"{'●' if each['running'] else ' '} {name}"), id=name)
