"""Who holds the memory of each device, as `orch vram` tells it."""

from __future__ import annotations

from orchestrator.core.vram.report import VramReport, report_lines
from tui.text import BLANK, Line, line

_AMOUNT_WIDTH = 11


def holders(report: VramReport) -> list[Line]:
    """Return a device's title, then its processes; what frees a process's memory is below it."""
    lines: list[Line] = []
    for amount, owner, release in report_lines(report):
        if not amount:
            lines += [*([BLANK] if lines else []), line(owner, "strong")]
            continue

        lines.append(((f"{amount:>{_AMOUNT_WIDTH}}  ", ""), (owner, "")))
        if release:
            lines.append(((" " * (_AMOUNT_WIDTH + 2), ""), (release, "dim")))

    if not lines and not report["notes"]:
        lines.append(line("no device with memory of its own", "dim"))

    return lines + [line(note, "warn") for note in report["notes"]]
