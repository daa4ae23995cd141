"""The settings that a tuning may choose among: axes, and points on them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import product
from typing import Literal

Point = tuple[int, ...]
"""The number of a choice on each axis."""

AxisKind = Literal["drafts", "speed", "quality", "memory"]
"""`drafts` turns speculative decoding on and off, `quality` changes answers, `memory` how close to its end a device is
filled."""


@dataclass(frozen=True, slots=True)
class AxisChoice:
    """One value of an axis.

    :param label: for people, e.g. `4`
    :param settings: keys of a profile with their values as TOML; empty leaves the profile as it is
    :param mutes: names of axes that mean nothing beside this choice, as `p_min` without drafts
    """

    label: str
    settings: tuple[tuple[str, str], ...] = ()
    mutes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Axis:
    """Choices in their natural order: neighbours differ least.

    :param current: the number of the choice that the profile has now
    :param planned: whether a forecast knows it from its neighbours
    """

    name: str
    kind: AxisKind
    choices: tuple[AxisChoice, ...]
    current: int
    planned: bool = False


@dataclass(frozen=True, slots=True)
class Space:
    """All axes of a tuning, in the order in which they are searched."""

    axes: tuple[Axis, ...]

    @property
    def current(self) -> Point:
        """The settings as they are."""
        return tuple(axis.current for axis in self.axes)

    def canonical(self, point: Point) -> Point:
        """Return the point by which those are known that start the same: muted axes as the profile has them."""
        muted = {name for axis, at in zip(self.axes, point, strict=True) for name in axis.choices[at].mutes}
        return tuple(axis.current if axis.name in muted else at for axis, at in zip(self.axes, point, strict=True))

    def planned_points(self, base: Point) -> Iterator[Point]:
        """Yield each point once that differs from another one on axes alone that are planned."""
        open_ = (range(len(axis.choices)) if axis.planned else (at,) for axis, at in zip(self.axes, base, strict=True))
        yield from dict.fromkeys(map(self.canonical, product(*open_)))

    def neighbours(self, point: Point, axis: int) -> list[Point]:
        """Return the points one step away on an axis."""
        steps = (at for at in (point[axis] + 1, point[axis] - 1) if 0 <= at < len(self.axes[axis].choices))
        found = [self.canonical((*point[:axis], at, *point[axis + 1 :])) for at in steps]
        return [each for each in dict.fromkeys(found) if each != point]

    def differing(self, one: Point, other: Point) -> int:
        """Return on how many axes two points differ."""
        return sum(a != b for a, b in zip(one, other, strict=True))

    def settings(self, point: Point) -> dict[str, str]:
        """Return what is changed in the profile, key by key; nothing at the current point."""
        return {
            key: value
            for axis, at in zip(self.axes, point, strict=True)
            if at != axis.current
            for key, value in axis.choices[at].settings
        }

    def label(self, point: Point) -> str:
        """Return a point for people: what differs from the settings as they are."""
        words = [
            f"{axis.name} {axis.choices[at].label}"
            for axis, at in zip(self.axes, point, strict=True)
            if at != axis.current
        ]
        return ", ".join(words) or "as it is"

    def within(self, allowed: Callable[[AxisChoice], bool]) -> Space:
        """Return the space without choices that cannot be had, and without axes that have nothing to choose then.

        :param allowed: not asked about the current choices
        """
        axes = []
        for axis in self.axes:
            kept = [k for k, each in enumerate(axis.choices) if k == axis.current or allowed(each)]
            if len(kept) > 1:
                choices = tuple(axis.choices[k] for k in kept)
                axes.append(replace(axis, choices=choices, current=kept.index(axis.current)))

        return Space(tuple(axes))
