"""How near two engines, or one engine in two ways, are on the same text: by the likeliest next tokens. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

Likeness = Literal["same", "close", "different"]

_FLOOR = 1e-7

SAME_KL = 1e-5
CLOSE_KL = 0.02
"""Nats, mean over the positions. Between quantised kernels of both engines 0.0003 to 0.004 was seen (docs/truth.md)."""

CLOSE_AGREEMENT = 0.9
"""Share of the positions with one likeliest token, of those where it is likelier than the second by `SURE_RATIO`."""

SURE_RATIO = 1.5
CLOSE_KL_WORST = 0.5


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

    @property
    def likeness(self) -> Likeness:
        if self.divergence <= SAME_KL and self.parted is None:
            return "same"

        near = self.divergence <= CLOSE_KL and self.worst <= CLOSE_KL_WORST and self.top >= CLOSE_AGREEMENT
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
