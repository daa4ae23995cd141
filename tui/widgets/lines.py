"""Lines drawn as they are needed: a refresh redraws only those that changed, and nothing in them is markup."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from rich.segment import Segment
from rich.style import Style
from textual import events
from textual.binding import Binding, BindingType
from textual.geometry import Region, Size
from textual.message import Message
from textual.scroll_view import ScrollView
from textual.strip import Strip
from textual.widget import Widget

from tui.text import Line, cells, plain
from tui.widgets.colours import Palette


def strip_of(widget: Widget, spans: Line, *, cursor: bool = False) -> Strip:
    palette = Palette(widget)
    over = palette.cursor if cursor else Style.null()
    return Strip([Segment(text, palette.role(role) + over) for text, role in spans], cells(plain(spans)))


def is_drawn(widget: Widget) -> bool:
    """Return whether a widget has a place on the screen; lines for one without are not made."""
    return widget.size.width > 0 and all(
        node.display for node in widget.ancestors_with_self if isinstance(node, Widget)
    )


class Fixed(Widget):
    """Lines without scrolling, as many as there is room for."""

    def __init__(self, id: str | None = None) -> None:
        super().__init__(id=id)
        self._lines: list[Line] = []

    def show(self, lines: Sequence[Line]) -> None:
        before, self._lines = self._lines, list(lines)
        for y in range(max(len(before), len(lines))):
            if before[y : y + 1] != self._lines[y : y + 1]:
                self.refresh(Region(0, y, self.size.width, 1))

    def render_line(self, y: int) -> Strip:
        width = self.size.width
        if y >= len(self._lines):
            return Strip.blank(width, self.rich_style)

        return strip_of(self, self._lines[y]).crop_extend(0, width, self.rich_style)

    @property
    def text(self) -> str:
        return "\n".join(map(plain, self._lines))


class Scrolled(ScrollView, can_focus=True):
    """Lines that may be more than there is room for, with a cursor."""

    DEFAULT_CSS = "Scrolled { scrollbar-size: 1 1; overflow-x: hidden; }"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("j,down", "move(1)", "Down", show=False),
        Binding("k,up", "move(-1)", "Up", show=False),
        Binding("pagedown", "page(1)", "Page down", show=False),
        Binding("pageup", "page(-1)", "Page up", show=False),
        Binding("g,home", "first", "First", show=False),
        Binding("G,end", "last", "Last", show=False),
        Binding("left", "sideways(-8)", "Left", show=False),
        Binding("right", "sideways(8)", "Right", show=False),
        Binding("enter", "choose", "Details"),
    ]

    class Chosen(Message):
        """Posted when a person wants to know more about a line."""

        def __init__(self, source: Scrolled, index: int) -> None:
            super().__init__()
            self.source = source
            self.index = index

        @property
        def control(self) -> Scrolled:
            return self.source

    def __init__(self, id: str | None = None, *, head_lines: int = 0) -> None:
        """:param head_lines: so many lines at the top stay where they are, and the cursor never goes there"""
        super().__init__(id=id)
        self._lines: list[Line] = []
        self._head = head_lines
        self.cursor = head_lines
        self._widest = 0

    @property
    def text(self) -> str:
        return "\n".join(map(plain, self._lines))

    @property
    def lines(self) -> Sequence[Line]:
        return self._lines

    def show(self, lines: Sequence[Line]) -> None:
        """Replace the lines; the view stays where it is."""
        before, self._lines = self._lines, list(lines)
        self._widest = _widest(self._lines)
        self._resize()
        if len(before) != len(self._lines):
            self._set_cursor(self.cursor, scroll=False)

        for y in range(max(len(before), len(self._lines))):
            if before[y : y + 1] != self._lines[y : y + 1]:
                self._redraw(y)

    def append(self, lines: Sequence[Line], limit: int) -> None:
        """Add lines at the end; beyond `limit` the oldest go."""
        self._lines += lines
        self._widest = max(self._widest, _widest(lines))
        gone = max(len(self._lines) - limit, 0)
        del self._lines[:gone]
        self._resize()
        if gone:
            self.cursor = max(self.cursor - gone, self._head)

        self.refresh()

    def render_line(self, y: int) -> Strip:
        width = self.size.width
        index = y if y < self._head else y + self.scroll_offset.y
        if index >= len(self._lines):
            return Strip.blank(width, self.rich_style)

        x = self.scroll_offset.x
        cursor = self.has_focus and index == self.cursor and self._head <= index
        strip = strip_of(self, self._lines[index], cursor=cursor)
        style = self.rich_style + Palette(self).cursor if cursor else self.rich_style
        return strip.crop_extend(x, x + width, style)

    def action_move(self, by: int) -> None:
        self._set_cursor(self.cursor + by)

    def action_page(self, by: int) -> None:
        self._set_cursor(self.cursor + by * max(self.size.height - self._head - 1, 1))

    def action_first(self) -> None:
        self._set_cursor(self._head)

    def action_last(self) -> None:
        self._set_cursor(len(self._lines) - 1)

    def action_sideways(self, by: int) -> None:
        self.scroll_to(x=self.scroll_offset.x + by, animate=False)

    def action_choose(self) -> None:
        if self._head <= self.cursor < len(self._lines):
            self.post_message(self.Chosen(self, self.cursor))

    def on_click(self, event: events.Click) -> None:
        offset = event.get_content_offset(self)
        if offset is None or offset.y < self._head:
            return

        index = offset.y + self.scroll_offset.y
        again = index == self.cursor
        self._set_cursor(index)
        if again or event.chain == 2:
            self.action_choose()

    def _set_cursor(self, index: int, *, scroll: bool = True) -> None:
        last = max(len(self._lines) - 1, self._head)
        before, self.cursor = self.cursor, min(max(index, self._head), last)
        self._redraw(before)
        self._redraw(self.cursor)
        if not scroll:
            return

        top, room = self.scroll_offset.y + self._head, self.size.height - self._head
        if self.cursor < top:
            self.scroll_to(y=self.cursor - self._head, animate=False)
        elif self.cursor >= top + room:
            self.scroll_to(y=self.cursor - self._head - room + 1, animate=False)

    def _resize(self) -> None:
        size = Size(self._widest, len(self._lines))
        if size != self.virtual_size:
            self.virtual_size = size

    def _redraw(self, index: int) -> None:
        y = index if index < self._head else index - self.scroll_offset.y
        if 0 <= y < self.size.height:
            self.refresh(Region(0, y, self.size.width, 1))


def _widest(lines: Sequence[Line]) -> int:
    return max((cells(plain(each)) for each in lines), default=0)
