"""What is free, needed and held, with the figures of real cards and of models of true geometry."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from orchestrator.core.fleet.admission import MemoryLook
from orchestrator.core.plan.geometry import geometry_of
from orchestrator.core.plan.need import PlanBuild
from orchestrator.core.profile.profile import EngineProfile, Recovery
from orchestrator.core.profile.settings import Value
from orchestrator.core.residency.memory_ledger import (
    DeviceSpace,
    Holding,
    MemoryFigures,
    ProfileNeed,
    margins_of,
    memory_look,
    planned_need,
)
from orchestrator.core.residency.places import place_of_device, places_of
from orchestrator.core.starts.start import StartPlan, plan_start
from tests import true_geometry

UPSTREAM = PlanBuild("upstream", 11434)
CARDS = (DeviceSpace("gpu0", 11800, 12288), DeviceSpace("gpu1", 23500, 24576))
"""An RTX 3060 with a desktop on it, and an RTX 3090."""


def profile(settings: Mapping[str, Value]) -> EngineProfile:
    return EngineProfile("p", "upstream", "/m.gguf", (), settings, Recovery(), ())


def plan(model: str, settings: Mapping[str, Value], devices: int) -> StartPlan:
    return plan_start(geometry_of([true_geometry.header(model)]), profile(settings), UPSTREAM, devices=devices)


def need(model: str, settings: Mapping[str, Value], devices: int, read: int | None = None) -> ProfileNeed:
    asked = profile(settings)
    places = places_of(asked, devices if read is None else read)
    return planned_need(plan(model, settings, devices), asked, 0, places)


def look(figures: MemoryFigures, needs: Mapping[str, ProfileNeed], margin: int = 1024) -> MemoryLook:
    return memory_look(figures, needs, {each.place: margin for each in figures.devices})


# Places.


@pytest.mark.parametrize(
    ("name", "settings", "read", "place"),
    [
        ("CUDA1", {}, 2, "gpu1"),
        ("ROCm0", {}, 1, "gpu0"),
        ("Vulkan0", {}, 0, "Vulkan0"),
        ("CUDA2", {}, 2, "CUDA2"),
        ("RPC1", {"memory.rpc": ("a:1", "b:2")}, 1, "rpc b:2"),
        ("RPC1", {"memory.rpc": ("a:1",)}, 1, "RPC1"),
        ("Metal", {}, 1, "Metal"),
        ("CUDA0", {"environment.CUDA_VISIBLE_DEVICES": "1"}, 2, "gpu1"),
        ("CUDA1", {"environment.CUDA_VISIBLE_DEVICES": "1"}, 2, "CUDA1"),
        ("Vulkan1", {"environment.GGML_VK_VISIBLE_DEVICES": "2,0"}, 3, "gpu0"),
        ("CUDA0", {"environment.CUDA_VISIBLE_DEVICES": "GPU-8932f937"}, 1, "gpu0"),
    ],
)
def test_a_device_has_one_name_whatever_an_engine_calls_it(
    name: str, settings: Mapping[str, Value], read: int, place: str
) -> None:
    assert place_of_device(name, profile(settings), read) == place


@pytest.mark.parametrize(
    ("settings", "read", "places"),
    [
        ({}, 0, ()),
        ({}, 2, ("gpu0", "gpu1")),
        ({"memory.devices": ("CUDA1", "CPU")}, 2, ("gpu1",)),
        ({"memory.split": "none"}, 2, ("gpu0",)),
        ({"memory.split": "none", "memory.main_gpu": 1}, 2, ("gpu1",)),
        ({"memory.rpc": ("a:1",)}, 1, ("gpu0", "rpc a:1")),
        ({"environment.CUDA_VISIBLE_DEVICES": "1"}, 2, ("gpu1",)),
        ({"memory.rpc": ("a:1", "b:2"), "memory.devices": ("RPC1",)}, 1, ("rpc b:2",)),
    ],
)
def test_the_devices_of_a_profile_are_in_the_order_of_its_plan(
    settings: Mapping[str, Value], read: int, places: tuple[str, ...]
) -> None:
    assert places_of(profile(settings), read) == places


# Needs.


def test_two_devices_are_needed_by_their_index() -> None:
    found = need("llama31-8b", {"context.size": 8192, "memory.gpu_layers": "all"}, 2)
    places = [place for place, _ in found.devices]
    assert places == ["gpu0", "gpu1"]
    assert all(2500 < mib < 5000 for _, mib in found.devices), found  # half of 4.6 GiB, 512 MiB of cache, a context
    assert 250 < found.host_mib < 1000, found  # the embedding, and buffers
    assert not found.fitted


def test_what_its_device_alone_is_named_for_is_there() -> None:
    found = need("llama32-3b", {"memory.devices": ("CUDA1",), "memory.gpu_layers": "all", "context.size": 4096}, 1, 2)
    assert [place for place, _ in found.devices] == ["gpu1"]


def test_without_a_device_all_is_in_host_memory() -> None:
    found = need("llama32-3b", {"context.size": 8192}, 0)
    assert found.devices == ()
    weights = sum(tensor.size_bytes for tensor in true_geometry.header("llama32-3b").tensors) >> 20
    beside = found.host_mib - weights - 896  # 28 layers of keys and values, 1024 each, over 8192 tokens
    assert 0 < beside < 600, found


def test_a_unified_cache_is_needed_once_and_separate_ones_as_their_context_is_shared_out() -> None:
    settings: dict[str, Value] = {"context.size": 32768, "context.parallel": 4, "memory.gpu_layers": "all"}
    unified = need("llama31-8b", {**settings, "context.unified_kv": True}, 1)
    single = need("llama31-8b", {**settings, "context.parallel": 1}, 1)
    assert abs(unified.devices[0][1] - single.devices[0][1]) < 64


def test_what_a_plan_does_not_know_is_needed_by_the_size_of_the_files() -> None:
    assert planned_need(None, profile({}), 4000, ()) == ProfileNeed((), 4000)
    assert planned_need(None, profile({}), 4000, ("gpu0",)) == ProfileNeed((("gpu0", 4000 + 1536),), 0)
    assert planned_need(None, profile({}), 4001, ("gpu0", "gpu1")).devices == (("gpu0", 3537), ("gpu1", 3537))
    assert planned_need(None, profile({"memory.gpu_layers": 0}), 4000, ("gpu0",)) == ProfileNeed((), 4000)


def test_a_remote_device_needs_what_the_engine_itself_takes_there() -> None:
    settings: dict[str, Value] = {"memory.rpc": ("a:1",), "context.size": 4096, "memory.gpu_layers": "all"}
    remote, local = need("llama32-3b", settings, 1, 0), need("llama32-3b", {**settings, "memory.rpc": ()}, 1, 1)
    assert remote.devices[0][0] == "rpc a:1"
    assert local.devices[0][1] - remote.devices[0][1] == 1000  # a context, and what it grows by


# Looks.


def test_free_is_what_is_measured_less_what_those_who_wait_keep_free() -> None:
    found = memory_look(MemoryFigures(CARDS), {}, {"gpu1": 2048})
    assert found.free == {"gpu0": 11800 - 1024, "gpu1": 23500 - 2048}
    assert margins_of(profile({"memory.fit_margin": (512, 700)}), ("gpu0", "gpu1", "gpu2")) == {
        "gpu0": 512, "gpu1": 700, "gpu2": 700,
    }  # fmt: skip
    assert margins_of(profile({"memory.fit_margin": 300}), ("gpu0",)) == {"gpu0": 300}
    assert margins_of(profile({}), ("gpu0",)) == {"gpu0": 1024}
    laddered = EngineProfile("p", "upstream", "/m.gguf", (), {"memory.fit": True}, Recovery((8, 16)), ())
    assert margins_of(laddered, ("gpu0",)) == {"gpu0": 8}


def test_a_need_without_a_device_is_on_the_one_with_most_free() -> None:
    found = look(MemoryFigures(CARDS), {"p": ProfileNeed(((None, 5000),), 100)})
    assert found.needs == {"p": {"gpu1": 5000, "host": 100}}
    assert look(MemoryFigures(), {"p": ProfileNeed(((None, 5000),), 100)}).needs == {"p": {"host": 100}}


def test_what_the_engine_fits_is_counted_whole_as_far_as_its_device_goes_and_the_rest_on_the_host() -> None:
    figures = MemoryFigures((DeviceSpace("gpu0", 3000, 12288),))
    assert look(figures, {"p": ProfileNeed((("gpu0", 9000),), 500, True)}).needs["p"] == {"gpu0": 9000, "host": 500}
    assert look(figures, {"p": ProfileNeed((("gpu0", 20000),), 500, True)}).needs["p"] == {
        "gpu0": 11264, "host": 500 + 20000 - 11264,
    }  # fmt: skip
    # Nothing is left of a device that is smaller than the margin.
    assert memory_look(
        MemoryFigures((DeviceSpace("gpu0", 900, 1000),)), {"p": ProfileNeed((("gpu0", 40),), 5, True)}, {}
    ) == (MemoryLook({"gpu0": 900 - 1024}, {"p": {"host": 45}}, {}))
    # What is placed by hand is not moved: it is tried alone, on the ladder.
    assert look(figures, {"p": ProfileNeed((("gpu0", 20000),), 500)}).needs["p"] == {"gpu0": 20000, "host": 500}


def test_a_loaded_one_holds_what_is_measured_else_what_its_engine_told_else_what_it_needs() -> None:
    needs = {name: ProfileNeed((("gpu0", 3000),), 700) for name in ("a", "b", "c")}
    held = {
        "a": Holding({"gpu0": 3200}, {"gpu0": 2900, "host": 600}, 900, 400),
        "b": Holding({}, {"gpu1": 2900, "host": 600}),
        "c": Holding(),
    }
    found = look(MemoryFigures(CARDS, host_available_mib=32000, holdings=held), needs)
    assert found.holds == {
        "a": {"gpu0": 3200, "host": 900},
        "b": {"gpu1": 2900, "host": 600},
        "c": {"gpu0": 3000, "host": 700},
    }


def test_weights_that_are_mapped_from_a_file_count_as_held_although_they_are_available() -> None:
    # 16 GiB, of which others have 2000 MiB. One model: 1500 MiB of its own, 5000 MiB mapped, of which 3000 are there.
    one = Holding({}, {"host": 6500}, 4500, 3000)
    available = 16384 - 2000 - 1500
    found = look(MemoryFigures(host_available_mib=available, holdings={"a": one}), {})
    assert found.free["host"] == available - 5000 - 1024
    assert found.holds["a"] == {"host": 6500}

    # Once it has ended, all that it held is free: what was told beforehand comes true.
    after = look(MemoryFigures(host_available_mib=16384 - 2000), {})
    assert after.free["host"] == found.free["host"] + found.holds["a"]["host"]


def test_host_memory_is_never_more_than_what_the_loaded_ones_leave_of_the_whole() -> None:
    loaded = {name: Holding({}, {"host": 3000}, 3100, 2600) for name in "abc"}
    found = look(MemoryFigures(host_available_mib=16384 - 3 * 500, holdings=loaded), {})
    assert found.free["host"] == 16384 - 3 * 3100 - 1024


def test_a_device_that_only_engines_tell_of_has_what_the_loaded_ones_leave_there() -> None:
    figures = MemoryFigures(
        told_totals={"rpc a:1": 30},
        holdings={"a": Holding({}, {"rpc a:1": 12, "host": 5}), "b": Holding({}, {"host": 9})},
    )
    needs = {"c": ProfileNeed((("rpc a:1", 25),), 5, True)}
    found = memory_look(figures, needs, {"rpc a:1": 2})
    assert found.free == {"rpc a:1": 30 - 12 - 2}
    assert found.needs["c"] == {"rpc a:1": 25, "host": 5}
    assert found.holds["a"] == {"rpc a:1": 12}
    assert memory_look(MemoryFigures(), needs, {}).free == {}  # before any engine has told: it holds nobody up
