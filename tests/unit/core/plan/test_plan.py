"""A plan: the verdict, and what belongs to it, also of what lies beside the model."""

from __future__ import annotations

from dataclasses import replace

import pytest

from orchestrator.core.plan.geometry import geometry_of
from orchestrator.core.plan.need import PlanBuild
from orchestrator.core.plan.plan import DeviceRoom, HostRoom, Plan, PlanSubject, plan_of
from orchestrator.core.plan.shape import PlanShape
from orchestrator.core.plan.solve import fits, smallest_n_cpu_moe
from tests.true_geometry import header

BUILD = PlanBuild("upstream", 11434)
UNKNOWN_HOST = HostRoom(None, None)
MIB = 1 << 20


def subject(name: str, context: int, quant: str = "iq4_xs") -> PlanSubject:
    return PlanSubject(geometry_of([header(name, quant)]), PlanShape(context), BUILD)


def planned(what: PlanSubject, *free_mib: int | None, host: HostRoom = UNKNOWN_HOST) -> Plan:
    return plan_of(what, [DeviceRoom(f"card {at}", free, free) for at, free in enumerate(free_mib)], host)


def test_a_card_with_room_fits_and_leaves_more_context() -> None:
    plan = planned(subject("llama31-8b", 8192), 24576)
    assert plan.judgement.verdict == "fits"
    assert plan.context_max > 8192
    assert plan.n_cpu_moe_min == 0


def test_experts_that_have_to_leave_are_counted() -> None:
    plan = planned(subject("qwen36-35b-a3b", 32768), 12288)
    assert plan.judgement.verdict == "fits_with_offload"
    assert plan.n_cpu_moe_min == plan.shape.n_cpu_moe > 0
    # One layer's experts fewer on the host, and it would not be sure to fit.
    fewer = replace(plan.subject, shape=replace(plan.shape, n_cpu_moe=plan.shape.n_cpu_moe - 1))
    assert fewer.needs()(fewer.shape).device_total().high_bytes > 12288 * MIB


def test_free_memory_that_nobody_knows_is_said_to_be_unknown() -> None:
    plan = planned(subject("llama31-8b", 8192), None)
    assert plan.judgement.verdict == "unclear"
    assert "how much is free is not known" in plan.judgement.reason
    assert (plan.context_max, plan.n_cpu_moe_min) == (0, None)
    assert plan.need.device_total().low_bytes > 4000 * MIB


def test_without_a_device_all_of_it_is_on_the_host() -> None:
    plan = planned(subject("llama31-8b", 8192), host=HostRoom(32768, 30000))
    assert plan.need.devices == ()
    assert plan.judgement.verdict == "fits"
    assert planned(subject("llama31-8b", 8192), host=HostRoom(4096, 4000)).judgement.verdict == "does_not_fit"


def test_several_devices_share_the_layers() -> None:
    plan = planned(subject("llama31-8b", 8192, "q8_0"), 6144, 6144)
    assert plan.judgement.verdict == "fits"
    first, second = plan.need.device_total(0), plan.need.device_total(1)
    assert min(first.low_mib, second.low_mib) > 3500


def test_several_devices_get_a_split_that_leaves_less_on_the_host() -> None:
    # Experts leave the first layers first: with equal shares the first device is emptied while the second stays full.
    what = subject("qwen36-35b-a3b", 32768, "q6_k")
    plan = planned(what, 12288, 12288)
    assert plan.judgement.verdict == "fits_with_offload"
    assert plan.n_cpu_moe_min == plan.shape.n_cpu_moe
    first, second = (plan.need.device_total(index).high_mib for index in (0, 1))
    assert min(first, second) > 11_000 and max(first, second) <= 12288
    alone = smallest_n_cpu_moe(what.geometry, replace(what.shape, devices=2), BUILD, [12288 * MIB] * 2)
    assert alone is not None and plan.shape.n_cpu_moe <= alone / 2
    # One layer's experts more on the devices, and no split fits.
    fewer = replace(what.shape, devices=2, n_cpu_moe=plan.shape.n_cpu_moe - 1)
    assert all(
        not fits(what.needs()(replace(fewer, tensor_split=(float(count), 42.0 - count))), [12288 * MIB] * 2)
        for count in range(43)
    )


def test_a_split_may_be_all_that_is_missing() -> None:
    what = subject("gemma3-12b", 131072, "q8_0")
    need = what.needs()(replace(what.shape, devices=2))
    tight = round(max(need.device_total(0).high_mib, need.device_total(1).high_mib)) - 100
    plan = planned(what, tight, tight)
    assert plan.judgement.verdict == "fits"
    assert sum(plan.shape.tensor_split) == what.geometry.block_count + 1
    assert "fits with the layers split 2" in plan.judgement.reason


@pytest.mark.parametrize("on_host", [False, True])
def test_a_projector_takes_its_weights_where_it_runs(on_host: bool) -> None:
    plain = subject("gemma3-12b", 8192)
    with_it = replace(plain, projector_bytes=850 * MIB, projector_on_host=on_host)
    before, after = plain.needs()(plain.shape), with_it.needs()(with_it.shape)
    device = after.device_total().low_bytes - before.device_total().low_bytes
    host = after.host_total().low_bytes - before.host_total().low_bytes
    assert (device, host) == ((0, 850 * MIB) if on_host else (850 * MIB, 0))


def test_a_draft_model_takes_its_weights_and_its_own_cache() -> None:
    plain = subject("llama33-70b", 8192)
    drafter = geometry_of([header("llama32-3b", "q8_0")])
    size = sum(layer.weights_bytes for layer in drafter.layers)
    with_it = replace(plain, drafter=drafter, drafter_bytes=size)
    parts = with_it.needs()(with_it.shape).devices[0]
    assert parts["draft_weights"].low_bytes >= size
    assert parts["draft_kv"].low_bytes == 2 * 28 * 8 * 128 * 2 * 8192
    assert parts["draft_compute"].kind == "interval"


def test_the_need_that_was_learned_goes_before_the_formula() -> None:
    what = subject("llama31-8b", 8192)
    tight = what.needs(overhead_mib=400, growth_mib=0)
    room = [
        DeviceRoom(
            "card", 6144, what.needs(overhead_mib=400, growth_mib=0)(what.shape).device_total().high_bytes // MIB + 1
        )
    ]
    assert plan_of(what, room, UNKNOWN_HOST, may_offload=False).judgement.verdict == "unclear"
    assert plan_of(what, room, UNKNOWN_HOST, need=tight).judgement.verdict == "fits"
