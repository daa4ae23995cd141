"""What is refused before a start, and the bounds of what an engine may choose."""

from __future__ import annotations

import re
from collections.abc import Mapping

import pytest

from orchestrator.adapters.config.profile_files import ProfileStore, shipped_directory
from orchestrator.adapters.paths import find_paths
from orchestrator.core.plan.geometry import Geometry, geometry_of
from orchestrator.core.plan.need import PlanBuild
from orchestrator.core.plan.verdict import judge
from orchestrator.core.profile.profile import EngineProfile, Recovery
from orchestrator.core.profile.settings import Value
from orchestrator.core.quantities import MIB
from orchestrator.core.starts.start import engine_places, placed_mib, plan_start, refuse_start
from tests import true_geometry

UPSTREAM, FORK = PlanBuild("upstream", 11434), PlanBuild("ik", 4409)
HOST_MIB = 32768


def profile(settings: Mapping[str, Value], extra_args: tuple[str, ...] = ()) -> EngineProfile:
    return EngineProfile("demo", "upstream", "/m.gguf", (), settings, Recovery(), extra_args)


@pytest.fixture(scope="module")
def experts() -> Geometry:
    return geometry_of([true_geometry.header("qwen36-35b-a3b")])


@pytest.fixture(scope="module")
def dense() -> Geometry:
    return geometry_of([true_geometry.header("qwen36-27b")])


def refused(
    geometry: Geometry, build: PlanBuild, total_mib: int | None, host_mib: int = HOST_MIB, **more: Value
) -> str | None:
    settings: dict[str, Value] = {"context.size": 8192, **{k.replace("__", "."): v for k, v in more.items()}}
    asked = profile(settings)
    plan = plan_start(geometry, asked, build, devices=0 if total_mib is None else 1)
    totals = [] if total_mib is None else [total_mib]
    needs_device = more.get("memory__gpu_layers") not in (None, "auto", 0)
    return refuse_start(plan, asked, totals, host_mib, needs_device=needs_device)


def test_weights_that_are_larger_than_the_devices_are_refused(dense: Geometry) -> None:
    for build in (UPSTREAM, FORK):
        reason = refused(dense, build, 12288, memory__gpu_layers="all")
        assert reason is not None
        assert re.fullmatch(
            r"it needs 1[345] \d{3} MiB of device memory at least, and there are 12 288 MiB in all", reason
        )
        assert refused(dense, build, 16384, memory__gpu_layers="all") is None


def test_caches_count_with_the_weights(dense: Geometry) -> None:
    assert refused(dense, UPSTREAM, 16384, memory__gpu_layers="all", context__size=65536) is not None
    assert refused(dense, UPSTREAM, 24576, memory__gpu_layers="all", context__size=65536) is None


def test_upstreams_fit_puts_anything_on_the_host(dense: Geometry, experts: Geometry) -> None:
    for geometry in (dense, experts):
        assert refused(geometry, UPSTREAM, 2048, memory__fit=True) is None
        assert refused(geometry, UPSTREAM, 2048) is None


def test_the_forks_fit_moves_experts_and_nothing_else(experts: Geometry) -> None:
    asked = profile({"context.size": 262144, "memory.fit": True, "memory.gpu_layers": "all"})
    plan = plan_start(experts, asked, FORK, devices=1)
    assert plan.fitted
    for total_mib, is_refused in ((4096, True), (12288, False)):
        assert (refuse_start(plan, asked, [total_mib], HOST_MIB, needs_device=True) is not None) is is_refused


def test_caches_that_no_memory_holds_are_refused_wherever_they_are(dense: Geometry) -> None:
    long: dict[str, Value] = {"context__size": 1048576, "memory__fit": True}
    assert refused(dense, UPSTREAM, 8192, host_mib=16384, **long) is not None  # 64 GiB of keys and values
    assert refused(dense, UPSTREAM, 24576, host_mib=65536, **long) is None
    assert refused(dense, UPSTREAM, None, host_mib=16384, **long) is not None


@pytest.mark.parametrize(
    "more",
    [
        {"memory.tensor_overrides": ("ffn=CPU",)},
        {"memory.tensor_split": (1.0, 1.0)},
        {"memory.split": "row"},
        {"memory.rpc": ("10.0.0.2:50052",)},
    ],
)
def test_what_is_placed_in_a_way_that_is_not_planned_is_not_refused(dense: Geometry, more: dict[str, Value]) -> None:
    asked = profile({"memory.gpu_layers": "all", **more})
    assert refuse_start(plan_start(dense, asked, UPSTREAM, devices=1), asked, [8192], 8192, needs_device=True) is None


def test_who_places_the_layers() -> None:
    assert engine_places(profile({}), "upstream") and not engine_places(profile({}), "ik")
    assert engine_places(profile({"memory.fit": True}), "ik")
    assert not engine_places(profile({"memory.fit": False}), "upstream")
    assert not engine_places(profile({"memory.fit": True, "memory.gpu_layers": 20}), "upstream")
    assert not engine_places(profile({"memory.n_cpu_moe": 20}), "upstream")


def test_the_bounds_of_a_fit_hold_everything_on_the_device_and_nothing(experts: Geometry) -> None:
    plan = plan_start(experts, profile({"context.size": 8192, "memory.fit": True}), UPSTREAM, devices=1)
    weights = plan.need.devices[0]["weights"]
    assert (weights.low_bytes, weights.high_bytes) == (0, plan.whole.devices[0]["weights"].high_bytes)
    on_devices, on_host = placed_mib(plan)
    assert on_devices is not None and 17500 < on_devices < 19500
    assert on_host is not None and on_host < 1024


SHIPPED = ProfileStore(find_paths({"ORCH_HOME": "/nonexistent"}), shipped_directory()).load_all()[0]
CARDS = [(each.name, int(found[1])) for each in SHIPPED if (found := re.search(r"-(\d+)gb$", each.name))]


@pytest.mark.parametrize("build", [UPSTREAM, FORK], ids=["upstream", "fork"])
@pytest.mark.parametrize(("name", "card_gb"), CARDS)
def test_a_shipped_profile_fits_the_card_of_its_name_with_its_margin_free(
    name: str, card_gb: int, build: PlanBuild
) -> None:
    """The card has 300 MiB less than its name says, for a driver and a small display."""
    [found] = [each for each in SHIPPED if each.name == name]
    chosen = found.for_engine("upstream" if build == UPSTREAM else "ik-fork")
    quant = {12: "q2_k", 16: "q3_k_m", 24: "iq4_xs"}[card_gb] if "27b" in name else "iq4_xs"
    geometry = geometry_of([true_geometry.header("qwen36-27b" if "27b" in name else "qwen36-35b-a3b", quant)])
    plan = plan_start(geometry, chosen, build, devices=1)
    margin = chosen.settings["memory.fit_margin"]
    assert isinstance(margin, int) and chosen.recovery.margins[0] == margin
    free = [(card_gb * 1024 - 300) * MIB]
    # What the margin is kept for is not counted a second time: growth.
    verdict = judge(geometry, plan.shape, build, free, 24576 * MIB, margin_bytes=(margin - 300) * MIB).verdict
    assert verdict in ("fits", "fits_with_offload")
    if name.endswith("24gb") and "27b" in name:
        assert verdict == "fits"
