"""A bench as it is kept: what it was asked to do and what happened, to JSON and back. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from orchestrator.core.bench.blocks import BenchDevice, BenchEvent, BenchPlan, MeasuredBlock, ThrownPair
from orchestrator.core.bench.conditions import BenchSide
from orchestrator.core.bench.estimator import Side
from orchestrator.core.bench.figures import answer_from_json
from orchestrator.core.bench.workloads import BenchPrompt, Workload


@dataclass(frozen=True, slots=True)
class BenchSpec:
    """All that a bench is gone on with."""

    plan: BenchPlan
    workload: Workload
    tokens: int
    sides: Mapping[Side, BenchSide]
    command: tuple[str, ...]
    machine: Mapping[str, Any]


def spec_to_json(spec: BenchSpec) -> dict[str, Any]:
    return asdict(spec)


def spec_from_json(found: Mapping[str, Any]) -> BenchSpec:
    workload = found["workload"]
    plan = found["plan"]
    return BenchSpec(
        plan=BenchPlan(**{**known_fields(BenchPlan, plan), "prompts": tuple(plan["prompts"])}),
        workload=Workload(
            workload["name"],
            tuple(BenchPrompt(**each) for each in workload["prompts"]),
            workload.get("shared", ""),
        ),
        tokens=found["tokens"],
        sides={side: side_from_json(found["sides"][side]) for side in found["sides"]},
        command=tuple(found["command"]),
        machine=found["machine"],
    )


def side_from_json(found: Mapping[str, Any]) -> BenchSide:
    settings = found.get("all_settings", found.get("sampling", {}))  # an older orch kept those of sampling alone
    return BenchSide(**{**known_fields(BenchSide, found), "argv": tuple(found["argv"]), "all_settings": settings})


def event_to_json(event: BenchEvent) -> dict[str, Any]:
    kind = "block" if isinstance(event, MeasuredBlock) else "thrown"
    return {"event": kind, **asdict(event)}


def event_from_json(found: Mapping[str, Any]) -> BenchEvent:
    if found["event"] == "thrown":
        return ThrownPair(**known_fields(ThrownPair, found))

    return MeasuredBlock(
        **{
            **known_fields(MeasuredBlock, found),
            "answers": tuple(map(answer_from_json, found["answers"])),
            "devices": tuple(
                BenchDevice(**{**known_fields(BenchDevice, each), "throttle": tuple(each["throttle"])})
                for each in found["devices"]
            ),
        }
    )


def known_fields(kind: Any, found: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields that this orch knows: a newer one may have added some."""
    return {field.name: found[field.name] for field in fields(kind) if field.name in found}
