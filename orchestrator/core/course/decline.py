"""Whether a profile has become slower than it was, and what has changed since. Pure.

The newest marks of a kind, under the same circumstances, are compared with the best level that this kind ever held: the
highest median of some marks in a row. Both are medians, so that a bad day moves neither. How far apart they may be by
chance follows from how neighbours under the same circumstances differ, and at least from how one start of an engine
differs from the next. The best of many is partly luck, and the question is asked after each mark: the limit is four
standard errors. How often that errs: `benchmarks/decline_simulation.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise
from math import exp, log, sqrt

from orchestrator.core.bench.estimator import median
from orchestrator.core.course.marks import NORMAL_95, CircumstanceChange, Circumstances, SpeedMark, changes

WORTH_TELLING = log(1 / 0.95)
"""A loss of less than 5 % is nobody's news."""

LEAST_SCATTER = 0.015
"""Standard deviation of marks at least: what one start of an engine differs from another (docs/truth.md, rough)."""

CERTAIN = 4.0
"""Standard errors that a loss has to exceed to be told; the interval that is told with it has `NORMAL_95` of them."""

FEW_NEIGHBOURS = 4
TO_SIGMA = 1.4826
"""From the median of absolute deviations to the standard deviation of a normal distribution."""

OF_MEDIAN = sqrt(1.5708)
"""How much wider a median scatters than a mean (the square root of pi / 2); one value is its own median."""


@dataclass(frozen=True, slots=True)
class DeclinePolicy:
    """How many marks are enough.

    :param window: marks that make a level
    :param least_alike: so many make one, too, where all there are under the same circumstances are fewer than a window
    :param least_newest: of the newest, and answers in them, where something known has changed; where nothing has, it
        is a whole window
    """

    window: int = 5
    least_alike: int = 5
    least_newest: int = 2
    least_answers: int = 32


OF_ANSWERS = DeclinePolicy()
OF_BENCHES = DeclinePolicy(window=2, least_alike=1, least_newest=1, least_answers=0)
"""A bench is repeated in itself, on texts of its own, while nobody else is served: one is enough, but where nothing
known has changed, as the processors may have been busy all the time."""


@dataclass(frozen=True, slots=True)
class SpeedLevel:
    """Some marks in a row.

    :param level: the median of their levels, a logarithm
    """

    marks: tuple[SpeedMark, ...]
    level: float

    @property
    def circumstances(self) -> Circumstances:
        """Those of the last mark that was as fast as the level: where some changed within it, those before a loss."""
        return next(mark for mark in reversed(self.marks) if mark.level >= self.level).circumstances

    @property
    def rate(self) -> float:
        """Tokens a second of a bench, steps a second of answers."""
        return exp(self.level)


@dataclass(frozen=True, slots=True)
class Decline:
    """A profile that is slower than it was.

    :param ratio: of the rates, below 1; `low` and `high` are its 95 % interval
    :param changed: what is another one since; empty where nothing that is known of has changed
    """

    best: SpeedLevel
    now: SpeedLevel
    ratio: float
    low: float
    high: float
    changed: tuple[CircumstanceChange, ...]


def find_decline(marks: Sequence[SpeedMark], accepted_s: float = float("-inf")) -> Decline | None:
    """Return by how much the newest marks are slower than the best level, or nothing where that is not certain.

    :param marks: of one profile, engine and kind, oldest first
    :param accepted_s: Unix time from which on the speed is taken for normal: what is older is not compared with
    """
    marks = [mark for mark in marks if mark.when_s >= accepted_s and mark.has_level]
    if not marks:
        return None

    policy = OF_BENCHES if marks[-1].bench is not None else OF_ANSWERS
    runs = [list(group) for _, group in groupby(marks, key=lambda mark: mark.circumstances)]
    now = _level(runs[-1][-policy.window :])
    best = best_level(marks[: -len(now.marks)], policy)
    if best is None:
        return None

    changed = changes(best.circumstances, now.circumstances)
    least = policy.least_newest if changed else policy.window
    if len(now.marks) < least or sum(mark.answers for mark in now.marks) < policy.least_answers:
        return None

    scatter = _scatter(runs)
    error = sqrt(_variance_of(now, scatter) + _variance_of(best, scatter))
    lost = best.level - now.level
    if lost < max(WORTH_TELLING, CERTAIN * error):
        return None

    return Decline(best, now, exp(-lost), exp(-lost - NORMAL_95 * error), exp(-lost + NORMAL_95 * error), changed)


def best_level(marks: Sequence[SpeedMark], policy: DeclinePolicy) -> SpeedLevel | None:
    """Return the highest level that was held, None where none was held for long enough.

    A window may reach over a change: where something changes every few days, no other would ever be full.
    """
    windows = [marks[at : at + policy.window] for at in range(len(marks) - policy.window + 1)]
    runs = [list(group) for _, group in groupby(marks, key=lambda mark: mark.circumstances)]
    windows += [run for run in runs if policy.least_alike <= len(run) < policy.window]
    return max(map(_level, windows), key=lambda each: each.level, default=None)


def _level(marks: Sequence[SpeedMark]) -> SpeedLevel:
    return SpeedLevel(tuple(marks), median([mark.level for mark in marks]))


def _variance_of(level: SpeedLevel, scatter: float) -> float:
    """Return the variance of a level, by how marks scatter and how sure each of them is of itself."""
    count = len(level.marks)
    of_mark = scatter**2 + sum(mark.own_error**2 for mark in level.marks) / count
    return of_mark if count == 1 else of_mark * OF_MEDIAN**2 / count


def _scatter(runs: Sequence[Sequence[SpeedMark]]) -> float:
    """Return the standard deviation of marks, by how neighbours differ: a slow drift has no part in that.

    Of few neighbours a loss itself would be one, and most of what is seen.
    """
    apart = [abs(after.level - before.level) for run in runs for before, after in pairwise(run)]
    return max(TO_SIGMA * median(apart) / sqrt(2), LEAST_SCATTER) if len(apart) >= FEW_NEIGHBOURS else LEAST_SCATTER
