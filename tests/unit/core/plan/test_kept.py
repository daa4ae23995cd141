"""What is kept of a geometry while plans are made of it lives as long as that, and no longer."""

from __future__ import annotations

import gc
import weakref

from orchestrator.core.plan.geometry import Geometry, geometry_of, kept_of_geometry
from orchestrator.core.plan.need import PlanBuild, need_of
from orchestrator.core.plan.shape import PlanShape
from tests.true_geometry import header


def test_a_model_whose_plan_is_over_is_forgotten_with_what_was_computed_of_it() -> None:
    geometry = geometry_of([header("llama31-8b")])
    need_of(geometry, PlanShape(8192), PlanBuild("upstream", 11434))
    assert geometry.kept, "nothing was kept that could be forgotten"
    gone = weakref.ref(geometry)
    del geometry
    gc.collect()
    assert gone() is None


def test_what_is_asked_twice_is_computed_once_for_each_model_and_each_question() -> None:
    asked: list[int] = []

    @kept_of_geometry
    def double(geometry: Geometry, number: int, *, more: int = 0) -> int:
        asked.append(number)
        return 2 * number + more

    one, other = geometry_of([header("llama31-8b")]), geometry_of([header("llama31-8b")])
    assert [double(one, 2), double(one, 2), double(one, 3), double(one, 2, more=1), double(other, 2)] == [4, 4, 6, 5, 4]
    assert asked == [2, 3, 2, 2]
