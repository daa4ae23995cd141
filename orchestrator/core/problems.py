"""Everything that is wrong with a file, listed at once.

Readers take a `Problems` and go on after each finding, so that one code path serves both "start or refuse" and
"check and list everything".
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from orchestrator.core.errors import UsageError
from orchestrator.core.terminal import quote_text

Key = tuple[str | int, ...]
"""The place of a value in a TOML document: `("engine", "upstream", "memory", "fit_margin")`, list positions as ints."""

LineOf = Callable[[Key], int | None]
"""The line of a key, from 1; None where the parser cannot tell (a made-up number is worse than no number)."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One finding: where, what was found, what is allowed, and the nearest spelling if there is one."""

    message: str
    file: str | None = None
    line: int | None = None
    key: str | None = None
    hint: str | None = None

    def __str__(self) -> str:
        place = ":".join(str(part) for part in (self.file, self.line) if part is not None)
        text = f"{place}: {self.message}" if place else self.message
        text = f"{text} ({self.hint})" if self.hint else text
        # Keys and values are quoted from the file: they must not move a terminal's cursor.
        return quote_text(text)


class ProblemsError(UsageError):
    """Raised when a file has problems; carries all of them."""

    def __init__(self, what: str, problems: tuple[Problem, ...], *, hint: str | None = None) -> None:
        super().__init__(what, details=tuple(str(problem) for problem in problems), hint=hint)
        self.problems = problems


@dataclass(slots=True)
class Problems:
    """Collects findings about one file.

    :param file: the name shown before each finding
    :param line_of: finds the line of a key; asked only when there is something to report
    """

    file: str | None = None
    line_of: LineOf | None = None
    found: list[Problem] = field(default_factory=list)

    def add(self, key: Key, message: str, *, hint: str | None = None, line: int | None = None) -> None:
        if line is None and self.line_of is not None:
            line = self.line_of(key)

        self.found.append(Problem(message, self.file, line, dotted(key) or None, hint))

    def raise_if_any(self, what: str, *, hint: str | None = None) -> None:
        if self.found:
            raise ProblemsError(what, tuple(self.found), hint=hint)


def dotted(key: Key) -> str:
    """Return a key as TOML writes it: `("margins", 2)` is `margins[2]`."""
    text = ""
    for part in key:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            text += f".{part}" if text else part

    return text


def nearest(word: str, allowed: Iterable[str], *, cutoff: float = 0.6) -> str | None:
    """Return the allowed word closest to the one written, or None when none is close."""
    matches = difflib.get_close_matches(word, list(allowed), n=1, cutoff=cutoff)
    return matches[0] if matches else None


def did_you_mean(word: str, allowed: Iterable[str]) -> str | None:
    """Return a hint that names the nearest allowed word, or None when none is close."""
    match = nearest(word, allowed)
    return f"did you mean `{match}`?" if match else None
