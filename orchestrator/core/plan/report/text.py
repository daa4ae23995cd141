"""A plan in words and rows, for a terminal of 80 columns."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from orchestrator.core.plan.amounts import Amount
from orchestrator.core.plan.need import COMPONENTS, Component
from orchestrator.core.plan.plan import Plan
from orchestrator.core.plan.shape import PlanShape
from orchestrator.core.plan.speed.outlook import SpeedOutlook, rate_text
from orchestrator.core.plan.verdict import FILLED_LATER
from orchestrator.core.quantities import MIB

NAMES: Mapping[Component, str] = {
    "weights": "weights",
    "kv": "KV cache",
    "state": "recurrent state",
    "draft_weights": "draft weights",
    "draft_kv": "draft KV cache",
    "projector": "projector",
    "compute": "compute buffers",
    "draft_compute": "draft compute",
    "output": "output buffer",
    "overhead": "context, modules",
    "growth": "growth after load",
    "prompt_cache": "prompt cache",
    "checkpoints": "checkpoints",
}


def verdict_lines(plan: Plan) -> list[str]:
    """Return the verdict, and below it what else there is to say of it."""
    reason = plan.judgement.reason.removeprefix("it ")
    for index, room in enumerate(plan.devices):
        said = "the device has" if len(plan.devices) == 1 else f"device {index} has"
        reason = reason.replace(said, said if room.name.startswith("device") else f"the {room.name} has")

    first, *rest = reason.split("; ")
    match plan.judgement.verdict:
        case "fits":
            return [f"fits: {first}", *rest]
        case "fits_with_offload":
            return [first, *rest]
        case "does_not_fit":
            return [f"does not fit: {first}", *rest]
        case _:
            return [f"unclear: {first}", *rest]


def shape_words(shape: PlanShape) -> str:
    """Return the settings of a shape in one line."""
    words = [f"context {spaced(shape.context_tokens)}", f"KV {_cache(shape)}"]
    words.append(f"{shape.slots} slot{'s' if shape.slots > 1 else ''}")
    if shape.draft_max:
        words.append(f"MTP up to {shape.draft_max}")

    words.append(f"ubatch {spaced(shape.ubatch)}")
    if shape.n_cpu_moe:
        words.append(f"n_cpu_moe {shape.n_cpu_moe if shape.n_cpu_moe < 1 << 20 else 'all'}")

    if shape.tensor_split:
        words.append(f"tensor_split {'/'.join(f'{share:g}' for share in shape.tensor_split)}")

    if shape.gpu_layers is not None:
        words.append(f"gpu_layers {shape.gpu_layers}")

    if not shape.flash_attention:
        words.append("no flash attention")

    return ", ".join(words)


def table_of(plan: Plan) -> tuple[list[str], list[list[str]]]:
    """Return headers and rows: components by device and host, how well each is known, totals and what is free."""
    places = [(room.name, plan.need.devices[at], plan.need.device_total(at)) for at, room in enumerate(plan.devices)]
    places.append(("host", plan.need.host, plan.need.host_total()))
    several = len(places) > 2  # a column for each kind would not go into 80
    headers = ["MIB"]
    for name, _, _ in places:
        headers += [name] if several else [name, "known"]

    rows = []
    for component in COMPONENTS:
        row = [NAMES[component]]
        kinds: list[str] = []
        for _, parts, _ in places:
            amount = parts.get(component)
            shown = amount is not None and (amount.high_bytes or amount.kind == "unknown")
            cells = (range_of(amount), amount.kind) if amount is not None and shown else ("", "")
            row += cells[:1] if several else cells
            kinds += [cells[1]] if cells[1] else []

        if any(row[1:]):
            rows.append([*row, "/".join(dict.fromkeys(kinds))] if several else row)

    total, free = ["total"], ["free"]
    for _, _, amount in places:
        total += [range_of(amount)] if several else [range_of(amount), ""]

    for free_mib in (*(room.free_mib for room in plan.devices), plan.host.free_mib):
        told = "not known" if free_mib is None else spaced(free_mib)
        free += [told] if several else [told, ""]

    if several:
        headers, total, free = [*headers, "known"], [*total, ""], [*free, ""]

    return headers, [*rows, total, free]


def _speed_lines(speed: SpeedOutlook) -> Iterator[str]:
    told = {"decoding": speed.decode, "with drafts": speed.drafted, "reading prompts": speed.prompt}
    known = {name: each for name, each in told.items() if each is not None and each.high is not None}
    for name, each in known.items():
        yield f"{name}: {rate_text(each)} ({each.basis.removeprefix('at most: ')})"

    if not known:
        yield "speed: not known, nothing like it was measured here"


def advice_lines(plan: Plan, speed: SpeedOutlook) -> Iterator[str]:
    """Yield what follows from the plan: the largest context, changes that make it fit, speed, prices."""
    if plan.context_max:
        yield f"largest context with these settings: {spaced(plan.context_max)} tokens"

    if plan.n_cpu_moe_min and plan.n_cpu_moe_min != plan.shape.n_cpu_moe:
        yield f"fewest layers with experts on the host: {plan.n_cpu_moe_min}"

    most = plan.need.host_total()
    if plan.host.free_mib is not None and (most.is_open or most.high_mib > plan.host.free_mib):
        filled = sum(plan.need.host[name].high_bytes for name in FILLED_LATER if name in plan.need.host) / MIB
        yield "requests may fill more of the host than there is: prompt cache and checkpoints take up to"
        yield f"{spaced(round(filled))} MiB (cache.prompt_ram_mib, context.checkpoints)"

    yield from _speed_lines(speed)

    offloads = plan.judgement.verdict == "fits_with_offload"
    changes = [change for change in plan.judgement.changes if not (offloads and change.setting == "memory.n_cpu_moe")]
    if changes:
        yield "all of it fits on the device with any one of:" if offloads else "any one of these makes it fit:"
        yield from (f"  {change.text} ({_setting(change.setting)} = {change.value})" for change in changes)

    if plan.prices:
        yield "prices on the device:" if plan.devices else "prices in host memory:"
        yield from (f"  {price.text}" for price in plan.prices)


def range_of(amount: Amount) -> str:
    """Return an amount in whole MiB: one figure, or its bounds."""
    low = spaced(round(amount.low_mib))
    if amount.is_open:
        return f"{low} or more"

    high = spaced(round(amount.high_mib))
    return high if low == high else f"{low} to {high}"


def spaced(number: int) -> str:
    """Return a number with its thousands apart."""
    return f"{number:,}".replace(",", " ")


def _setting(name: str) -> str:
    return "kv.k and kv.v" if name == "kv.k" else name


def _cache(shape: PlanShape) -> str:
    return shape.kv_k if shape.kv_k == shape.kv_v else f"{shape.kv_k}/{shape.kv_v}"
