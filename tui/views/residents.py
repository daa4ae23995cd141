"""What is loaded, a line for each profile: its state, what it holds, how it is used."""

from __future__ import annotations

from collections.abc import Sequence

from orchestrator.api.types import InstanceStatus
from orchestrator.api.wording import instance_state, instance_use
from tui import figures
from tui.text import BLANK, Line, Span, clip, line


def resident_lines(rows: Sequence[InstanceStatus], width: int) -> list[Line]:
    """Return the rows under a heading; nothing where there is but one."""
    if len(rows) < 2:
        return []

    return [line("loaded (m: load, unload, pin)", "strong"), *(resident(row, width) for row in rows), BLANK]


def resident(row: InstanceStatus, width: int) -> Line:
    """Return one line; `▸` marks the one in focus."""
    symbol, role = figures.STATES.get(row["state"], ("?", "warn"))
    places = ((row["device_mib"], "device"), (row["host_mib"], "host"))
    held = [f"{figures.mib(mib)} {where}" for mib, where in places if mib is not None]
    parts: list[Span] = [
        ("▸ " if row["focus"] else "  ", "accent"),
        (f"{symbol} ", role),
        (f"{row['profile']}@{row['engine']} ", "strong"),
        (instance_state(row), role),
    ]
    parts += [("  pinned", "accent")] if row["pinned"] else []
    parts += [(f"  {' '.join(held)}", "")] if held else []
    use = instance_use(row)
    parts += [(f"  {use}", "dim")] if use else []
    why = row["waits"] or row["cause"]
    parts += [(f"  {why}", "warn")] if why else []
    return clip(tuple(parts), width)
