"""Speed now, and as a line over time in braille: two columns and four rows of dots a cell (Unicode 2800 to 28FF)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

from orchestrator.api.top_frames import TopFrame
from tui import figures
from tui.text import BLANK, Line, cells, fit, joined, line, plain
from tui.views.header import spread

Kind = Literal["decode", "prompt"]
LABEL_CELLS = 6
_DOTS = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))
"""The bit of a dot by its row, from the top, and its column."""


def series(frame: TopFrame, kind: Kind, width: int, height: int) -> list[Line]:
    """Return a title with the present figures, and the plot below it; the newest point is at the right."""
    title = _title(frame, kind, width)
    columns, rows = width - LABEL_CELLS, height - 1
    if columns < 4 or rows < 1:
        return [title]

    values = [each["decode_tok_s"] if kind == "decode" else each["prompt_tok_s"] for each in frame["points"]]
    if all(value is None for value in values):
        return [title]

    drawn, top = plot(values, columns, rows)
    lines = [title]
    for number, text in enumerate(drawn):
        label = figures.rate(top) if number == 0 else "0" if number == rows - 1 else ""
        lines.append(((text, "accent" if kind == "decode" else "others"), (fit(label, LABEL_CELLS, right=True), "dim")))

    return lines


def span_s(frame: TopFrame, width: int) -> float | None:
    """Return the time that the plot spans, s; None without two points."""
    shown = frame["points"][-max(width - LABEL_CELLS, 1) * 2 :]
    return shown[-1]["at_s"] - shown[0]["at_s"] if len(shown) > 1 else None


def plot(values: Sequence[float | None], columns: int, rows: int) -> tuple[list[str], float]:
    """Return the newest values as `rows` texts of `columns` cells, and the value at the upper edge; the lower one is 0.

    Where nothing is known the line has a gap.
    """
    shown = list(values)[-columns * 2 :]
    top = nice(max((value for value in shown if value is not None), default=0.0))
    grid = [[0] * columns for _ in range(rows)]
    highest = rows * 4 - 1
    start = columns * 2 - len(shown)
    before: int | None = None
    for index, value in enumerate(shown):
        if value is None:
            before = None
            continue

        dot = round(min(max(value / top, 0.0), 1.0) * highest)
        x = start + index
        low, high = (dot, dot) if before is None else (min(before, dot), max(before, dot))
        if before is not None and high > low:  # the point before has drawn its own dot already
            low, high = (low + 1, high) if dot > before else (low, high - 1)

        for y in range(low, high + 1):
            row = highest - y
            grid[row // 4][x // 2] |= _DOTS[row % 4][x % 2]

        before = dot

    return ["".join(chr(0x2800 + bits) if bits else " " for bits in row) for row in grid], top


def nice(value: float) -> float:
    """Return a round number not below the value: an upper edge that does not move with every point."""
    if value <= 1:
        return 1.0

    power = 10.0 ** math.floor(math.log10(value))
    return next(
        (step * power for step in (1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 8, 10) if step * power >= value), 10 * power
    )


def _title(frame: TopFrame, kind: Kind, width: int) -> Line:
    """Return the present figures, with those measured last while there is nothing to measure, if they fit."""
    rates, last = frame["rates"], frame["status"]["speed"]
    now, before = (
        (rates["decode_tok_s"], last["decode_tok_s"])
        if kind == "decode"
        else (rates["prompt_tok_s"], last["prompt_tok_s"])
    )
    left: Line = ((f"{kind} ", "dim"), (f"{figures.rate(now)} tok/s", "strong" if now else ""))
    right = _drafts(frame) if kind == "decode" else _cache(frame)
    if not now and before is not None:
        longer = joined([left, line(f"last {figures.rate(before)}", "dim")])
        if cells(plain(longer)) + 2 + cells(plain(right)) <= width:
            left = longer

    return spread(left, right, width)


def _drafts(frame: TopFrame) -> Line:
    now = frame["rates"]["draft_acceptance"]
    accepted = now if now is not None else frame["status"]["speed"]["draft_acceptance"]
    if accepted is None:
        return BLANK

    role = figures.acceptance_role(accepted)
    return ((f"{'! ' if role == 'warn' else ''}drafts {figures.share(accepted)}", role),)


def _cache(frame: TopFrame) -> Line:
    used = frame["rates"]["kv_used"]
    return BLANK if used is None else line(f"KV cache {figures.share(used)}", "warn" if used > 0.9 else "")
