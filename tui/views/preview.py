"""The preview of a switch: what it would change, and for whom."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import Any

from orchestrator.api.types import GatewayStatus
from orchestrator.api.wording import agreeing, counted, flag_texts, target_text
from tui.text import BLANK, Line, line, wrap


def preview(plan: dict[str, Any], gateway: GatewayStatus | None, drain_s: float | None, width: int) -> list[Line]:
    """Return the lines for an answer of `POST /v1/switch` with `dry_run`.

    :param gateway: how many requests run and wait right now
    """
    origin, target = plan["from"], plan["to"]
    lines: list[Line] = [((f"{target_text(origin)} → ", ""), (target_text(target), "strong"))]
    if origin == target:
        return [*lines, line("this runs already; r restarts it", "dim")]

    lines += [line(part, "accent") for part in wrap(f"{plan['strategy']}: {plan['reason']}", width)]
    for text in consequences(plan["strategy"], gateway, drain_s, runs=origin is not None):
        lines += [line(part) for part in wrap(text, width)]

    for note in plan["notes"]:
        lines += [line(part, "warn") for part in wrap(f"note: {note}", width)]

    return [*lines, BLANK, *difference(plan["argv_before"], plan["argv_after"])]


def consequences(strategy: str, gateway: GatewayStatus | None, drain_s: float | None, *, runs: bool) -> list[str]:
    """Return what a switch does to the requests that run and wait now, one sentence each.

    :param drain_s: how long running requests may take to end before they are cut off
    """
    if not runs:
        return ["nothing runs, so no request is disturbed"]

    if gateway is None:
        return []

    in_flight, queued = gateway["in_flight"], gateway["queued"]
    limit = "" if drain_s is None else f", {drain_s:g} s at most"
    ending = (
        f"{counted(in_flight, 'running request')} may end on the old engine{limit}" if in_flight else "interrupts none"
    )
    if strategy == "beside":
        return [ending, "holds none: the new engine starts beside the old one"]

    waiting = f"; {counted(queued, 'request')} {agreeing(queued, 'waits', 'wait')} already" if queued else ""
    return [ending, f"holds every new request until the new engine answers{waiting}"]


def difference(before: Sequence[str] | None, after: Sequence[str]) -> list[Line]:
    """Return the flags that go and those that come; those that stay are counted."""
    old, new = flag_texts(before or ()), flag_texts(after)
    lines: list[Line] = []
    same = 0
    for text in difflib.ndiff(old, new):
        if text.startswith("- "):
            lines.append(line(text, "bad"))
        elif text.startswith("+ "):
            lines.append(line(text, "good"))
        elif not text.startswith("? "):
            same += 1

    if not lines:
        return [line("the command line stays as it is", "dim")]

    return [*lines, line(f"  {same} more stay as they are", "dim")] if same else lines
