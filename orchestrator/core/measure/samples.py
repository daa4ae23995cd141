"""Samples of what the engine and the devices do, thinned out as they age. Pure.

Fresh ones are kept a second apart, older ones ten, the oldest a minute: 3600 + 8640 + 43200 rows at most.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import groupby, zip_longest


@dataclass(frozen=True, slots=True)
class HistorySample:
    """The figures of a moment, or their averages over the step that begins there.

    :param at_s: Unix time
    :param used_mib: one value a device; over a step, the most it was: what decides is whether it still fits
    """

    at_s: int
    decode_tok_s: float | None
    prompt_tok_s: float | None
    used_mib: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Tier:
    """Samples `step_s` apart, kept for `keep_s`; then they become those of the next tier."""

    step_s: int
    keep_s: int


TIERS = (Tier(1, 3600), Tier(10, 86_400), Tier(60, 30 * 86_400))


def thin(samples: Iterable[HistorySample], step_s: int) -> list[HistorySample]:
    """Return one sample for each step, oldest first: rates are averaged where they were measured.

    :param samples: in order of time
    """
    thinned = []
    for number, group in groupby(samples, lambda each: each.at_s // step_s):
        members = list(group)
        used = zip_longest(*(each.used_mib for each in members), fillvalue=0)
        thinned.append(
            HistorySample(
                number * step_s,
                _mean(each.decode_tok_s for each in members),
                _mean(each.prompt_tok_s for each in members),
                tuple(max(values) for values in used),
            )
        )

    return thinned


def thinned_before(tier: int, now_s: float) -> int:
    """Return the Unix time before which samples of this tier are due: their steps in the next tier are complete.

    In the last tier, they are due to be deleted.
    """
    step_s = TIERS[min(tier + 1, len(TIERS) - 1)].step_s
    return int(now_s - TIERS[tier].keep_s) // step_s * step_s


def _mean(values: Iterable[float | None]) -> float | None:
    measured = [value for value in values if value is not None]
    return round(sum(measured) / len(measured), 3) if measured else None
