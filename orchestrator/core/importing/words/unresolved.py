"""Variables whose value the source does not say: marked inside a word, so that whoever reads it can tell."""

from __future__ import annotations

import re

_OPEN, _CLOSE = "\ue000", "\ue001"
_MARKED = re.compile(f"{_OPEN}([^{_CLOSE}]*){_CLOSE}")


def mark(name: str) -> str:
    """Return what stands in a word for a variable without a value."""
    return f"{_OPEN}{re.sub(r'[^!-~]+', '_', name)}{_CLOSE}"


def unresolved(text: str) -> tuple[str, ...]:
    """Return the names of the variables in a word that have no value."""
    return tuple(_MARKED.findall(text))


def readable(text: str) -> str:
    """Return a word as people write it: `${MODEL}`."""
    return _MARKED.sub(lambda found: "${" + found[1] + "}", text)
