"""Tables: as many columns as there is room for, rows sorted by any of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from tui.text import Line, Role, Span, fit

R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Column(Generic[R]):
    """One column.

    :ivar cell: what to show of a row
    :ivar key: what to sort by; rows of which it is not known come last
    :ivar width: cells; 0 takes what is left
    :ivar weight: the lightest columns go first where there is no room
    """

    name: str
    width: int
    cell: Callable[[R], tuple[str, Role]]
    key: Callable[[R], Any]
    right: bool = True
    weight: int = 0


def fitting(columns: Sequence[Column[R]], width: int, least_rest: int = 12) -> list[Column[R]]:
    """Return the columns that there is room for, in their order."""
    kept = list(columns)
    while kept and sum((column.width or least_rest) + 1 for column in kept) - 1 > width and len(kept) > 1:
        kept.remove(min(kept, key=lambda column: column.weight))

    return kept


def header(columns: Sequence[Column[R]], width: int, sort: str | None, *, reverse: bool) -> Line:
    """Return the columns' names, with an arrow at the one that the rows are sorted by."""
    spans: list[Span] = []
    for column, room in _rooms(columns, width):
        arrow = ("▼" if reverse else "▲") if column.name == sort else ""
        spans.append((fit(column.name + arrow, room, right=column.right) + " ", "accent" if arrow else "dim"))

    return tuple(spans)


def row(columns: Sequence[Column[R]], width: int, item: R) -> Line:
    spans: list[Span] = []
    for column, room in _rooms(columns, width):
        text, role = column.cell(item)
        spans.append((fit(text, room, right=column.right) + " ", role))

    return tuple(spans)


def ordered(rows: Iterable[R], columns: Sequence[Column[R]], sort: str | None, *, reverse: bool) -> list[R]:
    """Sort the rows by one column; without one they stay as they come."""
    column = next((each for each in columns if each.name == sort), None)
    items = list(rows)
    if column is None:
        return items

    key = column.key
    known = [each for each in items if key(each) is not None]
    return sorted(known, key=key, reverse=reverse) + [each for each in items if key(each) is None]


def _rooms(columns: Sequence[Column[R]], width: int) -> list[tuple[Column[R], int]]:
    taken = sum(column.width + 1 for column in columns if column.width)
    flexible = sum(1 for column in columns if not column.width)
    rest = max((width - taken) // flexible - 1, 0) if flexible else 0
    return [(column, column.width or rest) for column in columns]
