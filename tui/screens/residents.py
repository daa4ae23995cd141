"""What is loaded, as a list to act on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal, NamedTuple

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.screen import ModalScreen
from textual.widgets import Footer, OptionList, Static
from textual.widgets.option_list import Option

from orchestrator.api.types import InstanceStatus
from tui.text import plain
from tui.views.residents import resident

Verb = Literal["load", "unload", "pin", "focus"]
LINE_CELLS = 100


class ResidentAction(NamedTuple):
    """What is to be done; `row` is None where no profile was chosen: another one is loaded."""

    verb: Verb
    row: InstanceStatus | None


class ResidentsScreen(ModalScreen[ResidentAction | None]):
    """Gives what is to be done with which of them, or None."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("l", "act('load')", "Load another"),
        Binding("u", "act('unload')", "Unload"),
        Binding("p", "act('pin')", "Pin/unpin"),
        Binding("f,enter", "act('focus')", "Focus"),
        Binding("escape,q,m", "dismiss(None)", "Close"),
        Binding("j", "move('cursor_down')", "Down", show=False),
        Binding("k", "move('cursor_up')", "Up", show=False),
    ]

    def __init__(self, rows: Sequence[InstanceStatus]) -> None:
        super().__init__()
        self._rows = rows

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog -residents"):
            yield Static("Loaded", classes="dialog-title", markup=False)
            options = [Option(plain(resident(row, LINE_CELLS)), id=row["profile"]) for row in self._rows]
            yield OptionList(*options, markup=False, compact=True)
            if not options:
                yield Static("nothing is loaded", markup=False)

        yield Footer(compact=True, show_command_palette=False)

    def on_mount(self) -> None:
        choices = self.query_one(OptionList)
        choices.highlighted = 0 if self._rows else None
        choices.focus()

    def on_option_list_option_selected(self, event: OptionList.OptionSelected) -> None:
        self.action_act("focus")

    def action_move(self, action: str) -> None:
        getattr(self.query_one(OptionList), f"action_{action}")()

    def action_act(self, verb: Verb) -> None:
        at = self.query_one(OptionList).highlighted
        row = self._rows[at] if at is not None else None
        if verb == "load":
            self.dismiss(ResidentAction(verb, None))
        elif row is not None:
            self.dismiss(ResidentAction(verb, row))
