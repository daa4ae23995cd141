"""The panels that show a frame. Each draws only what differs from the frame before, and nothing while it is hidden."""

from __future__ import annotations

from collections.abc import Callable

from textual.containers import Vertical

from orchestrator.api.top_frames import RequestRow, TopFrame
from tui import figures
from tui.text import Line, line
from tui.views import requests, speed, tables
from tui.widgets.lines import Fixed, Scrolled, is_drawn


class Series(Fixed):
    """One kind of speed, as a figure and a plot."""

    def __init__(self, kind: speed.Kind) -> None:
        super().__init__(id=kind)
        self._kind: speed.Kind = kind
        self._frame: TopFrame | None = None

    def update_frame(self, frame: TopFrame) -> None:
        self._frame = frame
        if is_drawn(self):
            self.show(speed.series(frame, self._kind, self.size.width, self.size.height))

    def on_resize(self) -> None:
        if self._frame is not None:
            self.update_frame(self._frame)


class SpeedPanel(Vertical, can_focus=True):
    """Panel 1."""

    def __init__(self) -> None:
        self._series = (Series("decode"), Series("prompt"))
        super().__init__(*self._series, id="speed", classes="panel")

    def update_frame(self, frame: TopFrame) -> None:
        for each in self._series:
            each.update_frame(frame)

        span_s = speed.span_s(frame, self._series[0].size.width)
        # Set only when it is another text: a border is drawn anew as a whole.
        text = f"last {figures.duration(span_s)}" if span_s else ""
        if self.border_subtitle != text:
            self.border_subtitle = text


class FramePanel(Scrolled):
    """A panel of lines.

    :param lines_of: makes them from the frame and the panel's width
    """

    def __init__(self, id: str, lines_of: Callable[[TopFrame, int], list[Line]], *, head_lines: int = 0) -> None:
        super().__init__(id=id, head_lines=head_lines)
        self.add_class("panel")
        self._lines_of = lines_of
        self.frame: TopFrame | None = None

    def update_frame(self, frame: TopFrame) -> None:
        self.frame = frame
        if is_drawn(self):
            self.show(self._lines_of(frame, self.scrollable_content_region.width))

    def on_resize(self) -> None:
        if self.frame is not None:
            self.update_frame(self.frame)


class Requests(FramePanel):
    """Panel 4. The cursor stays on its request while others come."""

    def __init__(self) -> None:
        super().__init__("requests", self._table, head_lines=1)
        self._rows: list[RequestRow] = []
        self._sort: str | None = None
        self._reverse = False

    def _table(self, frame: TopFrame, width: int) -> list[Line]:
        chosen = self.chosen if self.cursor > 1 else None
        columns = tables.fitting(requests.COLUMNS, width)
        self._rows = tables.ordered(frame["requests"], columns, self._sort, reverse=self._reverse)
        if chosen is not None:
            at = next((index for index, row in enumerate(self._rows) if row["id"] == chosen["id"]), None)
            self.cursor = self.cursor if at is None else at + 1

        head = tables.header(columns, width, self._sort, reverse=self._reverse)
        rows = [tables.row(columns, width, each) for each in self._rows]
        return [head, *(rows or [line("no request yet", "dim")])]

    @property
    def chosen(self) -> RequestRow | None:
        index = self.cursor - 1
        return self._rows[index] if 0 <= index < len(self._rows) else None

    def sort_by(self, step: int) -> None:
        """The next column, or the one before; at either end none."""
        names = [None, *(column.name for column in tables.fitting(requests.COLUMNS, self.size.width))]
        at = names.index(self._sort) if self._sort in names else 0
        self._sort = names[(at + step) % len(names)]
        self.on_resize()

    def reverse(self) -> None:
        self._reverse = not self._reverse
        self.on_resize()
