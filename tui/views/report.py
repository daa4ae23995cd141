"""One frame as plain text, for `orch top --once`."""

from __future__ import annotations

from orchestrator.api.top_frames import TopFrame
from tui import figures
from tui.text import BLANK, Line, line, wrap
from tui.views import devices, engine, header, requests, speed, tables

RECENT_REQUESTS = 8
RECENT_EVENTS = 5
PLOT_ROWS = 3


def report(frame: TopFrame, width: int) -> list[Line]:
    """Return all panels below each other, each under its name."""
    text, role = header.news_text(frame["status"])
    lines = header.head(frame, width)[:2] + [line(part, role) for part in wrap(text, width) if part]
    lines += _section("speed")
    points = frame["points"]
    decoded, prompted = any(each["decode_tok_s"] for each in points), any(each["prompt_tok_s"] for each in points)
    lines += speed.series(frame, "decode", width, PLOT_ROWS + 1 if decoded else 1)
    lines += speed.series(frame, "prompt", width, PLOT_ROWS + 1 if prompted else 1)
    lines += _section("memory") + devices.devices(frame, width)
    lines += _section("engine") + engine.engine(frame, width)
    lines += _section("requests")
    rows = frame["requests"][:RECENT_REQUESTS]
    if rows:
        columns = tables.fitting(requests.COLUMNS, width)
        lines.append(tables.header(columns, width, None, reverse=False))
        lines += [tables.row(columns, width, each) for each in rows]
    else:
        lines.append(line("no request yet", "dim"))

    lines += _section("events") + [engine.event(each) for each in frame["events"][-RECENT_EVENTS:]]
    lines += [BLANK, line(f"taken at {figures.clock(frame['taken'])}", "dim")]
    return lines


def _section(name: str) -> list[Line]:
    return [BLANK, line(name, "strong")]
