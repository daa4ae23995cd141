"""Reads TOML with positions: the line of a key, and the line of a syntax error.

tomlkit keeps a document's text exactly but carries no positions, so a key's line is found by putting a mark in place of
its value, writing the document out, and counting the lines before the mark. That is slow, and paid only for an error.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Mapping
from typing import Any

from orchestrator.core.problems import Key, LineOf, Problems, dotted

_MARK = "orch-mark-6d1f3c0a"

_LARGEST = 1 << 63
_SHOWN_DEPTH = 8

_PLACE = re.compile(r" \(at (?:line (\d+), column (\d+)|end of document)\)$")


def parse_toml(text: str, problems: Problems) -> dict[str, object] | None:
    """Parse a document; None after a syntax error, which becomes a problem with its line and column."""
    try:
        document = tomllib.loads(text)
        key = _find_too_large(document)
        if key is None:
            return document

        problems.add((), f"`{dotted(key)}`: a number needs more than 64 bits", line=line_finder(text)(key))
    except tomllib.TOMLDecodeError as error:
        # The position is only in the text of the message before Python 3.14.
        message = str(error)
        match = _PLACE.search(message)
        what = message[: match.start()] if match else message
        line, column = _end_of(text) if match is None or match[1] is None else (int(match[1]), int(match[2]))
        problems.add((), f"{what} at column {column}", line=line, hint=_hint(text))
    except RecursionError:
        problems.add((), "nested too deeply")
    except ValueError as error:  # a number of thousands of digits
        problems.add((), f"a value cannot be read: {error}")

    return None


def _find_too_large(document: Mapping[str, object]) -> Key | None:
    """Return the place of a number that TOML does not allow (more than 64 bits, which breaks sums and messages)."""
    waiting: list[tuple[Key, object]] = [((), document)]
    while waiting:
        key, value = waiting.pop()
        children: Iterable[tuple[str | int, object]] = ()
        if isinstance(value, Mapping):
            children = value.items()
        elif isinstance(value, list):
            children = enumerate(value)
        elif isinstance(value, int) and not -_LARGEST <= value < _LARGEST:
            return key

        # The place of what lies very deep is told by its first names: a long key of dots would cost its square.
        waiting += [((*key, name) if len(key) < _SHOWN_DEPTH else key, each) for name, each in children]

    return None


def _end_of(text: str) -> tuple[int, int]:
    lines = text.split("\n")
    return len(lines), len(lines[-1]) + 1


def _hint(text: str) -> str | None:
    if re.search(r"^\s*engine\s*=", text, re.M) and re.search(r"^\s*\[\s*engine\s*\.", text, re.M):
        return 'beside `[engine.ID...]` tables, write the default engine as `[engine]` with `default = "ID"`'

    return None


def line_finder(text: str) -> LineOf:
    """Return a function that finds the line of a key in this document.

    A key that is not there gets the line of the nearest table around it, and None where that is the whole document.
    """

    def line_of(key: Key) -> int | None:
        for length in range(len(key), 0, -1):
            line = _line(text, key[:length])
            if line is not None:
                return line

        return None

    return line_of


def _line(text: str, key: Key) -> int | None:
    from tomlkit.exceptions import TOMLKitError

    try:
        written = _with_mark(text, key)
    except (TOMLKitError, KeyError, IndexError, TypeError, ValueError, AttributeError):
        # Not in the document, or in a shape that tomlkit cannot edit.
        return None

    at = written.find(_MARK)
    return written.count("\n", 0, at) + 1 if at >= 0 else None


def _with_mark(text: str, key: Key) -> str:
    import tomlkit
    from tomlkit.items import AoT, InlineTable, Table

    document = tomlkit.parse(text)
    container: Any = document
    for part in key[:-1]:
        container = container[part]

    item: Any = container[key[-1]]
    while isinstance(item, Table) and item.is_super_table():
        # `[a.b]` alone writes no header for `a`: the first header below it is where `a` begins.
        container, name = item, next(iter(item))
        item = container[name]
        key = (name,)

    if isinstance(item, Table) and not isinstance(item, InlineTable):
        item.comment(_MARK)
    elif isinstance(item, AoT):
        item[0].comment(_MARK)
    elif isinstance(item, Mapping) and not isinstance(item, InlineTable):
        # A table declared in several places; the first of its keys stands for it.
        return _with_mark(text, (*key, next(iter(item))))
    else:
        container[key[-1]] = _MARK

    return tomlkit.dumps(document)
