"""A text over the dashboard: details, help, errors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.screen import ModalScreen
from textual.widgets import Static

from tui.text import BLANK, Line, cells, fit, line, plain, wrap
from tui.widgets.lines import Scrolled


class TextScreen(ModalScreen[None]):
    """Lines to read, wrapped to the width.

    :param copy: what `y` copies to the clipboard, if anything
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,q,enter", "dismiss", "Close"),
        Binding("y", "copy", "Copy"),
    ]

    def __init__(self, title: str, lines: Sequence[Line], *, copy: str | None = None) -> None:
        super().__init__()
        self._title = title
        self._given = list(lines)
        self._copy = copy

    def compose(self) -> ComposeResult:
        keys = "esc closes" + (", y copies" if self._copy else "")
        with Vertical(classes="dialog -text"):
            yield Static(self._title, classes="dialog-title", markup=False)
            yield Scrolled(id="text")
            yield Static(keys, classes="dialog-keys", markup=False)

    def on_mount(self) -> None:
        self.query_one(Scrolled).focus()
        self.call_after_refresh(self._fill)

    def on_resize(self) -> None:
        self.call_after_refresh(self._fill)

    def action_copy(self) -> None:
        if self._copy is not None:
            self.app.copy_to_clipboard(self._copy)
            self.app.notify("copied to the clipboard", markup=False)

    def _fill(self) -> None:
        box = self.query_one(Scrolled)
        width = max(box.size.width - 1, 20)
        box.show([part for each in self._given for part in wrapped(each, width)] or [BLANK])


def wrapped(spans: Line, width: int) -> list[Line]:
    """Split a line: its last span is wrapped below where it begins."""
    if cells(plain(spans)) <= width or not spans:
        return [spans]

    *heads, (text, role) = spans
    indent = cells(plain(tuple(heads)))
    if width - indent < 10:
        return [line(part) for part in wrap(plain(spans), width)]

    first, *rest = wrap(text, width - indent)
    return [(*heads, (first, role)), *((((" " * indent), ""), (part, role)) for part in rest)]


def facts(pairs: Sequence[tuple[str, str]], width: int = 14) -> list[Line]:
    """Return one line a pair: names at the left, values at the right."""
    return [((fit(name, width), "dim"), (value, "")) for name, value in pairs]
