"""What makes a verdict conditional is told, and nothing else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest

from orchestrator.core.bench.blocks import BenchDevice, BenchEvent, MeasuredBlock, ThrownPair, progress_of, sides_of
from orchestrator.core.bench.conditions import BenchCondition, BenchSide, find_conditions
from orchestrator.core.bench.estimator import Side
from tests.unit.core.bench.benches import PLAN, TOKENS, block, pairs, sides


def found(of: Mapping[Side, BenchSide], events: Sequence[BenchEvent]) -> list[BenchCondition]:
    return find_conditions(of, PLAN, progress_of(events), TOKENS)


def on_device(pair: int, a_mib: int, b_mib: int, **more: Any) -> list[BenchEvent]:
    looks = {
        "a": BenchDevice(0, "card", a_mib + 300, engine_mib=a_mib, others_mib=20),
        "b": BenchDevice(0, "card", b_mib + 300, engine_mib=b_mib, **{"others_mib": 20, **more}),
    }
    return [block(pair, side, 100, devices=[looks[side]]) for side in sides_of(PLAN.seed, pair)]


def test_equal_verified_targets_on_a_quiet_machine_have_no_condition() -> None:
    assert found(sides(), pairs(3, 100, 105)) == []
    assert found(sides(), [each for pair in range(3) for each in on_device(pair, 8000, 8010)]) == []


@pytest.mark.parametrize(
    ("of_b", "kind"),
    [
        ({"verified": None}, "not_verified"),
        ({"verified": "wrong"}, "wrong"),
        ({"model_type": "q8_0"}, "quant"),
        ({"model": "/other.gguf"}, "model"),
        ({"model_bytes": 5}, "model"),
        ({"all_settings": {"sampling.top_k": "20"}}, "sampling"),
    ],
)
def test_targets_that_differ_beside_what_is_compared(of_b: dict[str, object], kind: str) -> None:
    conditions = found(sides(**of_b), pairs(3, 100, 105))
    assert [each["kind"] for each in conditions] == [kind]
    assert conditions[0]["weighs"]


def test_memory_that_was_measured_counts_and_a_layer_may_lie_between() -> None:
    layer_mib = 1024 // 16
    near = [each for pair in range(3) for each in on_device(pair, 8000, 8000 + layer_mib)]
    far = [each for pair in range(3) for each in on_device(pair, 8000, 8001 + layer_mib)]
    assert found(sides(), near) == []
    assert [each["kind"] for each in found(sides(), far)] == ["memory"]


@pytest.mark.parametrize(
    ("more", "kind", "weighs"),
    [
        ({"throttle": ("thermal",)}, "throttled", True),
        ({"throttle": ("hw_slowdown", "power_cap")}, "throttled", True),
        ({"throttle": ("power_cap",)}, "limited", False),
        ({"others_mib": 900}, "other_processes", True),
    ],
)
def test_a_device_that_was_not_ours_alone_or_not_at_its_speed(more: dict[str, object], kind: str, weighs: bool) -> None:
    events = [each for pair in range(3) for each in on_device(pair, 8000, 8000, **more)]
    first = found(sides(), events)[0]
    assert (first["kind"], first["weighs"]) == (kind, weighs)


@pytest.mark.parametrize(("more", "kind"), [({"cached": 40}, "cache_hits"), ({"tokens": 60}, "short_answers")])
def test_answers_that_were_not_what_was_asked_for(more: dict[str, Any], kind: str) -> None:
    events = [block(0, "a", 100, **more), block(0, "b", 100), *pairs(3, 100, 100)[2:]]
    assert [each["kind"] for each in found(sides(), events)] == [kind]


def test_one_token_in_the_cache_is_none() -> None:
    assert found(sides(), [block(0, "a", 100, cached=1), block(0, "b", 100), *pairs(3, 100, 100)[2:]]) == []


def test_clocks_that_disagree_are_told() -> None:
    events = [block(0, "a", 100, wall_s=9), block(0, "b", 100, wall_s=9)]
    assert {each["kind"] for each in found(sides(), events)} == {"clock"}


def test_other_programs_on_its_processor_are_told_of_each_target_that_had_them() -> None:
    def waiting(side: Side, share: float) -> MeasuredBlock:
        kept = block(0, side, 100)
        return replace(
            kept, answers=tuple(replace(each, waited_ms=each.wall_s * 1000 * share) for each in kept.answers)
        )

    [told] = found(sides(), [waiting("a", 0.3), waiting("b", 0.04)])
    assert (told["kind"], told["weighs"]) == ("waited", False)
    assert "A (upstream): other programs had its processor for 30 % of the time" in told["text"]


def test_pairs_of_clients_are_told_without_weight_and_far_ones_with_it() -> None:
    events: list[BenchEvent] = [*pairs(3, 100, 105), ThrownPair(1, "clients", "one"), ThrownPair(1, "far", "far")]
    conditions = {each["kind"]: each["weighs"] for each in found(sides(), events)}
    assert conditions == {"thrown_clients": False, "thrown_far": True}


def test_a_target_that_became_slower_is_told() -> None:
    events = [block(k, side, 100 * (0.93**k if side == "a" else 1)) for k in range(3) for side in sides_of(42, k)]
    assert [each["kind"] for each in found(sides(), events)] == ["drift"]
