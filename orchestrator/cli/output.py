"""The one module that writes to stdout: data, and nothing else."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence


class ReaderGone(Exception):
    """Raised when nobody reads stdout any more, as in `orch logs | head`."""


def raw(text: str) -> None:
    """Write text as it is, at once; characters that the stream's encoding lacks become escapes.

    :raises ReaderGone: when the reading end of the pipe is closed
    """
    if sys.stdout is None:  # whoever started us closed it, and wants the work alone
        return

    try:
        try:
            sys.stdout.write(text)
        except UnicodeEncodeError:
            encoding = sys.stdout.encoding
            sys.stdout.write(text.encode(encoding, "backslashreplace").decode(encoding))

        sys.stdout.flush()
    except BrokenPipeError:
        raise ReaderGone from None


def line(text: str = "") -> None:
    """Write a line for people. Text of others in it (a log, the name of a tensor) cannot command the terminal."""
    raw(safe(text) + "\n")


def safe(text: str) -> str:
    if text.isprintable():
        return text

    from orchestrator.core.terminal import neutralise_lines

    return neutralise_lines(text)


def json_data(value: object) -> None:
    """Write one JSON document, keys in the order given, units in the names."""
    line(_json(value, 2))


def json_line(value: object) -> None:
    """Write one JSON document on one line: streams are JSON Lines."""
    line(_json(value, None))


def table(headers: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Write aligned columns; the headers only on a terminal, so that pipes get rows alone."""
    cells = [["" if cell is None else str(cell) for cell in row] for row in rows]
    shown = [list(headers), *cells] if sys.stdout.isatty() else cells
    if not shown:
        return

    widths = [max(len(row[column]) for row in shown) for column in range(len(headers))]
    for row in shown:
        line("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def _json(value: object, indent: int | None) -> str:
    import json

    text = json.dumps(value, indent=indent, ensure_ascii=False)
    try:
        text.encode((sys.stdout and sys.stdout.encoding) or "utf-8")
    except UnicodeEncodeError:  # another encoding, or a file name that is not valid UTF-8
        return json.dumps(value, indent=indent)

    return text
