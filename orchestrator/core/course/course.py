"""The course of speed by profile, engine and kind of measurement, and what is to be told of it. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import NamedTuple

from orchestrator.core.course.benches import in_use
from orchestrator.core.course.decline import Decline, find_decline
from orchestrator.core.course.marks import SpeedMark


class SpeedSeries(NamedTuple):
    """Whose speed it is, and how it was measured: only what has this in common is compared."""

    profile: str
    engine: str
    kind: str

    @property
    def target(self) -> str:
        return f"{self.profile}@{self.engine}"


class Course(NamedTuple):
    """The marks of a series, oldest first, and by how much the newest are slower, where they are."""

    series: SpeedSeries
    marks: list[SpeedMark]
    decline: Decline | None


def series_of(mark: SpeedMark) -> SpeedSeries:
    return SpeedSeries(mark.profile, mark.engine, mark.kind)


def courses_of(marks: Sequence[SpeedMark], accepted: Mapping[SpeedSeries, float]) -> list[Course]:
    """Return the course of each series; marks of trials are in it, and are not compared.

    :param accepted: the Unix time from which on a series' speed is taken for normal
    """
    found = []
    ordered = sorted(marks, key=lambda mark: (mark.profile, mark.engine, mark.when_s))
    for _, group in groupby(ordered, key=lambda mark: (mark.profile, mark.engine)):
        of_target = list(group)
        used = in_use(of_target)
        for series in dict.fromkeys(map(series_of, of_target)):
            own = [mark for mark in of_target if series_of(mark) == series]
            compared = [mark for mark in used if series_of(mark) == series]
            found.append(Course(series, own, find_decline(compared, accepted.get(series, float("-inf")))))

    return found
