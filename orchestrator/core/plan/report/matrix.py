"""Quantisations by contexts and types of the KV cache: which of them fit, and with what on the host."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from orchestrator.core.plan.plan import DeviceRoom, HostRoom, Plan, PlanSubject, plan_of
from orchestrator.core.plan.report.text import spaced

CONTEXTS = (8192, 16384, 32768, 65536, 131072, 262144)
KV_TYPES = ("f16", "q8_0", "q4_0")

LEGEND = (
    "yes    fits on the device",
    "moe N  fits with the experts of the first N layers on the host (n_cpu_moe)",
    "ngl N  fits with N layers on the device, the rest on the host (gpu_layers)",
    "no     certainly does not fit",
    "?      too close to be sure",
)


@dataclass(frozen=True)
class MatrixRow:
    """One quantisation with one type of cache.

    :param size_bytes: of the files
    :param plans: context to plan
    """

    quant: str
    size_bytes: int
    kv: str
    plans: Mapping[int, Plan]


def contexts_for(trained: int, asked: int | None) -> tuple[int, ...]:
    """Return the contexts to look at: the one asked for, or the usual ones up to the model's own, and that."""
    if asked is not None:
        return (asked,)

    found = [context for context in CONTEXTS if not trained or context <= trained]
    return tuple(found if not trained or trained in found or trained > CONTEXTS[-1] else [*found, trained])


def matrix_of(
    subjects: Sequence[tuple[str, int, PlanSubject]],
    contexts: Sequence[int],
    devices: Sequence[DeviceRoom],
    host: HostRoom,
    *,
    kv_types: Sequence[str] = KV_TYPES,
) -> Iterator[MatrixRow]:
    """Yield the rows: each quantisation with its size and subject, by type of cache."""
    for quant, size, subject in subjects:
        for kv in kv_types:
            shape = replace(subject.shape, kv_k=kv, kv_v=kv)
            plans = {
                context: plan_of(
                    replace(subject, shape=replace(shape, context_tokens=context)), devices, host, advise=False
                )
                for context in contexts
            }
            yield MatrixRow(quant, size, kv, plans)


def matrix_table(rows: Sequence[MatrixRow], contexts: Sequence[int]) -> tuple[list[str], list[list[str]]]:
    """Return headers and rows; a quantisation is named once."""
    headers = ["QUANT", "GB", "KV", *[_tokens(context) for context in contexts]]
    shown: list[list[str]] = []
    last = ""
    for row in rows:
        first = [row.quant, f"{row.size_bytes / 1e9:.1f}"] if row.quant != last else ["", ""]
        last = row.quant
        shown.append([*first, row.kv, *[_cell(row.plans[context]) for context in contexts]])

    return headers, shown


def matrix_document(rows: Sequence[MatrixRow]) -> list[dict[str, object]]:
    """Return one object for each cell."""
    return [
        {
            "quant": row.quant,
            "size_bytes": row.size_bytes,
            "kv": row.kv,
            "context": context,
            "verdict": plan.judgement.verdict,
            "n_cpu_moe": plan.shape.n_cpu_moe,
            "gpu_layers": plan.shape.gpu_layers,
            "need_mib": [
                {"low": round(amount.low_mib, 3), "high": None if amount.is_open else round(amount.high_mib, 3)}
                for amount in (plan.need.device_total(index) for index in range(len(plan.devices)))
            ],
        }
        for row in rows
        for context, plan in row.plans.items()
    ]


def _cell(plan: Plan) -> str:
    match plan.judgement.verdict:
        case "fits":
            return "yes"
        case "fits_with_offload":
            if plan.shape.n_cpu_moe:
                return f"moe {min(plan.shape.n_cpu_moe, len(plan.subject.geometry.trunk))}"

            return f"ngl {plan.shape.gpu_layers}"
        case "does_not_fit":
            return "no"
        case _:
            return "?"


def _tokens(context: int) -> str:
    return f"{context >> 10}k" if context % 1024 == 0 else spaced(context)
