"""How far the plan is from what the engines said and took: `python -m benchmarks.plan_error [PATH]`.

PATH holds one JSON object a line, gzipped or not; without it, the repository's own measurements
(`tests/fixtures/memory`), and the real starts that orch keeps in its home. For each engine, case, component and role of
the rows: how many, the error of the middle of the plan's bounds in MiB (median, 90 %, 95 %, largest), the median width
of the bounds, and how many lie outside them. Exits 1 when one of the rows does, or took more than a plan that fits.
"""

from __future__ import annotations

import argparse
import gzip
import json
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from orchestrator.adapters.paths import find_paths
from orchestrator.adapters.store.starts import StartStore
from orchestrator.core.plan.amounts import Amount, total
from orchestrator.core.plan.geometry import Geometry, geometry_of
from orchestrator.core.plan.need import BESIDE_THE_ENGINE, Component, Need, PlanBuild, need_of
from orchestrator.core.plan.shape import PlanShape
from orchestrator.core.quantities import MIB
from tests.other_architectures import other_header
from tests.true_geometry import header

FOLDER = Path(__file__).parents[1] / "tests" / "fixtures" / "memory"
OWN = ("oracle.jsonl.gz", "later.jsonl.gz")

_PARTS: Mapping[str, tuple[Component, ...]] = {
    "model": ("weights", "draft_weights"), "context": ("kv", "state"), "compute": ("compute",),
}  # fmt: skip

OTHER = "other"
"""The `quant` of rows whose model is one of `tests/other_architectures.py`."""

_ROUNDED = ("llama-server --fit", "llama-fit-params")
"""Ways that print whole MiB, cut."""


_WHOLE = ("all on the device, f16 KV", "all on the device, other KV", "flash attention off", "several devices")
"""Cases in which the host has no weights that a CPU would repack."""


class Comparison(NamedTuple):
    """One figure: what the plan says and what was measured, MiB.

    :param slack: what the figure's own rounding may add or take away
    """

    engine: str
    case: str
    component: str
    role: str
    planned: Amount
    measured: float
    slack: float
    row: Mapping[str, Any]

    @property
    def error(self) -> float:
        return abs((self.planned.low_mib + self.planned.high_mib) / 2 - self.measured)

    @property
    def outside(self) -> bool:
        low, high = self.planned.low_mib - self.slack, self.planned.high_mib + self.slack
        return not low <= self.measured <= high

    @property
    def falsely_fits(self) -> bool:
        return self.component == "total" and self.measured > self.planned.high_mib + self.slack


@lru_cache(maxsize=256)
def _geometry(name: str, quant: str) -> Geometry:
    if quant == OTHER:
        return geometry_of([other_header(name)])

    model, _, without = name.partition(" ")
    return geometry_of([header(model, quant, mtp=not without)])


def rows_of(paths: Iterable[Path]) -> Iterator[dict[str, Any]]:
    for path in paths:
        data = path.read_bytes()
        text = (gzip.decompress(data) if path.suffix == ".gz" else data).decode()
        yield from (json.loads(line) for line in text.splitlines() if line)


def shape_of_row(row: Mapping[str, Any]) -> PlanShape:
    """Return the settings of a row as the plan's shape."""
    settings = dict(row["settings"])
    if "args" in settings:
        settings = _from_arguments(settings["args"])

    extra = settings.get("extra", ())
    ubatch = settings.get("ub", 512)
    device = settings.get("device") is not False
    via = row["via"]
    outputs = settings.get("n_outputs") or settings.get("wgt")
    return PlanShape(
        context_tokens=settings["ctx"],
        kv_k=settings.get("kv", "f16"),
        kv_v=settings.get("kv_v", settings.get("kv", "f16")),
        ubatch=ubatch,
        batch=settings.get("batch", max(2048, ubatch)),
        slots=settings.get("np", 4),
        unified_kv=settings.get("kvu", "np" not in settings),
        draft_max=settings.get("mtp", 0),
        draft_kv_k=settings.get("mtp_kv", "f16"),
        draft_kv_v=settings.get("mtp_kv", "f16"),
        n_cpu_moe=settings.get("ncmoe", 0),
        gpu_layers=settings.get("ngl") if device else 0,
        flash_attention=settings.get("fa") != "off",
        kv_offload="-nkvo" not in extra,
        swa_full="--swa-full" in extra,
        tensor_split=tuple(settings.get("ts", ())),
        devices=row.get("devices", 1) if device else 0,
        outputs=ubatch if via.startswith("llama-fit-params") else outputs,
        remote="RPC device" in via or via.startswith(("llama-fit-params", "real load")),
    )


