"""The one module that writes to stderr, and the one that knows exit codes."""

from __future__ import annotations

import os
import sys

from orchestrator.core.errors import NotRunningError, OrchError, TimedOutError, UsageError

OK = 0
FAILED = 1
USAGE = 2
NOT_RUNNING = 3
TIMED_OUT = 4
INTERRUPTED = 130

_CODES: tuple[tuple[type[OrchError], int], ...] = (
    (UsageError, USAGE),
    (NotRunningError, NOT_RUNNING),
    (TimedOutError, TIMED_OUT),
    (OrchError, FAILED),
)


def exit_code(error: OrchError) -> int:
    return next(code for kind, code in _CODES if isinstance(error, kind))


def note(text: str) -> None:
    sys.stdout.flush()
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


def warn(text: str) -> None:
    note(f"{_paint('warning', '33')}: {text}")


def report(error: OrchError) -> int:
    """Show an error: what, where with observed against allowed, and a hint.

    :return: the exit code for it
    """
    note(f"{_paint('error', '31')}: {error.message}")
    for detail in error.details:
        note(f"  {detail}")

    if error.hint:
        note(f"\n{_paint('hint', '36')}: {error.hint}")

    return exit_code(error)


def progress(text: str) -> None:
    """One line that replaces itself; silent where nobody watches."""
    if sys.stderr.isatty():
        sys.stderr.write(f"\r\x1b[2K{text}")
        sys.stderr.flush()


def clear_progress() -> None:
    progress("")


def _paint(text: str, colour: str) -> str:
    plain = "NO_COLOR" in os.environ or os.environ.get("TERM") == "dumb" or not sys.stderr.isatty()
    return text if plain else f"\x1b[1;{colour}m{text}\x1b[0m"
