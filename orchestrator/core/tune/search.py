"""What a tuning starts next, and which settings it proposes. Pure.

A start costs more than the prompts that are measured on it, so the search is one of few starts: the settings as they
are, then the best that the forecast names, far enough apart to be more than one guess, then what the forecast expects
once the trials have corrected it, and from the best of all one step along each axis. The axes are nearly separable: a
correction for each choice of each axis, fitted to what was measured, is all the model there is (`corrections.py`;
`benchmarks/tune_simulation.py` has how far that gets).

Nothing is remembered between two calls but the trials. The search is run again over them up to the first that is
missing, so that one which was broken off goes on where it was.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import inf
from typing import Literal

from orchestrator.core.bench.estimator import trimmed_mean
from orchestrator.core.tune.corrections import Corrections, fitted
from orchestrator.core.tune.space import Point, Space

LEAST_STEP = 0.01
"""A logarithm: what brings less is noise."""

LEAST_EXPECTED = 0.005
"""A logarithm: what is expected to bring less is not started for that alone."""

SEEDS = 6
"""Starts that the forecast alone may name, at most a third of all."""

APART = 2
"""Axes on which what the forecast names differs, each from each."""

ROUNDS = 3
"""Times that all axes are gone through at most."""

Forecast = Callable[[Point], float | None]
"""From settings to the logarithm of the expected rate of turns; None for what cannot fit, 0 where nothing is known."""

Outcome = Literal["measured", "died", "unfit"]
"""`unfit` ran, and did not do what it was started for: no drafts, a prompt without an answer."""


@dataclass(frozen=True, slots=True)
class TuneTrial:
    """One start of a tuning.

    :param logs: of each prompt, the logarithm of the rate of turns; the prompts are the same in all trials
    :param reason: why it died or is unfit
    """

    point: Point
    outcome: Outcome
    logs: tuple[float, ...] = ()
    reason: str = ""
    took_s: float = 0.0


@dataclass(frozen=True, slots=True)
class TuneStart:
    """The next start.

    :param why: for people
    """

    point: Point
    why: str


@dataclass(frozen=True, slots=True)
class TuneFound:
    """The end of the search.

    :param point: what is proposed; the current settings when nothing is better
    :param claimed: logarithm of its rate over that of the current settings, as the search saw it; None without a
        figure of the current ones
    """

    point: Point
    claimed: float | None


def next_start(
    space: Space, trials: Sequence[TuneTrial], forecast: Forecast, most_starts: int, barred: Sequence[Point] = ()
) -> TuneStart | TuneFound:
    """Return what is next.

    :param trials: in their order
    :param most_starts: after which the search ends
    :param barred: what was measured and is no proposal any more, as a full context has killed it: as good as dead
    """
    search = _Search(space, trials, forecast, most_starts, barred)
    try:
        search.run()
    except _Missing as missing:
        if len(trials) < most_starts:
            return TuneStart(missing.point, missing.why)

    best, base = search.best(), search.rate(space.current)
    found = search.rate(best)
    return TuneFound(best, found - base if base > -inf and found > -inf else None)


class _Missing(Exception):
    """A trial that the search needs to go on."""

    def __init__(self, point: Point, why: str) -> None:
        super().__init__(why)
        self.point = point
        self.why = why


class _Search:
    """The search over what is known; raises `_Missing` at the first start that is not."""

    def __init__(
        self, space: Space, trials: Sequence[TuneTrial], forecast: Forecast, most_starts: int, barred: Sequence[Point]
    ) -> None:
        self._space = space
        self._forecast = forecast
        self._seeds = min(SEEDS, most_starts // 3)
        self._known = {trial.point for trial in trials}
        self._failed = [trial.point for trial in trials if trial.outcome != "measured"]
        self._dead = [trial.point for trial in trials if trial.outcome == "died"] + list(barred)
        self._rates = {
            trial.point: trimmed_mean(trial.logs)
            for trial in trials
            if trial.outcome == "measured" and trial.point not in barred
        }
        self._has_memory = any(axis.kind == "memory" for axis in space.axes)
        self._corrections: Corrections = fitted(
            [(point, rate - (forecast(point) or 0.0)) for point, rate in self._rates.items()]
        )

    def run(self) -> None:
        self._measure(self._space.current, "the settings as they are")
        for point in self._named():
            self._measure(point, "among the best of the forecast")

        for _ in range(ROUNDS):
            before = self.best()
            self._follow_forecast()
            for axis in range(len(self._space.axes)):
                self._step_along(axis)

            if self.best() == before:
                break

    def best(self) -> Point:
        """Return the best of what was measured; the settings as they are unless another is better by a step."""
        current = self._space.current
        best = max(self._rates, key=self._smoothed, default=current)
        return best if self._smoothed(best) > self._smoothed(current) + LEAST_STEP else current

    def rate(self, point: Point) -> float:
        """Return the rate of a point as it was measured; minus infinity for all others."""
        return self._rates.get(point, -inf)

    def _smoothed(self, point: Point) -> float:
        """Return a measured rate drawn half way to what all measurements expect there: one alone may be luck."""
        rate = self.rate(point)
        return rate if rate == -inf else (rate + self._expected(point)) / 2

    def _expected(self, point: Point) -> float:
        """Return the rate of any point by the forecast, as the trials correct it."""
        return (self._forecast(point) or 0.0) + self._corrections.at(point)

    def _measure(self, point: Point, why: str) -> None:
        if point not in self._known:
            raise _Missing(point, why)

    def _named(self) -> list[Point]:
        """Return what the forecast names: the best that fit, each away from the others on two axes at least."""
        ranked = sorted(
            (
                (value, point)
                for point in self._space.planned_points(self._space.current)
                if (value := self._forecast(point)) is not None
            ),
            key=lambda each: -each[0],
        )
        if not ranked or ranked[0][0] == ranked[-1][0]:
            return []

        chosen: list[Point] = []
        for _, point in ranked:
            if len(chosen) >= self._seeds:
                break

            apart = all(self._space.differing(point, each) >= APART for each in chosen)
            if apart and (point in self._known or not self._risky(point)):
                chosen.append(point)

        return chosen

    def _follow_forecast(self) -> None:
        """Measure what is now expected to be the best, where that is better than the best that was measured."""
        points = self._space.planned_points(self.best())
        top = max(
            (each for each in points if each not in self._known and not self._risky(each)),
            key=self._expected,
            default=None,
        )
        if top is not None and self._expected(top) > self._smoothed(self.best()) + LEAST_EXPECTED:
            self._measure(top, "expected to be the best, by what was measured so far")

    def _step_along(self, axis: int) -> None:
        """Go along an axis from the best point while it gets better, first to the side that is expected to be so."""
        for _ in self._space.axes[axis].choices:
            at = self.best()
            steps = [each for each in self._space.neighbours(at, axis) if not self._hopeless(each)]
            for step in sorted(steps, key=self._expected, reverse=True):
                self._measure(step, f"one step of {self._space.axes[axis].name}")
                if self._smoothed(step) > self._smoothed(at) + LEAST_STEP:
                    break
            else:
                return

    def _hopeless(self, point: Point) -> bool:
        """Whether it cannot fit, by the forecast or as the same with less of the device filled has died."""
        if point not in self._known and self._forecast(point) is None:
            return True

        if any(point != dead and self._fills_as_much(point, dead, others_equal=True) for dead in self._dead):
            return True

        return point not in self._known and any(self._has_culprit(point, failed) for failed in self._failed)

    def _has_culprit(self, point: Point, failed: Point) -> bool:
        """Whether a point has the one choice by which a start that failed differs from one that was measured.

        Where a device is less full than it was then, the choice may do.
        """
        if not self._fills_as_much(point, failed, others_equal=False) and self._has_memory:
            return False

        for lived in self._rates:
            apart = [k for k, (a, b) in enumerate(zip(lived, failed, strict=True)) if a != b]
            if len(apart) == 1 and self._space.axes[apart[0]].kind != "memory" and point[apart[0]] == failed[apart[0]]:
                return True

        return False

    def _risky(self, point: Point) -> bool:
        """Whether it is hopeless, or fills a device as much as anything that has died: left to single steps."""
        return self._hopeless(point) or any(self._fills_as_much(point, dead, others_equal=False) for dead in self._dead)

    def _fills_as_much(self, point: Point, dead: Point, *, others_equal: bool) -> bool:
        """Whether a point is as far on the memory axis as one that died; False where there is no such axis."""
        memory = [axis.kind == "memory" for axis in self._space.axes]
        pairs = list(zip(memory, point, dead, strict=True))
        if others_equal and any(at != other for is_memory, at, other in pairs if not is_memory):
            return False

        return self._has_memory and all(at >= other for is_memory, at, other in pairs if is_memory)