def _from_arguments(arguments: list[str]) -> dict[str, Any]:
    pairs = dict(zip(arguments, arguments[1:], strict=False))
    found = {"ctx": int(pairs["-c"]), "kv": pairs.get("-ctk", "f16"), "ub": int(pairs.get("-ub", 512))}
    if "-np" in pairs:
        found["np"] = int(pairs["-np"])

    if "--spec-draft-n-max" in pairs:
        found["mtp"] = int(pairs["--spec-draft-n-max"])

    return found


def need_of_row(row: Mapping[str, Any], *, copies: bool = True) -> Need:
    """Return what the plan says that a row's start needs.

    :param copies: whether the device makes copies of a quantised cache in 16 bits
    """
    kind = "upstream" if row["engine"] == "upstream" else "ik"
    dry_run = "--dry-run" in row["via"]
    build = PlanBuild("ik") if kind == "ik" else PlanBuild("upstream", 11434)
    shape = shape_of_row(row)
    shape = shape if copies else replace(shape, kv_k="f16", kv_v="f16")
    return need_of(_geometry(row["geometry"], row["quant"]), shape, build, dry_run=dry_run)


def case_of(row: Mapping[str, Any]) -> str:
    """Return the case of planning that a row is one of."""
    settings, shape = row["settings"], shape_of_row(row)
    if not shape.devices:
        return "CPU only"

    if not shape.flash_attention:
        return "flash attention off"

    if not shape.kv_offload:
        return "KV cache on the host"

    if shape.devices > 1:
        return "several devices"

    geometry = _geometry(row["geometry"], row["quant"])
    if shape.n_cpu_moe and geometry.experts:
        return "experts on the host"

    if shape.gpu_layers is not None and shape.gpu_layers <= geometry.block_count:
        return "dense layers on the host"

    if "wgt" in settings:
        return "logits of fewer tokens"

    kind = "f16" if shape.kv_k == shape.kv_v == "f16" else "other"
    return f"all on the device, {kind} KV"


def compare(row: Mapping[str, Any]) -> list[Comparison]:
    """Return each figure of a row beside the plan's."""
    need, case = need_of_row(row), case_of(row)
    slack = 1.0 if row["via"].startswith(_ROUNDED) else 0.011
    found: list[Comparison] = []

    def add(component: str, planned: Amount, measured: float, slack: float = slack) -> None:
        found.append(Comparison(row["engine"], case, component, row["role"], planned, measured, slack, row))

    if "stages" in row:
        # The device of these rows told sizes as a CPU does: without room for copies of a quantised cache.
        plain = need_of_row(row, copies=False)
        parts = {**need.devices[0], "compute": plain.devices[0]["compute"]}
        if "draft_compute" in parts:
            parts["draft_compute"] = plain.devices[0]["draft_compute"]

        live = max(stage["device_peak"] for stage in row["stages"])
        add("total", total(amount for name, amount in parts.items() if name not in BESIDE_THE_ENGINE), live, 0.5)
        return found

    if "live_mib" in row:
        for index, live in enumerate(row["live_mib"]):
            add("total", need.engine_total(index), live, 0.5)

        add("host compute", need.host["compute"], row["host_mib"]["compute"])
        return found

    devices = row["device_mib"] if isinstance(row["device_mib"], list) else [row["device_mib"]]
    for index, device in enumerate(devices if need.devices else ()):
        for part, names in _PARTS.items():
            add(part, _of(need.devices[index], names), device[part])

        planned = total(_of(need.devices[index], names) for names in _PARTS.values())
        add("total", planned, sum(device[part] for part in _PARTS), 3 * slack)

    for part, names in _PARTS.items():
        # What a CPU repacks for itself is in another line, which these ways do not print.
        whole = case in _WHOLE and not {"ncmoe", "ngl"} & row["settings"].keys()
        if part != "model" or whole or "no-alloc" in row["via"] or "--dry-run" in row["via"]:
            add(f"host {part}", _of(need.host, names), row["host_mib"][part])

    if row.get("mtp_device_mib") and len(devices) == 1 and need.devices:
        add("MTP context", _of(need.devices[0], ("draft_kv",)), row["mtp_device_mib"]["context"])
        add("MTP compute", _of(need.devices[0], ("draft_compute",)), row["mtp_device_mib"]["compute"])
        add("host MTP compute", _of(need.host, ("draft_compute",)), row["mtp_host_mib"]["compute"])

    return found


