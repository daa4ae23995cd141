"""The tables of docs/plan.md: Qwen3.6 in seven quantisations on cards of four sizes, and what others say of its cache.

python -m benchmarks.plan_tables
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from orchestrator.core.plan.geometry import Geometry, geometry_of
from orchestrator.core.plan.memory.caches import row_bytes
from orchestrator.core.plan.need import PlanBuild
from orchestrator.core.plan.plan import DeviceRoom, HostRoom, PlanSubject
from orchestrator.core.plan.report.matrix import contexts_for, matrix_of, matrix_table
from orchestrator.core.plan.shape import PlanShape
from tests.true_geometry import QUANTS, header

MODELS = {"Qwen3.6-35B-A3B": "qwen36-35b-a3b", "Qwen3.6-27B": "qwen36-27b"}
CARDS_GIB = (8, 12, 16, 24)
BUILD = PlanBuild("upstream", 11434)
KV = "q8_0"
DENSE = ("another model: 48 layers, 8 KV heads of 128, f16", 48 * 2 * 8 * 128 * 2)
"""Whose cache is what was published for Qwen3.6-35B-A3B."""


def main() -> int:
    print("\n".join(lines()))
    return 0


def lines() -> Iterator[str]:
    """Yield the tables in Markdown."""
    geometries = {name: {quant: geometry_of([header(key, quant)]) for quant in QUANTS} for name, key in MODELS.items()}
    for name, by_quant in geometries.items():
        for gib in CARDS_GIB:
            yield from _card_lines(name, by_quant, gib)

    yield from _cache_lines({name: by_quant["q4_k_m"] for name, by_quant in geometries.items()})


def _card_lines(name: str, by_quant: dict[str, Geometry], gib: int) -> Iterator[str]:
    shape = PlanShape(8192, kv_k=KV, kv_v=KV)
    subjects = [
        (quant.upper(), _size(geometry), PlanSubject(geometry, shape, BUILD)) for quant, geometry in by_quant.items()
    ]
    contexts = contexts_for(subjects[0][2].geometry.trained_context, None)
    device = DeviceRoom("card", gib << 10, gib << 10)
    rows = list(matrix_of(subjects, contexts, [device], HostRoom(None, None), kv_types=(KV,)))
    headers, cells = matrix_table(rows, contexts)
    yield f"**{name} on {gib} GB**"
    yield ""
    yield from _markdown([each for each in headers if each != "KV"], [[*row[:2], *row[3:]] for row in cells])
    yield ""


def _cache_lines(geometries: dict[str, Geometry]) -> Iterator[str]:
    headers = ["KV cache", "bytes a token", "8k", "32k", "256k", "times the truth"]
    rows = []
    for name, geometry in geometries.items():
        true = _cache_bytes(geometry, KV)
        attending = next(layer for layer in geometry.trunk if layer.attends)
        everywhere = replace(geometry, layers=(attending,) * geometry.block_count)
        for what, size in (
            (f"{name}, {KV}", true),
            ("as if each layer attended", _cache_bytes(everywhere, KV)),
            ("as if each layer attended, in f16", _cache_bytes(everywhere, "f16")),
            DENSE,
        ):
            sizes = [f"{size * tokens / (1 << 20):,.0f} MiB".replace(",", " ") for tokens in (8192, 32768, 262144)]
            rows.append([what, f"{size:,}".replace(",", " "), *sizes, f"{size / true:.1f}"])

    yield from _markdown(headers, rows)


def _cache_bytes(geometry: Geometry, kind: str) -> int:
    return sum(
        (row_bytes(kind, layer.key_width) or 0) + (row_bytes(kind, layer.value_width) or 0)
        for layer in geometry.trunk
        if layer.attends
    )


def _size(geometry: Geometry) -> int:
    layers = sum(layer.weights_bytes for layer in geometry.layers)
    return layers + geometry.input_bytes + geometry.output_bytes + geometry.shared_bytes


def _markdown(headers: list[str], rows: list[list[str]]) -> Iterator[str]:
    yield f"| {' | '.join(headers)} |"
    yield "|" + "---|" * len(headers)
    for row in rows:
        yield f"| {' | '.join(row)} |"


if __name__ == "__main__":
    raise SystemExit(main())
