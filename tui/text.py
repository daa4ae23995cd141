"""Lines of text whose parts have roles; what a role looks like is the theme's affair, or the terminal's."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from typing import Literal

from orchestrator.core.terminal import neutralise

Role = Literal["", "dim", "strong", "good", "warn", "bad", "accent", "engine", "others", "free"]
Span = tuple[str, Role]
Line = tuple[Span, ...]
"""Left to right. A line without spans is an empty one."""

BLANK: Line = ()
ELLIPSIS = "…"


def line(text: str, role: Role = "") -> Line:
    return ((text, role),)


def plain(spans: Line) -> str:
    return "".join(text for text, _ in spans)


def cells(text: str) -> int:
    """Return the number of terminal cells that a text takes (UAX 11: wide characters take two, combining ones none)."""
    return len(text) if text.isascii() else sum(map(_cells_of, text))


def fit(text: str, width: int, *, right: bool = False) -> str:
    """Cut or pad a text to exactly this many cells."""
    taken = cells(text)
    if taken > width:
        text = cut(text, width)
        taken = cells(text)

    padding = " " * (width - taken)
    return padding + text if right else text + padding


def cut(text: str, width: int) -> str:
    """Cut a text to at most this many cells; an ellipsis says that there was more."""
    if cells(text) <= width:
        return text

    taken, kept = 0, []
    for character in text:
        taken += _cells_of(character)
        if taken > width - 1:
            break

        kept.append(character)

    return "".join(kept) + ELLIPSIS if width > 0 else ""


def clip(spans: Line, width: int) -> Line:
    """Cut a line to at most this many cells."""
    kept: list[Span] = []
    for text, role in spans:
        if width <= 0:
            break

        kept.append((cut(text, width), role))
        width -= cells(text)

    return tuple(kept)


def wrap(text: str, width: int) -> list[str]:
    """Split a text into pieces of at most this many cells, at spaces where there are some."""
    pieces: list[str] = []
    for paragraph in text.split("\n"):
        rest = paragraph
        while cells(rest) > width:
            head = _head(rest, width)
            space = head.rfind(" ")
            end = space + 1 if space > 0 else len(head)
            pieces.append(rest[:end].rstrip())
            rest = rest[end:]

        pieces.append(rest)

    return pieces


def joined(parts: Iterable[Line], between: str = "  ") -> Line:
    """Join several lines to one; empty ones leave no gap."""
    spans: list[Span] = []
    for part in parts:
        if part:
            spans += [(between, ""), *part] if spans else part

    return tuple(spans)


def clean(value: object) -> object:
    """Return the JSON value with nothing in its texts that a terminal would obey."""
    match value:
        case str():
            return neutralise(value)
        case list():
            return [clean(each) for each in value]
        case dict():
            return {name: clean(each) for name, each in value.items()}
        case _:
            return value


def _head(text: str, width: int) -> str:
    taken = 0
    for index, character in enumerate(text):
        taken += _cells_of(character)
        if taken > width:
            return text[: max(index, 1)]

    return text


def _cells_of(character: str) -> int:
    if character.isascii():
        return 1

    if unicodedata.combining(character) or unicodedata.category(character) in ("Mn", "Me", "Cf"):
        return 0

    return 2 if unicodedata.east_asian_width(character) in "WF" else 1
