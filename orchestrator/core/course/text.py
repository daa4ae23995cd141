"""The course of speed, and what is to be told of it, for people. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from orchestrator.core.bench.text import table
from orchestrator.core.course.course import Course, SpeedSeries
from orchestrator.core.course.decline import Decline
from orchestrator.core.course.marks import SpeedMark, changes

_HEADINGS = ("day", "decode, tok/s", "95 %", "step, ms", "prompt, tok/s", "answers", "")
MOST_CHANGES = 4
"""That a sentence names: a profile that was written anew has many."""


def decline_text(series: SpeedSeries, decline: Decline) -> str:
    """Return by how much a profile is slower, since when, and what has changed, in one sentence."""
    best, now = decline.best, decline.now
    bench = now.marks[-1].bench
    unit, measured = ("steps/s", "by its answers") if bench is None else ("tok/s", f"bench {bench}")
    interval = f"{_share(decline.high)} to {_share(decline.low)}"
    return (
        f"{series.target} decodes {_share(decline.ratio)} slower ({interval}) than it did on {_days(best.marks)}:"
        f" {now.rate:.4g} {unit} since {day(now.marks[0].when_s)}, {best.rate:.4g} before ({measured});"
        f" {_changed_text(decline)}"
    )


def accept_hint(series: SpeedSeries) -> str:
    """Return what a person can do about it."""
    target = series.target
    return f"`orch bench course {target}` shows it over time; `orch bench accept {target}` takes it for normal"


def course_lines(course: Course) -> list[str]:
    """Return the marks of a series as a table, oldest first, with a line for what is another one from there on."""
    rows = table([_HEADINGS, *map(_row, course.marks)])
    lines = [f"{course.series.target}: {course.series.kind}", f"  {rows[0]}"]
    before: SpeedMark | None = None
    for mark, row in zip(course.marks, rows[1:], strict=True):
        changed = changes(before.circumstances, mark.circumstances) if before is not None else ()
        lines += [f"  - {each}" for each in changed]
        lines.append(f"  {row}{'  (a trial)' if mark.trial else ''}")
        before = mark

    return lines if course.decline is None else [*lines, f"  {decline_text(course.series, course.decline)}"]


def _row(mark: SpeedMark) -> tuple[str, ...]:
    return (
        day(mark.when_s),
        f"{mark.decode_tok_s:.4g}",
        f"{mark.low_tok_s:.4g} to {mark.high_tok_s:.4g}",
        f"{mark.step_ms:.4g}",
        f"{mark.prompt_tok_s:.4g}" if mark.prompt_tok_s is not None else "-",
        str(mark.answers),
        f"bench {mark.bench}" if mark.bench is not None else "",
    )


def course_json(course: Course) -> dict[str, Any]:
    """Return a course as `orch bench course --json` lists it; circumstances are told in full for each mark."""
    found = course.decline
    decline = None
    if found is not None:
        decline = {
            "ratio": round(found.ratio, 4),
            "low": round(found.low, 4),
            "high": round(found.high, 4),
            "before": round(found.best.rate, 3),
            "now": round(found.now.rate, 3),
            "since": day(found.now.marks[0].when_s),
            "changed": [asdict(each) for each in found.changed],
        }

    return {**course.series._asdict(), "marks": [asdict(mark) for mark in course.marks], "decline": decline}


def day(when_s: float) -> str:
    return datetime.fromtimestamp(when_s, UTC).strftime("%Y-%m-%d")


def _days(marks: Sequence[SpeedMark]) -> str:
    first, last = day(marks[0].when_s), day(marks[-1].when_s)
    return first if first == last else f"{first} to {last}"


def _share(ratio: float) -> str:
    return f"{100 * (1 - ratio):.0f} %"


def _changed_text(decline: Decline) -> str:
    if not decline.changed:
        return "nothing that orch knows of has changed since (build, driver, kernel, model, device, settings)"

    named = [str(each) for each in decline.changed[:MOST_CHANGES]]
    left = len(decline.changed) - len(named)
    return f"changed since: {', '.join(named)}" + (f" and {left} more" if left else "")
