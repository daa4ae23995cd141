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
    """How many cells of a terminal a text takes (UAX 11: wide characters take two, combining ones none)."""
    return len(text) if text.isascii() else sum(map(_cells_of, text))


def fit(text: str, width: int, *, right: bool = False) -> str:
    """A text cut or padded to exactly this many cells."""
    taken = cells(text)
    if taken > width:
        text = cut(text, width)
        taken = cells(text)

    padding = " " * (width - taken)
    return padding + text if right else text + padding


def cut(text: str, width: int) -> str:
    """At most this many cells of a text; an ellipsis says that there was more."""
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
    """At most this many cells of a line."""
    kept: list[Span] = []
    for text, role in spans:
        if width <= 0:
            break

        kept.append((cut(text, width), role))
        width -= cells(text)

    return tuple(kept)


def wrap(text: str, width: int) -> list[str]:
    """A text in pieces of at most this many cells, at spaces where there are some."""
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
    """Several lines as one; empty ones leave no gap."""
    spans: list[Span] = []
    for part in parts:
        if part:
            spans += [(between, ""), *part] if spans else part

    return tuple(spans)


def clean(value: object) -> object:
    """The same JSON value, with nothing in its texts that a terminal would obey."""
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
