"""The one module that writes to stderr."""

from __future__ import annotations

import os
import sys

from orchestrator.cli.output import safe
from orchestrator.core.errors import OrchError
from orchestrator.core.exit_codes import exit_code

_progress_shown = False
"""True while the terminal's last line is a progress line, which has no line end yet."""


def note(text: str) -> None:
    _say("", text)


def ask(text: str) -> None:
    """Show a question, whose answer is typed behind it."""
    clear_progress()
    _write(safe(text))


def warn(text: str) -> None:
    _say(f"{_paint('warning', '33')}: ", text)


def report(error: OrchError) -> int:
    """Show an error: what, where with observed against allowed, and a hint.

    :return: the exit code for it
    """
    _say(f"{_paint('error', '31')}: ", error.message)
    for detail in error.details:
        note(f"  {detail}")

    if error.hint:
        _say(f"\n{_paint('hint', '36')}: ", error.hint)

    return exit_code(error)


def progress(text: str) -> None:
    """One line that replaces itself, until `clear_progress` or the next note; silent where nobody watches."""
    global _progress_shown
    if _on_terminal():
        _write(f"\r\x1b[2K{safe(text)}")
        _progress_shown = bool(text)


def clear_progress() -> None:
    if _progress_shown:
        progress("")


def _say(label: str, text: str) -> None:
    """:param label: ours, perhaps in colour; `text` may quote what others wrote"""
    clear_progress()
    _write(f"{label}{safe(text)}\n")


def _write(text: str) -> None:
    if sys.stderr is None:
        return

    try:
        sys.stderr.write(text)
        sys.stderr.flush()
    except BrokenPipeError:
        # Its reader has gone. What cannot be said must not change how the operation ends.
        sys.stderr = None


def _on_terminal() -> bool:
    return sys.stderr is not None and os.environ.get("TERM") != "dumb" and sys.stderr.isatty()


def _paint(text: str, colour: str) -> str:
    plain = os.environ.get("NO_COLOR") or not _on_terminal()  # set but empty does not count: no-color.org
    return text if plain else f"\x1b[1;{colour}m{text}\x1b[0m"
