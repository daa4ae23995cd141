"""Answers of the control API as text for people, for the CLI and the dashboard alike. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from orchestrator.api.types import InstanceStatus, MemoryStatus, PageCacheStatus, SwitchResult, TargetName
    from orchestrator.core.fleet.state_summary import StateName

STATE_SYMBOLS: dict[StateName, str] = {
    "ready": "●",
    "stopped": "○",
    "failed": "✗",
    "backoff": "◌",
    "preparing": "◌",
    "starting": "◌",
    "draining": "◍",
    "stopping": "◍",
}
"""Each state's symbol: it can be told without colours."""


def target_text(target: TargetName | None) -> str:
    """Return `profile@engine`."""
    return f"{target['profile']}@{target['engine']}" if target is not None else "nothing"


def counted(count: int, noun: str) -> str:
    """Return `1 request`, `2 requests`."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def agreeing(count: int, one: str, more: str) -> str:
    """Return the word that agrees with a count: `agreeing(n, "waits", "wait")`."""
    return one if count == 1 else more


def interruption_text(result: SwitchResult) -> str:
    """Return what a switch cost those who asked meanwhile: `3 requests held, gap 0.31 s`."""
    held = counted(result["held_requests"], "request") if result["held_requests"] else "no request"
    return f"{held} held, gap {result['gap_s']} s"


def rollback_text(result: SwitchResult) -> str | None:
    """Return what serves again after a switch that failed; None when nothing does."""
    return f"rolled back: {target_text(result['from'])} serves" if result["rolled_back"] and result["from"] else None


def flag_texts(argv: Iterable[str]) -> list[str]:
    """Return one text for each flag with its value; the program and other words stand alone."""
    texts: list[str] = []
    for word in argv:
        if texts and not word.startswith("-") and texts[-1].startswith("-") and " " not in texts[-1]:
            texts[-1] += f" {word}"
        else:
            texts.append(word)

    return texts


def instance_state(row: InstanceStatus) -> str:
    """Return the state of a resident in words: `ready`, `unloaded (idle 20 min)`, `waiting`."""
    if row["unloaded_since"] is not None:
        return f"unloaded (idle {duration_text(row['idle_s'])})" if row["idle_s"] is not None else "unloaded"

    return "waiting" if row["waits"] else row["state"]


def instance_use(row: InstanceStatus) -> str:
    """Return how a resident is used: `2 in flight, 1 queued`, `idle 20 s`; empty where nobody knows."""
    known = ((row["in_flight"], "in flight"), (row["queued"], "queued"))
    counts = [f"{count} {text}" for count, text in known if count]
    if counts:
        return ", ".join(counts)

    idle = row["state"] == "ready" and row["idle_s"] is not None
    return f"idle {duration_text(row['idle_s'])}" if idle else ""


def duration_text(seconds: float | None) -> str:
    """Return `20 s`, `20 min`, `5 h`, `3 d`."""
    left = seconds or 0.0
    for unit, size, most in (("s", 1, 120), ("min", 60, 7200), ("h", 3600, 172800)):
        if left < most:
            return f"{left / size:.0f} {unit}"

    return f"{left / 86400:.0f} d"


def memory_texts(rows: Sequence[MemoryStatus]) -> list[str]:
    """Return what an engine takes, a line for each place; beside what was read otherwise, its plan."""
    places = dict.fromkeys(row["place"] for row in rows)
    return [_place_text(place, [row for row in rows if row["place"] == place]) for place in places]


def page_cache_text(row: PageCacheStatus) -> str:
    """Return how much of the host's part of a model is in the page cache, and of its experts."""
    if row["resident_mib"] is None:
        return f"{row['part_mib']} MiB are mapped: the kernel tells nobody but the file's owner what is there"

    if row["experts_mib"] is None:
        return f"{row['resident_mib']} of {row['part_mib']} MiB that are mapped; what of it is on a device is not known"

    text = f"{row['resident_mib']} of {row['part_mib']} MiB that the host reads"
    if row["experts_mib"] and row["experts_resident_mib"] is not None:
        text += f", experts {row['experts_resident_mib']} of {row['experts_mib']}"

    return f"{text} ({row['where']})" if row["where"] else text


def _place_text(place: str, rows: Sequence[MemoryStatus]) -> str:
    read = [row for row in rows if row["measured_mib"] is not None]
    parts = [f"{_name(row)} {_mib(row['measured_mib'])}{_otherwise(row)}" for row in read]
    if not read:
        planned = [row for row in rows if row["component"] not in _LATER]
        parts = [f"{_name(row)} {_range(row)}" for row in planned]
        return f"{place}: planned {_range_of(planned)} MiB: {', '.join(parts)}"

    told = sum(row["measured_mib"] or 0.0 for row in read)
    return f"{place}: {_mib(told)} MiB, planned {_range_of(read)}: {', '.join(parts)}"


_LATER = frozenset({"prompt_cache", "checkpoints"})
"""What requests fill."""

_SLACK_MIB = 16.0


def _otherwise(row: MemoryStatus) -> str:
    low, high, read = row["planned_mib"]["low"] or 0.0, row["planned_mib"]["high"], row["measured_mib"] or 0.0
    slack = max(_SLACK_MIB, 0.02 * read)
    outside = read < low - slack or (high is not None and read > high + slack)
    return f" (planned {_range(row)})" if outside else ""


def _range(row: MemoryStatus) -> str:
    return _range_of([row])


def _range_of(rows: Sequence[MemoryStatus]) -> str:
    low = sum(row["planned_mib"]["low"] or 0.0 for row in rows)
    highs = [row["planned_mib"]["high"] for row in rows]
    if any(high is None for high in highs):
        return f"{_mib(low)} or more"

    high = sum(each for each in highs if each is not None)
    return _mib(low) if round(low) == round(high) else f"{_mib(low)} to {_mib(high)}"


def _name(row: MemoryStatus) -> str:
    return row["component"].replace("_", " ")


def _mib(mib: float | None) -> str:
    return f"{mib or 0:,.0f}".replace(",", " ")
