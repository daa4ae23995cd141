"""Amounts of memory that say how well they are known."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from orchestrator.core.quantities import MIB

AmountKind = Literal["exact", "computed", "interval", "learned", "unknown"]
"""`exact`: follows from the header to the byte. `computed`: a formula that was checked against the engine, true to some
MiB. `interval`: only bounds are known. `learned`: from earlier starts or other people's reports. `unknown`: no rule."""

_WEAKEST: tuple[AmountKind, ...] = ("exact", "computed", "learned", "interval", "unknown")

OPEN = 1 << 60
"""The upper bound, in bytes, of what has none."""


@dataclass(frozen=True, slots=True)
class Amount:
    """Bytes; the bounds are equal where it is one figure."""

    low_bytes: int
    high_bytes: int
    kind: AmountKind

    @property
    def low_mib(self) -> float:
        return self.low_bytes / MIB

    @property
    def high_mib(self) -> float:
        return self.high_bytes / MIB

    @property
    def is_open(self) -> bool:
        """True when there is no upper bound."""
        return self.high_bytes >= OPEN

    def plus(self, other: Amount) -> Amount:
        """Return the sum; it is known as well as the part that is known worst."""
        if not other.high_bytes and other.kind == "exact":
            return self

        kind = max(self.kind, other.kind, key=_WEAKEST.index)
        low, high = self.low_bytes + other.low_bytes, self.high_bytes + other.high_bytes
        return Amount(min(OPEN, low), min(OPEN, high), kind)


NOTHING = Amount(0, 0, "exact")


def exact(size_bytes: int) -> Amount:
    """Return an amount that is known to the byte."""
    return Amount(size_bytes, size_bytes, "exact")


def unknown(low_bytes: int = 0) -> Amount:
    """Return an amount of which only a lower bound is known."""
    return Amount(min(OPEN, low_bytes), OPEN, "unknown")


def total(amounts: Iterable[Amount]) -> Amount:
    """Return the sum of several amounts."""
    result = NOTHING
    for amount in amounts:
        result = amount.plus(result)

    return result
