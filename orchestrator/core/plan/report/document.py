"""A plan as JSON: `orch plan --json`. Memory in MiB; null is unbounded or unknown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from orchestrator.core.plan.amounts import Amount
from orchestrator.core.plan.need import COMPONENTS, Component
from orchestrator.core.plan.plan import Plan
from orchestrator.core.plan.shape import PlanShape
from orchestrator.core.plan.speed.forecast import SpeedForecast
from orchestrator.core.plan.speed.outlook import SpeedOutlook


class FigureSource(NamedTuple):
    """Where figures come from.

    :param figures: which ones: `weights, kv, state`
    """

    figures: str
    source: str


def plan_document(
    plan: Plan, speed: SpeedOutlook, sources: Sequence[FigureSource], facts: Mapping[str, object]
) -> dict[str, Any]:
    """Return the document of one plan.

    :param facts: what was planned: model, engine, build
    """
    judgement, need = plan.judgement, plan.need
    return {
        "version": 1,
        **facts,
        "verdict": judgement.verdict,
        "reason": judgement.reason,
        "devices": [
            {"name": room.name, "total_mib": room.total_mib, "free_mib": room.free_mib}
            | _amounts(need.devices[index], need.device_total(index))
            for index, room in enumerate(plan.devices)
        ],
        "host": {"name": "host", "total_mib": plan.host.total_mib, "free_mib": plan.host.free_mib}
        | _amounts(need.host, need.host_total()),
        "settings": settings_of(plan.shape),
        "context_max": plan.context_max,
        "n_cpu_moe_min": plan.n_cpu_moe_min,
        "changes": [change._asdict() for change in judgement.changes],
        "speed": {
            "decode_tok_s": _interval(speed.decode),
            "drafted_tok_s": _interval(speed.drafted),
            "prompt_tok_s": _interval(speed.prompt),
            "basis": speed.generation.basis,
        },
        "prices": [
            {"choice": price.choice, "text": price.text, "mib": price.mib, "expert_layers": price.layers}
            for price in plan.prices
        ],
        "sources": [source._asdict() for source in sources],
    }


def settings_of(shape: PlanShape) -> dict[str, object]:
    """Return the settings that decide a shape's memory, as a profile names them."""
    found: dict[str, object] = {
        "context.size": shape.context_tokens,
        "context.parallel": shape.slots,
        "kv.k": shape.kv_k,
        "kv.v": shape.kv_v,
        "batch.ubatch": shape.ubatch,
        "speculative.type": "mtp" if shape.draft_max else "none",
    }
    if shape.draft_max:
        found["speculative.draft_max"] = shape.draft_max

    if shape.n_cpu_moe:
        found["memory.n_cpu_moe"] = shape.n_cpu_moe

    if shape.n_cpu_ffn:
        found["memory.n_cpu_ffn"] = shape.n_cpu_ffn

    if shape.tensor_split:
        found["memory.tensor_split"] = list(shape.tensor_split)

    if shape.gpu_layers is not None:
        found["memory.gpu_layers"] = shape.gpu_layers

    for key, off in (("attention.flash", not shape.flash_attention), ("kv.offload", not shape.kv_offload)):
        if off:
            found[key] = False

    return found


def _amounts(parts: Mapping[Component, Amount], total: Amount) -> dict[str, object]:
    return {
        "need_mib": {"low": _mib(total.low_mib), "high": None if total.is_open else _mib(total.high_mib)},
        "components": {
            name: {
                "mib": _mib(parts[name].low_mib if parts[name].is_open else parts[name].high_mib),
                "low_mib": _mib(parts[name].low_mib),
                "high_mib": None if parts[name].is_open else _mib(parts[name].high_mib),
                "kind": parts[name].kind,
            }
            for name in COMPONENTS
            if name in parts
        },
    }


def _mib(value: float) -> float:
    return round(value, 3)


def _interval(speed: SpeedForecast | None) -> dict[str, float | None]:
    return {"low": _rate(speed.low if speed else None), "high": _rate(speed.high if speed else None)}


def _rate(value: float | None) -> float | None:
    return None if value is None else round(value, 1)
