"""Real starts in the place of the formula: the same shape, another context, a build whose graph has changed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from orchestrator.core.plan.geometry import Geometry, geometry_of
from orchestrator.core.plan.need import Need, PlanBuild
from orchestrator.core.plan.shape import PlanShape
from orchestrator.core.plan.solve import needs
from orchestrator.core.quantities import MIB
from orchestrator.core.starts.readback import (
    MeasuredDevice,
    MeasuredStart,
    contradictions,
    learned_beside_mib,
    learned_needs,
    memory_rows,
    residuals,
)
from tests import true_geometry

BUILD = PlanBuild("upstream", 11434)
SHAPE = PlanShape(context_tokens=32768)
MTP = PlanShape(context_tokens=32768, draft_max=3)


@pytest.fixture(scope="module")
def dense() -> Geometry:
    return geometry_of([true_geometry.header("llama32-3b")])


@pytest.fixture(scope="module")
def hybrid() -> Geometry:
    return geometry_of([true_geometry.header("qwen36-35b-a3b")])


def measured(
    need: Need, shape: PlanShape, change: Callable[[str, int], int] = lambda _, size: size, *, fitted: bool = False
) -> MeasuredStart:
    """A start that took what was planned, changed as a test wants it."""

    def told(parts: object) -> dict[str, int]:
        names = ("weights", "kv", "state", "draft_kv", "compute", "draft_compute", "output")
        sizes = {name: parts[name].low_bytes for name in names if name in parts}  # type: ignore[index,operator]
        sizes["weights"] += parts["draft_weights"].low_bytes if "draft_weights" in parts else 0  # type: ignore[index,operator]
        return {name: change(name, size) for name, size in sizes.items()}

    devices = tuple(MeasuredDevice(f"CUDA{index}", told(parts)) for index, parts in enumerate(need.devices))
    host = {name: size for name, size in told(need.host).items() if name != "draft_weights"}
    return MeasuredStart("b11434 0123", "m.gguf:1:2", shape, fitted, "2026-11-30T10:00:00+00:00", devices, host)


def test_a_start_that_took_what_was_planned_has_no_residual_and_changes_no_total(hybrid: Geometry) -> None:
    formula = needs(hybrid, BUILD)
    start = measured(formula(MTP), MTP)
    assert {each.beyond_bytes for each in residuals(formula(MTP), start)} == {0}
    said: list[str] = []
    learned = learned_needs(formula, [start], said)(MTP)
    assert learned.engine_total().low_bytes == formula(MTP).engine_total().low_bytes
    assert learned.devices[0]["compute"].low_bytes == learned.devices[0]["compute"].high_bytes
    assert learned.devices[0]["compute"].kind == "learned"
    assert learned.devices[0]["kv"].kind == "exact", "what agrees to the byte stays exact"
    assert said == ["read back from the start of 2026-11-30"]


def test_another_graph_is_said_and_what_was_read_is_trusted(dense: Geometry) -> None:
    formula = needs(dense, BUILD)
    start = measured(formula(SHAPE), SHAPE, lambda name, size: size + 400 * MIB if name == "compute" else size)
    found = contradictions(formula(SHAPE), start)
    assert [each.component for each in found] == ["compute", "compute"]
    assert {each.place for each in found} == {"CUDA0", "host"}
    assert str(found[0]).startswith("compute on CUDA0: ")
    learned = learned_needs(formula, [start])(SHAPE).devices[0]["compute"]
    assert learned.low_bytes == learned.high_bytes == start.devices[0].sizes["compute"]


def test_a_small_difference_is_luck_and_not_another_graph(dense: Geometry) -> None:
    formula = needs(dense, BUILD)
    start = measured(formula(SHAPE), SHAPE, lambda name, size: size + 12 * MIB if name == "compute" else size)
    assert contradictions(formula(SHAPE), start) == ()


def test_another_context_is_off_by_as_much(dense: Geometry) -> None:
    formula = needs(dense, BUILD)
    start = measured(formula(SHAPE), SHAPE, lambda name, size: size + 400 * MIB if name == "compute" else size)
    longer = replace(SHAPE, context_tokens=65536)
    said: list[str] = []
    plain, learned = formula(longer).devices[0]["compute"], learned_needs(formula, [start], said)(longer).devices[0]
    assert learned["compute"].high_bytes == pytest.approx(plain.high_bytes + 400 * MIB, abs=4 * MIB)
    assert learned["compute"].kind == "learned"
    assert learned["kv"] == formula(longer).devices[0]["kv"]
    assert "this build takes other amounts than the formula knows" in said[0]


def test_bounds_that_were_exceeded_are_widened_and_stay_bounds(hybrid: Geometry) -> None:
    shape = replace(SHAPE, n_cpu_moe=20)
    formula = needs(hybrid, BUILD)
    assert formula(shape).devices[0]["compute"].kind == "interval"
    start = measured(formula(shape), shape, lambda name, size: size + 4096 * MIB if name == "compute" else size)
    longer = replace(shape, context_tokens=65536)
    plain, learned = (
        formula(longer).devices[0]["compute"],
        learned_needs(formula, [start])(longer).devices[0]["compute"],
    )
    assert learned.kind == "interval"
    assert learned.low_bytes == plain.low_bytes and learned.high_bytes > plain.high_bytes


@pytest.mark.parametrize(
    "other",
    [
        replace(SHAPE, ubatch=1024, context_tokens=65536),
        replace(SHAPE, kv_k="q8_0", kv_v="q8_0"),
        replace(SHAPE, slots=4),
        replace(SHAPE, devices=2),
        replace(SHAPE, gpu_layers=10),
    ],
)
def test_another_shape_is_planned_by_the_formula(dense: Geometry, other: PlanShape) -> None:
    formula = needs(dense, BUILD)
    start = measured(formula(SHAPE), SHAPE, lambda name, size: size + 400 * MIB if name == "compute" else size)
    assert learned_needs(formula, [start])(other) == formula(other)


def test_an_engine_that_placed_layers_elsewhere_teaches_nothing_of_a_device(hybrid: Geometry) -> None:
    formula = needs(hybrid, BUILD)
    elsewhere = measured(formula(replace(MTP, n_cpu_moe=20)), MTP, fitted=True)
    assert learned_needs(formula, [elsewhere])(MTP) == formula(MTP)
    as_planned = measured(formula(MTP), MTP, fitted=True)
    assert learned_needs(formula, [as_planned])(MTP).devices[0]["compute"].kind == "learned"


def test_the_newest_start_counts(dense: Geometry) -> None:
    formula = needs(dense, BUILD)
    old = measured(formula(SHAPE), SHAPE, lambda name, size: size + 400 * MIB if name == "compute" else size)
    new = measured(formula(SHAPE), SHAPE)
    learned = learned_needs(formula, [old, new])(SHAPE).devices[0]["compute"]
    assert learned.high_bytes == new.devices[0].sizes["compute"]


def test_what_a_device_has_beside_the_log_is_learned_from_the_largest() -> None:
    def start(*beside: int | None) -> MeasuredStart:
        devices = tuple(MeasuredDevice(f"CUDA{index}", {}, each) for index, each in enumerate(beside))
        return MeasuredStart("b", "m", SHAPE, False, "2026-11-30", devices, {})

    assert learned_beside_mib([start(None)]) is None
    assert learned_beside_mib([start(500 * MIB), start(None, 612 * MIB + 1)]) == 613


def test_rows_show_each_component_beside_its_plan(hybrid: Geometry) -> None:
    need = needs(hybrid, BUILD)(MTP)
    before = memory_rows(need, None)
    assert {row.measured_bytes for row in before} == {None}
    assert {row.place for row in before} == {"device 0", "host"}
    start = measured(need, MTP)
    rows = {(row.place, row.component): row for row in memory_rows(need, start)}
    weights = rows["CUDA0", "weights"]
    assert weights.measured_bytes == weights.planned.low_bytes, "the MTP block's weights are among the model's"
    assert ("CUDA0", "draft_weights") not in rows
    assert rows["host", "prompt_cache"].measured_bytes is None
