"""One margin means the same free memory on both engines."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest

from orchestrator.core.plan.geometry import geometry_of
from orchestrator.core.plan.need import PlanBuild
from orchestrator.core.plan.shape import PlanShape
from orchestrator.core.profile.profile import EngineProfile, Recovery
from orchestrator.core.profile.settings import Value
from orchestrator.core.quantities import MIB
from orchestrator.core.starts.margins import MarginOffset, counts_state_twice, margin_offset, moved_margin, own_estimate
from orchestrator.core.starts.readback import MeasuredDevice, MeasuredStart
from orchestrator.core.starts.start import plan_start
from tests import true_geometry

UPSTREAM, FORK = PlanBuild("upstream", 11434), PlanBuild("ik", 4409)
FITTED: dict[str, Value] = {"context.size": 131072, "kv.k": "q8_0", "kv.v": "q8_0", "memory.fit": True}


def profile(settings: Mapping[str, Value], extra_args: tuple[str, ...] = ()) -> EngineProfile:
    return EngineProfile("demo", "upstream", "/m.gguf", (), settings, Recovery(), extra_args)


def offset(geometry: str, build: PlanBuild, **more: Value) -> int | None:
    settings = FITTED | {name.replace("__", "."): value for name, value in more.items()}
    found = margin_offset(
        plan_start(geometry_of([true_geometry.header(geometry)]), profile(settings), build, devices=1)
    )
    return None if found is None else found.mib


def test_upstream_is_given_less_by_the_state_that_it_counts_twice() -> None:
    """The figures that were measured: state of one slot, times slots, times one more than the drafted tokens."""
    assert offset("qwen36-35b-a3b", UPSTREAM) == 62
    assert offset("qwen36-35b-a3b", UPSTREAM, speculative__type="mtp", speculative__draft_max=3) == 251
    asked: dict[str, Value] = {"speculative__type": "mtp", "speculative__draft_max": 3, "context__parallel": 4}
    assert offset("qwen36-35b-a3b", UPSTREAM, **asked) == 1005
    assert offset("qwen36-27b", UPSTREAM, **asked) == 2394


@pytest.mark.parametrize(
    ("geometry", "build", "more"),
    [
        ("llama31-8b", UPSTREAM, {}),
        ("qwen36-35b-a3b", PlanBuild("upstream", 9093), {}),
        ("qwen36-35b-a3b", PlanBuild("upstream", None), {}),
        ("qwen36-35b-a3b", UPSTREAM, {"memory__fit": False}),
        ("qwen36-35b-a3b", UPSTREAM, {"memory__gpu_layers": "all"}),
        ("qwen36-35b-a3b", FORK, {"memory__fit": False}),
    ],
)
def test_a_margin_that_means_what_it_says_is_passed_as_it_is(
    geometry: str, build: PlanBuild, more: dict[str, Value]
) -> None:
    assert offset(geometry, build, **more) is None


def test_the_fork_is_given_more_by_what_its_fit_leaves_out() -> None:
    """Logits of a batch, 489 MiB where it counts with 56, and the copies of one layer's q8_0 cache: 256 MiB."""
    found = offset("qwen36-35b-a3b", FORK)
    assert found is not None and -(489 - 56 + 256) - 8 <= found <= -(485 - 56 + 256)
    plain = offset("qwen36-35b-a3b", FORK, kv__k="f16", kv__v="f16")
    assert plain is not None and plain == pytest.approx(found + 256, abs=1)
    large = offset("qwen36-35b-a3b", FORK, batch__ubatch=2048)
    assert large is not None and large < 4 * plain + 64


@pytest.mark.parametrize(
    ("geometry", "ubatch", "counted_mib"),
    [("llama31-8b", 512, 80.0), ("llama31-8b", 2048, 320.0), ("gemma3-12b", 512, 82.5), ("qwen3-30b-a3b", 512, 64.0),
     ("qwen3-30b-a3b", 2048, 256.0), ("qwen3-8b", 512, 72.0)],
)  # fmt: skip
def test_what_the_forks_fit_counts_with_is_what_its_table_shows(geometry: str, ubatch: int, counted_mib: float) -> None:
    found = own_estimate(geometry_of([true_geometry.header(geometry)]), PlanShape(32768, ubatch=ubatch))
    assert found / MIB == counted_mib


def test_arguments_that_nobody_planned_leave_the_margin_alone() -> None:
    plan = plan_start(geometry_of([true_geometry.header("qwen36-35b-a3b")]), profile(FITTED), FORK, devices=1)
    assert margin_offset(plan, ("-wgt", "64")) is None


def start(state_mib: int, hidden_mib: int | None) -> MeasuredStart:
    device = MeasuredDevice("CUDA0", {"state": state_mib * MIB})
    return MeasuredStart("b", "m", PlanShape(8192), True, "2026-11-30", (device,), {}, hidden_mib)


def test_a_builds_own_starts_say_whether_it_counts_the_state_twice() -> None:
    assert counts_state_twice(11434, [])
    assert not counts_state_twice(10000, [])
    assert not counts_state_twice(12000, [start(251, 3)])
    assert counts_state_twice(10000, [start(251, 250)])
    assert counts_state_twice(12000, [start(251, 3), start(201, 200), start(5, 0), start(251, None)])


def test_the_margin_is_moved_and_the_note_says_why() -> None:
    asked = profile(FITTED | {"memory.fit_margin": 1024})
    moved, note = moved_margin(asked, MarginOffset(251, "the state"))
    assert moved.settings["memory.fit_margin"] == 773
    assert note == "memory.fit_margin is passed as 773 so that what it says stays free: the state"
    assert moved_margin(asked, MarginOffset(-433, "the logits"))[0].settings["memory.fit_margin"] == 1457
    assert moved_margin(asked, MarginOffset(2394, "the state"))[0].settings["memory.fit_margin"] == 64
    small = profile(FITTED | {"memory.fit_margin": 4})
    assert moved_margin(small, MarginOffset(2394, "the state"))[0].settings["memory.fit_margin"] == 4
    assert moved_margin(small, MarginOffset(-2, "the logits"))[0].settings["memory.fit_margin"] == 6
    assert moved_margin(asked, None) == (asked, None)
    assert moved_margin(profile(FITTED), MarginOffset(251, "")) == (profile(FITTED), None)
    each = replace(asked, settings=FITTED | {"memory.fit_margin": (1024, 512)})
    assert moved_margin(each, MarginOffset(-100, ""))[0].settings["memory.fit_margin"] == (1124, 612)
