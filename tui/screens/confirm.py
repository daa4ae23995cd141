"""Questions to the user: yes or no before requests are cut off, and one of a few choices."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.screen import ModalScreen
from textual.widgets import Button, OptionList, Static
from textual.widgets.option_list import Option


class ConfirmScreen(ModalScreen[bool]):
    """Yes or no; no is chosen at first."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("y", "answer(True)", "Yes"),
        Binding("n,escape,q", "answer(False)", "No"),
        Binding("left,right", "app.focus_next", "Other", show=False),
    ]

    def __init__(self, question: str, consequences: Sequence[str], yes: str) -> None:
        super().__init__()
        self._question = question
        self._consequences = consequences
        self._yes = yes

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog -confirm"):
            yield Static(self._question, classes="dialog-title", markup=False)
            for each in self._consequences:
                yield Static(f"· {each}", markup=False)

            with Horizontal(classes="dialog-buttons"):
                yield Button("No (n)", id="no", compact=True)
                yield Button(f"{self._yes} (y)", id="yes", variant="error", compact=True)

    def on_mount(self) -> None:
        self.query_one("#no").focus()

    def on_button_pressed(self, event: Button.Pressed) -> None:
        self.dismiss(event.button.id == "yes")

    def action_answer(self, answer: bool) -> None:
        self.dismiss(answer)


class MenuScreen(ModalScreen[str | None]):
    """One of a few choices.

    :param choices: what is returned, and what is shown
    """

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape,q", "dismiss(None)", "Close")]

    def __init__(self, title: str, choices: Sequence[tuple[str, str]]) -> None:
        super().__init__()
        self._title = title
        self._choices = choices

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog -confirm"):
            yield Static(self._title, classes="dialog-title", markup=False)
            yield OptionList(*(Option(text, id=name) for name, text in self._choices), markup=False, compact=True)
            yield Static("enter chooses, esc closes", classes="dialog-keys", markup=False)

    def on_option_list_option_selected(self, event: OptionList.OptionSelected) -> None:
        self.dismiss(event.option_id)
