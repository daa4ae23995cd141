"""Numbers with their units, and states with their symbols, as people read them. None is a dash: not known."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

from orchestrator.api.wording import STATE_SYMBOLS
from orchestrator.core.quantities import energy_text
from tui.text import Role

if TYPE_CHECKING:
    from orchestrator.core.fleet.state_summary import StateName

UNKNOWN = "—"
LOW_ACCEPTANCE = 0.6
"""Below this share of accepted drafts, speculation costs more than it brings on most cards."""

_STATE_ROLES: dict[StateName, Role] = {
    "ready": "good",
    "stopped": "dim",
    "failed": "bad",
    "backoff": "warn",
    "preparing": "accent",
    "starting": "accent",
    "draining": "accent",
    "stopping": "accent",
}

STATES: dict[str, tuple[str, Role]] = {state: (STATE_SYMBOLS[state], role) for state, role in _STATE_ROLES.items()}
"""Each state's symbol and role."""

OUTCOMES: dict[str, tuple[str, Role]] = {
    "running": ("▶", "accent"),
    "held": ("◷", "warn"),
    "complete": ("✓", "good"),
    "ready": ("✓", "good"),
    "stopped": ("○", "dim"),
    "client_gone": ("↯", "dim"),
    "cancelled": ("⊘", "dim"),
    "error": ("✗", "bad"),
}
"""Outcomes of requests and of attempts; whatever is not here is a failure."""


def outcome(name: str) -> tuple[str, Role]:
    return OUTCOMES.get(name, ("✗", "bad"))


def rate(value: float | None) -> str:
    """Tokens per second: three digits that matter."""
    if value is None:
        return UNKNOWN

    return f"{value:.1f}" if value < 100 else f"{value:.0f}"


def share(value: float | None) -> str:
    return UNKNOWN if value is None else f"{value * 100:.0f} %"


def acceptance_role(value: float | None) -> Role:
    return "" if value is None else "warn" if value < LOW_ACCEPTANCE else "good"


def mib(value: float | None) -> str:
    """Memory, given in MiB."""
    if value is None:
        return UNKNOWN

    return f"{value:.0f} MiB" if value < 10_000 else f"{value / 1024:.1f} GiB"


def of_mib(part: float, whole: float) -> str:
    """Two amounts in the larger one's unit."""
    if whole < 10_000:
        return f"{part:.0f} / {whole:.0f} MiB"

    return f"{part / 1024:.1f} / {whole / 1024:.1f} GiB"


def joules(value: float | None) -> str:
    return UNKNOWN if value is None else energy_text(value)


def watts(value: float | None, limit: float | None) -> str:
    if value is None:
        return ""

    return f"{value:.0f} W" if limit is None else f"{value:.0f} / {limit:.0f} W"


def celsius(value: float | None) -> str:
    return "" if value is None else f"{value:.0f} °C"


def seconds(value: float | None) -> str:
    if value is None:
        return UNKNOWN

    if value < 1:
        return f"{value * 1000:.0f} ms"

    return f"{value:.1f} s" if value < 100 else duration(value)


def duration(value: float) -> str:
    """Longer times: `41 s`, `3 min`, `2 h 05`, `4 d 3 h`."""
    whole = int(value)
    if whole < 120:
        return f"{whole} s"

    minutes, hours, days = whole // 60, whole // 3600, whole // 86400
    if minutes < 100:
        return f"{minutes} min"

    return f"{hours} h {minutes % 60:02}" if hours < 48 else f"{days} d {hours % 24} h"


def count(value: int | None) -> str:
    if value is None:
        return UNKNOWN

    return str(value) if value < 100_000 else f"{value / 1000:.0f}k"


def moment(rfc3339: str) -> datetime | None:
    try:
        found = datetime.fromisoformat(rfc3339)
    except ValueError:
        return None

    return found if found.tzinfo is not None else None


def clock(rfc3339: str) -> str:
    """The time of day here, for a time that the daemon gave."""
    found = moment(rfc3339)
    return found.astimezone().strftime("%H:%M:%S") if found is not None else rfc3339


def age_s(then: str, now: str) -> float | None:
    """Seconds between two times of the daemon: its clock counts, not ours."""
    first, second = moment(then), moment(now)
    return max((second - first).total_seconds(), 0.0) if first and second else None
