"""How near two engines, or one engine in two ways, are on the same text: by the likeliest next tokens. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal, NamedTuple, Protocol

Likeness = Literal["same", "close", "different"]


class Drawn(Protocol):
    """One token of an answer, and the likeliest ones with their probabilities."""

    @property
    def text(self) -> str: ...

    @property
    def likely(self) -> Mapping[str, float]: ...


Reading = Sequence[Sequence[Drawn]]
"""By beginning of a text: what was drawn after it."""

_FLOOR = 1e-7

SAME_KL = 1e-5
SURE_RATIO = 1.5
"""A likeliest token is clear where it is so many times likelier than the second."""


class Bounds(NamedTuple):
    """Up to where two readings are `close`.

    :param divergence: nats, mean over the positions; `worst` at the worst of them
    :param top: least share of the clear positions whose likeliest token is one
    """

    divergence: float
    worst: float
    top: float


CLOSE = Bounds(0.02, 0.5, 0.9)
"""Healthy builds: at most 0.005, 0.07 and 0.99 with caches of f16, q8_0 and q5_1 (docs/truth.md)."""

CLOSE_IN_FOUR_BITS = Bounds(0.15, 2.0, 0.75)
"""Healthy builds: at most 0.032, 0.76 and 0.91 with a cache in q4_0, whose rounding makes small differences large."""


def bounds_of(kv_types: Iterable[str]) -> Bounds:
    """Return the bounds for a cache in these types."""
    return CLOSE_IN_FOUR_BITS if any("4" in each.partition("_")[0] for each in kv_types) else CLOSE


class Agreement(NamedTuple):
    """Two sequences of next-token probabilities, compared.

    :param divergence: Kullback-Leibler, nats, mean over the positions; `worst` the largest
    :param top: share of the positions where the likeliest token is one, of those where it is clear
    :param parted: the first position where it is not, or None
    """

    positions: int
    divergence: float
    worst: float
    top: float
    parted: int | None

    def likeness(self, bounds: Bounds = CLOSE) -> Likeness:
        if self.divergence <= SAME_KL and self.parted is None:
            return "same"

        near = self.divergence <= bounds.divergence and self.worst <= bounds.worst and self.top >= bounds.top
        return "close" if near else "different"


def compare(one: Sequence[Mapping[str, float]], other: Sequence[Mapping[str, float]]) -> Agreement:
    """Compare probabilities position by position.

    :param one: of each position the likeliest tokens with their probabilities; `other` likewise
    :raises ValueError: when one of them is empty, or they differ in length
    """
    if not one or len(one) != len(other):
        raise ValueError(f"{len(one)} positions of one side, {len(other)} of the other")

    divergences = [divergence(a, b) for a, b in zip(one, other, strict=True)]
    clear = [index for index, (a, b) in enumerate(zip(one, other, strict=True)) if _is_clear(a) or _is_clear(b)]
    apart = [index for index in clear if _best(one[index]) != _best(other[index])]
    top = 1 - len(apart) / len(clear) if clear else 1.0
    return Agreement(len(one), sum(divergences) / len(divergences), max(divergences), top, apart[0] if apart else None)


def compare_readings(one: Reading, other: Reading) -> tuple[Agreement, int | None]:
    """Compare two readings, token by token as long as both have drawn the same.

    :return: the comparison, and the prefix with the largest divergence at its first token
    :raises ValueError: when there is nothing to compare
    """
    left: list[Mapping[str, float]] = []
    right: list[Mapping[str, float]] = []
    prefix_of: list[int] = []
    for prefix, (a, b) in enumerate(zip(one, other, strict=False)):
        for first, second in zip(a, b, strict=False):
            if first.likely or second.likely:  # with drafts an engine tells those of the first token alone
                left.append(first.likely)
                right.append(second.likely)
                prefix_of.append(prefix)

            if first.text != second.text:
                break

    agreement = compare(left, right)
    return agreement, None if agreement.parted is None else prefix_of[agreement.parted]


def clear_tokens_drawn(told: Reading, drawn: Reading) -> tuple[int, int, int | None]:
    """Compare what was drawn with the tokens that were clearly the likeliest, as long as both have drawn the same.

    With drafts an engine tells no likelihoods: their tokens alone can be compared.

    :param told: with the likeliest tokens at each place; `drawn` with texts alone
    :return: how many clear tokens were compared, how many of them were not drawn, and the first prefix where
    """
    clear = missed = 0
    where = None
    for prefix, (one, other) in enumerate(zip(told, drawn, strict=False)):
        for first, second in zip(one, other, strict=False):
            if _is_clear(first.likely):
                clear += 1
                if first.text != second.text:
                    missed += 1
                    where = prefix if where is None else where

            if first.text != second.text:
                break

    return clear, missed, where


def describe(agreement: Agreement) -> str:
    """Return the figures of a comparison in a line."""
    return (
        f"KL {agreement.divergence:.5f} nats (mean of {agreement.positions} positions, worst {agreement.worst:.3f}), "
        f"likeliest token the same in {agreement.top:.0%} of the clear ones"
    )


def divergence(one: Mapping[str, float], other: Mapping[str, float]) -> float:
    """Return the Kullback-Leibler divergence over the tokens that both told, and all the others as one outcome."""
    shared = [token for token in one if token in other]
    parts = [(one[token], other[token]) for token in shared]
    parts.append((1 - sum(p for p, _ in parts), 1 - sum(q for _, q in parts)))
    found = sum(max(p, 0.0) * math.log(max(p, _FLOOR) / max(q, _FLOOR)) for p, q in parts)
    return max(found, 0.0)


def _is_clear(likely: Mapping[str, float]) -> bool:
    first, second = sorted([*likely.values(), 0.0, 0.0], reverse=True)[:2]
    return first >= SURE_RATIO * second


def _best(likely: Mapping[str, float]) -> str:
    return max(likely, key=likely.__getitem__, default="")
