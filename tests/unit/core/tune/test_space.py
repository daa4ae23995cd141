"""Axes and points: what is the same start, what a step changes, and what is written."""

from __future__ import annotations

from orchestrator.core.tune.space import Space
from tests.unit.core.tune.spaces import SPACE, axis


def test_an_axis_that_means_nothing_beside_a_choice_is_as_the_profile_has_it() -> None:
    assert SPACE.canonical((0, 2, 1, 2)) == (0, 2, 1, 0)
    assert SPACE.canonical((1, 2, 1, 2)) == (1, 2, 1, 2)


def test_each_start_is_listed_once() -> None:
    points = list(SPACE.planned_points(SPACE.current))
    assert len(points) == len(set(points)) == (1 + 3 * 3) * 4 * 5


def test_axes_that_are_not_planned_stay_where_they_are() -> None:
    space = Space((axis("a", "speed", 3, 0), axis("b", "speed", 3, 1, planned=False)))
    assert list(space.planned_points((0, 2))) == [(0, 2), (1, 2), (2, 2)]


def test_neighbours_are_one_step_away_and_none_is_the_point_itself() -> None:
    assert SPACE.neighbours((0, 1, 1, 0), 1) == [(0, 2, 1, 0), (0, 0, 1, 0)]
    assert SPACE.neighbours((0, 1, 1, 0), 3) == []  # muted: each step starts the same
    assert SPACE.neighbours((3, 3, 4, 2), 2) == [(3, 3, 3, 2)]


def test_what_is_written_is_what_differs() -> None:
    assert SPACE.settings(SPACE.current) == {}
    assert SPACE.settings((2, 1, 3, 0)) == {"drafts": "2", "margin": "3"}
    assert SPACE.label(SPACE.current) == "as it is"
    assert SPACE.label((2, 1, 3, 0)) == "drafts 2, margin 3"


def test_choices_that_cannot_be_had_are_left_out_and_axes_with_one_choice_too() -> None:
    kept = SPACE.within(lambda choice: choice.settings[0] in {("ubatch", "3"), ("drafts", "2")})
    assert [(each.name, len(each.choices), each.current) for each in kept.axes] == [("drafts", 2, 0), ("ubatch", 2, 0)]
