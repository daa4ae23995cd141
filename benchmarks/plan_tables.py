"""The tables of docs/plan.md: Qwen3.6 in seven quantisations on cards of four sizes, and what others say of its cache.

python -m benchmarks.plan_tables
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace

from benchmarks.plan_error import FOLDER, OWN, Comparison, compare, quantile, rows_of
from orchestrator.core.plan.geometry import Geometry, geometry_of
from orchestrator.core.plan.memory.caches import row_bytes
from orchestrator.core.plan.need import PlanBuild
from orchestrator.core.plan.plan import DeviceRoom, HostRoom, PlanSubject
from orchestrator.core.plan.report.matrix import contexts_for, matrix_of, matrix_table
from orchestrator.core.plan.shape import PlanShape
from tests.support import ROOT
from tests.true_geometry import QUANTS, header

DOCUMENT = ROOT / "docs" / "plan.md"

MODELS = {"Qwen3.6-35B-A3B": "qwen36-35b-a3b", "Qwen3.6-27B": "qwen36-27b"}
CARDS_GIB = (8, 12, 16, 24)
BUILD = PlanBuild("upstream", 11434)
KV = "q8_0"
DENSE = ("another model: 48 layers, 8 KV heads of 128, f16", 48 * 2 * 8 * 128 * 2)
"""Whose cache is what was published for Qwen3.6-35B-A3B."""


def main() -> int:
    tables = {"cards": card_lines(), "cache": cache_lines(), "errors": error_lines()}
    if sys.argv[1:] != ["--write"]:
        print("\n".join(line for lines in tables.values() for line in (*lines, "")))
        return 0

    text = DOCUMENT.read_text(encoding="utf-8")
    for name, lines in tables.items():
        begin, end = f"<!-- {name} -->\n", f"<!-- end of {name} -->"
        before, _, rest = text.partition(begin)
        text = before + begin + "\n" + "\n".join(lines).strip() + "\n\n" + end + rest.partition(end)[2]

    DOCUMENT.write_text(text, encoding="utf-8")
    return 0


def card_lines() -> Iterator[str]:
    """Yield a table for each model and card, in Markdown."""
    for name, key in MODELS.items():
        by_quant = {quant: geometry_of([header(key, quant)]) for quant in QUANTS}
        for gib in CARDS_GIB:
            yield from _card_lines(name, by_quant, gib)


def cache_lines() -> Iterator[str]:
    """Yield the table of caches, true and as published."""
    yield from _cache_lines({name: geometry_of([header(key, "q4_k_m")]) for name, key in MODELS.items()})


def error_lines() -> Iterator[str]:
    """Yield what a start takes of a device in all, against the plan, by engine, case and role of the rows."""
    groups: dict[tuple[str, str, str], list[Comparison]] = {}
    outside = count = 0
    for row in rows_of(FOLDER / name for name in OWN):
        for each in compare(row):
            count, outside = count + 1, outside + each.outside
            if each.component == "total":
                groups.setdefault((each.engine, each.case, each.role), []).append(each)

    headers = ["engine", "case", "rows", "n", "median", "90 %", "95 %", "largest", "width of the bounds"]
    cells = []
    for (engine, case, role), found in sorted(groups.items()):
        errors = [each.error for each in found]
        parts = [quantile(errors, 0.5), quantile(errors, 0.9), quantile(errors, 0.95), max(errors)]
        width = quantile([each.planned.high_mib - each.planned.low_mib for each in found], 0.5)
        cells.append([engine, case, role, str(len(found)), *[f"{part:.1f}" for part in (*parts, width)]])

    yield from _markdown(headers, cells)
    yield ""
    yield f"{count} figures of all components, {outside} outside the plan's bounds."


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
