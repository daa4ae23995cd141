"""From the daemon's monotonic times to those that people are told."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime


@dataclass(frozen=True, slots=True)
class Clock:
    """Turns monotonic times into wall-clock ones: `offset` is wall minus monotonic, seconds.

    One for all that is told, so that the dates fit together.
    """

    offset: float

    def rfc3339(self, monotonic: float) -> str:
        return datetime.fromtimestamp(monotonic + self.offset, UTC).isoformat(timespec="milliseconds")
