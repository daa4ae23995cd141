"""The one module that writes to stdout: data, and nothing else."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence


def raw(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


def line(text: str = "") -> None:
    raw(text + "\n")


def json_data(value: object) -> None:
    """One JSON document, keys in the order given, units in the names."""
    import json

    line(json.dumps(value, indent=2, ensure_ascii=False))


def json_line(value: object) -> None:
    """One JSON document on one line: streams are JSON Lines."""
    import json

    line(json.dumps(value, ensure_ascii=False))


def table(headers: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Aligned columns; the headers only where a person reads, so that pipes get rows alone."""
    cells = [["" if cell is None else str(cell) for cell in row] for row in rows]
    shown = [list(headers), *cells] if sys.stdout.isatty() else cells
    if not shown:
        return

    widths = [max(len(row[column]) for row in shown) for column in range(len(headers))]
    for row in shown:
        line("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
