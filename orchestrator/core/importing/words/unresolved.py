"""Variables whose value the source does not say: marked inside a word, so that whoever reads it can tell."""

from __future__ import annotations

import re

_OPEN, _CLOSE = "\ue000", "\ue001"
_MARKED = re.compile(f"{_OPEN}([^{_CLOSE}]*){_CLOSE}")

EMPTY = ":-"
"""Behind the name of a variable that the source leaves empty where nobody sets it: `${NAME:-}`."""


def mark(name: str) -> str:
    """Return what stands in a word for a variable without a value."""
    return f"{_OPEN}{re.sub(r'[^!-~]+', '_', name)}{_CLOSE}"


def unresolved(text: str) -> tuple[str, ...]:
    """Return the names of the variables in a word that have no value."""
    return tuple(name.removesuffix(EMPTY) for name in _MARKED.findall(text))


def is_empty(text: str) -> bool:
    """Return whether a word is nothing but variables that are empty unless somebody sets them."""
    return bool(text) and all(name.endswith(EMPTY) for name in _MARKED.findall(text)) and not _MARKED.sub("", text)


def readable(text: str) -> str:
    """Return a word as people write it: `${MODEL}`."""
    return _MARKED.sub(lambda found: "${" + found[1] + "}", text)
