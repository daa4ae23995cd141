"""What is kept of a bench comes back as it was."""

from __future__ import annotations

import json
from dataclasses import replace

from orchestrator.core.bench.blocks import BenchDevice, ThrownPair
from orchestrator.core.bench.records import BenchSpec, event_from_json, event_to_json, spec_from_json, spec_to_json
from orchestrator.core.bench.workloads import CHAT
from tests.unit.core.bench.benches import PLAN, block, sides

LOOK = BenchDevice(0, "card", 900, engine_mib=700, throttle=("thermal",))


def test_events_come_back() -> None:
    measured = block(1, "b", 100, devices=[LOOK])
    measured = replace(measured, answers=(replace(measured.answers[0], by_depth=((3, 2), (2, 1))),))
    for event in (measured, ThrownPair(0, "clients", "one ran")):
        assert event_from_json(json.loads(json.dumps(event_to_json(event)))) == event


def test_fields_of_a_newer_orch_are_left_out() -> None:
    found = {**event_to_json(ThrownPair(0, "far", "far")), "weight": 3}
    assert event_from_json(found) == ThrownPair(0, "far", "far")


def test_a_spec_comes_back() -> None:
    spec = BenchSpec(PLAN, CHAT, 192, sides(), ("orch", "bench"), {"cpus": 2})
    assert spec_from_json(json.loads(json.dumps(spec_to_json(spec)))) == spec
