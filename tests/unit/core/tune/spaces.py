"""A small space for the tests of tuning, and what is true in it."""

from __future__ import annotations

from math import log

from orchestrator.core.tune.search import Forecast, TuneFound, TuneStart, TuneTrial, next_start
from orchestrator.core.tune.space import Axis, AxisChoice, AxisKind, Point, Space


def axis(name: str, kind: AxisKind, count: int, current: int, *, planned: bool = True, mutes: str = "") -> Axis:
    """Return an axis of choices 0 to count - 1; the first one mutes another axis where that is named."""
    choices = tuple(AxisChoice(str(k), ((name, str(k)),), (mutes,) if mutes and not k else ()) for k in range(count))
    return Axis(name, kind, choices, current, planned)


SPACE = Space(
    (
        axis("drafts", "drafts", 4, 0, mutes="p_min"),
        axis("ubatch", "speed", 4, 1),
        axis("margin", "memory", 5, 1),
        axis("p_min", "speed", 3, 0),
    )
)


def true_rate(point: Point) -> float:
    """The logarithm of the rate: best at drafts 2, ubatch 3, the fullest margin, p_min 1."""
    drafts, ubatch, margin, p_min = point
    return (
        (0.0, 0.2, 0.3, 0.25)[drafts]
        + 0.08 * ubatch
        + 0.05 * margin
        + (0.03 if drafts and p_min == 1 else 0.0)
        - log(10)
    )  # fmt: skip


def dies(point: Point) -> bool:
    """Past a margin of 3, and from a micro-batch of 3 on past 2."""
    return point[2] > (2 if point[1] == 3 else 3)


def tried(point: Point) -> TuneTrial:
    if dies(point):
        return TuneTrial(point, "died", reason="out of device memory")

    return TuneTrial(point, "measured", (true_rate(point),) * 6)


def searched(
    space: Space = SPACE, forecast: Forecast = lambda point: 0.0, most: int = 20
) -> tuple[TuneFound, list[TuneTrial]]:
    """Run a search to its end on what is true, without noise."""
    trials: list[TuneTrial] = []
    while isinstance(step := next_start(space, trials, forecast, most), TuneStart):
        assert step.point not in {trial.point for trial in trials}
        trials.append(tried(step.point))

    return step, trials
