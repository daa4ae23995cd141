from __future__ import annotations

from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.core.profile.profile import EngineProfile, Recovery
from orchestrator.core.profile.settings import Value
from orchestrator.core.residency.placement import (
    DEFAULT_MARGIN_MIB,
    DEVICE_OVERHEAD_MIB,
    HOST_OVERHEAD_MIB,
    choose_strategy,
)


def profile(settings: Mapping[str, Value] | None = None) -> EngineProfile:
    return EngineProfile("demo", "upstream", "/m.gguf", (), settings or {}, Recovery(), ())


def test_on_a_device_the_model_its_overhead_and_the_margin_must_fit() -> None:
    need_mib = 8000 + DEVICE_OVERHEAD_MIB + DEFAULT_MARGIN_MIB
    assert choose_strategy(profile(), 8000, [need_mib], 0) == (
        "beside",
        f"{need_mib} MiB needed, {need_mib} MiB free on the device",
    )
    assert choose_strategy(profile(), 8000, [need_mib - 1], 10**6) == (
        "replace",
        f"{need_mib} MiB needed, only {need_mib - 1} MiB free on the device",
    )


@pytest.mark.parametrize(("margin", "counted_mib"), [(2048, 2048), ((512, 3000), 3000), (0, 0)])
def test_the_margin_of_the_profile_is_kept_free(margin: Value, counted_mib: int) -> None:
    need_mib = 100 + DEVICE_OVERHEAD_MIB + counted_mib
    asked = profile({"memory.fit_margin": margin})
    assert choose_strategy(asked, 100, [need_mib], 0)[0] == "beside"
    assert choose_strategy(asked, 100, [need_mib - 1], 0)[0] == "replace"


def test_a_plan_takes_the_place_of_the_files_size() -> None:
    need_mib = 3000 + DEFAULT_MARGIN_MIB
    for free_mib, strategy in ((need_mib, "beside"), (need_mib - 1, "replace")):
        chosen = choose_strategy(profile(), 20000, [free_mib], 0, planned_device_mib=3000, planned_host_mib=17000)
        assert chosen[0] == strategy

    need_mib = 20000 + HOST_OVERHEAD_MIB
    for free_mib, strategy in ((need_mib, "beside"), (need_mib - 1, "replace")):
        assert choose_strategy(profile(), 1, [], free_mib, planned_host_mib=20000)[0] == strategy


def test_two_devices_with_half_the_room_each_are_not_one_with_enough() -> None:
    assert choose_strategy(profile(), 8000, [6000, 6000], 0)[0] == "replace"
    assert choose_strategy(profile(), 8000, [6000, 60000], 0)[0] == "beside"


def test_without_a_device_host_memory_decides() -> None:
    need_mib = 8000 + HOST_OVERHEAD_MIB
    assert choose_strategy(profile(), 8000, [], need_mib) == (
        "beside",
        f"{need_mib} MiB needed, {need_mib} MiB free in host memory",
    )
    assert choose_strategy(profile(), 8000, [], need_mib - 1)[0] == "replace"


@given(st.integers(0, 10**6), st.lists(st.integers(0, 10**6), max_size=4), st.integers(0, 10**6))
def test_a_model_larger_than_every_free_memory_is_never_started_beside(
    model_mib: int, device_free_mib: list[int], host_available_mib: int
) -> None:
    strategy, _ = choose_strategy(profile(), model_mib, device_free_mib, host_available_mib)
    if strategy == "beside":
        assert model_mib < max(device_free_mib or [host_available_mib])