def compare_kept(entry: Mapping[str, Any]) -> list[Comparison]:
    """Return each figure of a start that was kept beside what had been planned for it."""
    places = {"host": entry.get("host", {}), **{each["name"]: each["sizes"] for each in entry.get("devices", ())}}
    found = []
    for place, planned in entry.get("planned", {}).items():
        for component, (low, high, kind) in planned.items():
            measured = places.get(place, {}).get(component)
            if measured is not None:
                name = f"host {component}" if place == "host" else component
                amount = Amount(low, high, kind)
                row = {"geometry": entry.get("profile"), "settings": entry.get("shape")}
                engine = str(entry.get("engine"))[:8]
                found.append(Comparison(engine, "a real start", name, "kept", amount, measured / MIB, 0.011, row))

    return found


def _of(parts: Mapping[Component, Amount], names: Iterable[Component]) -> Amount:
    return total(parts[name] for name in names if name in parts)


def quantile(values: list[float], part: float) -> float:
    """Return the value that so large a part of the values does not exceed."""
    return sorted(values)[min(len(values) - 1, int(part * len(values)))]


def table(comparisons: Iterable[Comparison]) -> list[str]:
    """Return the lines of the error table."""
    groups: dict[tuple[str, str, str, str], list[Comparison]] = defaultdict(list)
    for each in comparisons:
        role = each.role.partition(",")[0]
        groups[each.engine, each.case, each.component, role].append(each)

    titles = ("n", "median", "90 %", "95 %", "max", "width", "outside")
    lines = [f"{'engine':9}{'case':28}{'component':18}{'rows':9}" + "".join(f"{title:>8}" for title in titles)]
    for (engine, case, component, role), group in sorted(groups.items()):
        errors = [each.error for each in group]
        width = quantile([each.planned.high_mib - each.planned.low_mib for each in group], 0.5)
        figures = (*(quantile(errors, part) for part in (0.5, 0.9, 0.95)), max(errors), width)
        outside = sum(each.outside for each in group)
        shown = "".join(f"{value:8.2f}" for value in figures)
        lines.append(f"{engine:9}{case:28}{component:18}{role:9}{len(group):8}{shown}{outside:8}")

    return lines


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("paths", nargs="*", type=Path, help="files of rows")
    args = parser.parse_args()
    comparisons = [each for row in rows_of(args.paths or [FOLDER / name for name in OWN]) for each in compare(row)]
    kept = [] if args.paths else StartStore(find_paths().starts_file).entries()
    print("\n".join(table([*comparisons, *(each for entry in kept for each in compare_kept(entry))])))
    outside = [each for each in comparisons if each.outside]
    wrong = [each for each in comparisons if each.falsely_fits]
    print(f"{len(comparisons)} figures, {len(outside)} outside the plan's bounds, {len(wrong)} starts called too small")
    for each in outside[:20]:
        planned = f"{each.planned.low_mib:.2f} to {each.planned.high_mib:.2f}"
        print(
            f"  {each.component} {each.measured:.2f}, planned {planned}: {each.row['geometry']} {each.row['settings']}"
        )

    return 1 if outside or wrong else 0


if __name__ == "__main__":
    sys.exit(main())
