"""Lines of orch's own in `engine.log`: which start the lines after them belong to, how it ended, and what followed.

The engines of many starts write into one log. Without marks a silent death would be explained by the failure before it.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

MARK = "[orch: "
"""Every line of orch's own in an engine's log begins so, and no other: `without_marks`."""

HEAD_LINES, TAIL_LINES = 4000, 20000
"""Lines of a start that are kept: they tell how it began and ended."""


@dataclass(slots=True)
class LoggedStart:
    """One start of an engine as `engine.log` has it.

    :ivar began: the values of its mark: profile, engine, build, attempt, rung, time
    :ivar exited: how the process ended (`status`), and when; None while it runs, or when nobody was there to see
    :ivar judged: what the daemon concluded; None where it ended because it was asked to
    :ivar left_out: lines between `head` and `tail`
    """

    began: Mapping[str, object]
    exited: Mapping[str, object] | None = None
    judged: Mapping[str, object] | None = None
    head: list[str] = field(default_factory=list)
    tail: deque[str] = field(default_factory=lambda: deque(maxlen=TAIL_LINES))
    left_out: int = 0

    def add(self, line: str) -> None:
        if len(self.head) < HEAD_LINES:
            self.head.append(line)
            return

        self.left_out += len(self.tail) == TAIL_LINES
        self.tail.append(line)

    def is_of(self, values: Mapping[str, object]) -> bool:
        return self.began.get("instance") == values.get("instance")


def mark_line(kind: str, **values: object) -> str:
    """Return the line for `engine.log`. Kinds: `started`, `exited` and `judged`."""
    return f"{MARK}{kind} {json.dumps(values, ensure_ascii=False)}]"


def read_mark(line: str) -> tuple[str, Mapping[str, object]] | None:
    """Return the kind and the values of a mark; None for any other line."""
    if not line.startswith(MARK) or not line.endswith("}]"):
        return None

    kind, _, text = line[len(MARK) : -1].partition(" ")
    try:
        values = json.loads(text)
    except (ValueError, RecursionError):
        return None

    return (kind, values) if isinstance(values, dict) else None


def without_marks(lines: Sequence[str]) -> Sequence[str]:
    """Return lines of an engine, none of which reads as orch's own: engines print what clients send."""
    if not any(line.startswith(MARK) for line in lines):
        return lines

    return [f" {line}" if line.startswith(MARK) else line for line in lines]


def read_starts(lines: Iterable[str]) -> list[LoggedStart]:
    """Return the starts that the marks of a log tell of, in their order. Lines before the first mark are left out."""
    starts: list[LoggedStart] = []
    for line in lines:
        mark = read_mark(line)
        if mark is None:
            if starts:
                starts[-1].add(line)

            continue

        kind, values = mark
        if kind == "started":
            starts.append(LoggedStart(values))
            continue

        # Two engines run at once during a switch: what is said may be of the one that began earlier.
        found = next((start for start in reversed(starts) if start.is_of(values)), None)
        if kind == "judged":
            if found is None:  # nothing was started: it failed while it was prepared
                found = LoggedStart(values)
                starts.append(found)

            found.judged = values
        elif kind == "exited" and found is not None:
            found.exited = values

    return starts


def start_to_explain(starts: Sequence[LoggedStart]) -> LoggedStart | None:
    """Return the last start that failed; or the last one, where it is of something else and nobody knows its end."""
    failed = next((start for start in reversed(starts) if start.judged is not None), None)
    last = starts[-1] if starts else None
    if last is None or failed is None or last is failed:
        return last

    again = all(last.began.get(key) == failed.began.get(key) for key in ("profile", "engine"))
    return failed if again or last.exited is not None or _served(last) else last


def _served(start: LoggedStart) -> bool:
    return any("listening" in line for line in start.head)
