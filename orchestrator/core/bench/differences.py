"""Two kept benches side by side, without a verdict: what else was different on those days is in the figures. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from orchestrator.core.bench.text import FIGURES, shown, table
from orchestrator.core.quantities import shown_change


def bench_differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    """Return what differs between two reports of two targets, and the figures of both."""
    differ = [
        f"{name}: {old[name]} and {new[name]}"
        for name in ("metric", "workload_digest", "tokens")
        if old[name] != new[name]
    ]
    differ += [
        f"{side.upper()}, {name}: {old[side][name]} and {new[side][name]}"
        for side in "ab"
        for name in ("engine", "build", "model", "model_bytes", "settings")
        if old[side][name] != new[side][name]
    ]
    differ += [
        f"machine, {name}: {old['machine'].get(name)} and {new['machine'].get(name)}"
        for name in ("processor", "devices", "driver", "orch")
        if old["machine"].get(name) != new["machine"].get(name)
    ]
    names = ("id", "ratio", "low", "high", "verdict")
    figures = {
        side: {
            name: {"old": old[side].get(name), "new": new[side].get(name), "ratio": _ratio(old[side], new[side], name)}
            for name, _ in FIGURES
        }
        for side in "ab"
    }
    return {
        "old": {name: old[name] for name in names},
        "new": {name: new[name] for name in names},
        "differ": differ,
        **figures,
    }


def difference_lines(found: Mapping[str, Any]) -> list[str]:
    """Return the lines for a terminal."""
    rows = [("", str(found["old"]["id"]), str(found["new"]["id"]), "new over old")]
    rows.append(("B over A", _percent(found["old"]["ratio"]), _percent(found["new"]["ratio"]), ""))
    rows.append(("verdict", found["old"]["verdict"], found["new"]["verdict"], ""))
    for side in "ab":
        rows += [
            (f"{side.upper()}: {title}", shown(row["old"]), shown(row["new"]), _percent(row["ratio"]))
            for name, title in FIGURES
            if (row := found[side][name])["old"] is not None or row["new"] is not None
        ]

    lines = table(rows)
    lines += ["", "not the same in both:", *(f"  {each}" for each in found["differ"])] if found["differ"] else []
    return [*lines, "", "two benches of different hours are no comparison: `orch bench A B` measures in turn"]


def _ratio(old: Mapping[str, Any], new: Mapping[str, Any], name: str) -> float | None:
    before, after = old.get(name), new.get(name)
    return float(f"{after / before:.4g}") if before and after is not None else None


def _percent(ratio: float | None) -> str:
    return "-" if ratio is None else shown_change(ratio)
