"""Whether a start fits, why, and what to change so that it does."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

from orchestrator.core.plan.amounts import Amount, total
from orchestrator.core.plan.geometry import Geometry
from orchestrator.core.plan.memory.caches import quantised
from orchestrator.core.plan.need import Component, Need, PlanBuild
from orchestrator.core.plan.shape import ALL, UBATCH, PlanShape
from orchestrator.core.plan.solve import (
    NeedOf,
    fits,
    largest_context,
    most_gpu_layers,
    needs,
    smallest_n_cpu_moe,
)
from orchestrator.core.plan.spread import spread, spread_experts
from orchestrator.core.quantities import MIB

Verdict = Literal["fits", "fits_with_offload", "does_not_fit", "unclear"]

FILLED_LATER: frozenset[Component] = frozenset({"prompt_cache", "checkpoints"})
"""Host memory that requests fill, up to a limit that can be lowered."""

_SHORTEST_CONTEXT = 4096
"""A smaller context is no advice."""


class Remedy(NamedTuple):
    """A setting with which the start fits; checked, alone, beside the settings as they are."""

    setting: str
    value: int | str
    text: str


@dataclass(frozen=True)
class Judgement:
    """A verdict.

    :param reason: one sentence, with the figures
    :param shape: the shape that fits: the one asked for, or that with fewer layers on devices
    :param changes: what would make it fit as asked for
    """

    verdict: Verdict
    reason: str
    shape: PlanShape
    need: Need
    changes: tuple[Remedy, ...]


def host_parts(need: Need) -> list[Amount]:
    """Return what a start takes of the host's memory before any request fills more of it."""
    return [amount for name, amount in need.host.items() if name not in FILLED_LATER]


def impossible(need: Need, free_bytes: Sequence[int], host_free_bytes: int | None = None) -> str | None:
    """Return why what is certain exceeds a device or the host, in words; None when it does not."""
    for index, free in enumerate(free_bytes[: len(need.devices)]):
        least = need.device_total(index).low_bytes
        if least > free:
            return f"needs {_mib(least)} MiB at least, and {_name(index, free_bytes)} has {_mib(free)} MiB free"

    if host_free_bytes is not None:
        least = total(host_parts(need)).low_bytes
        if least > host_free_bytes:
            return f"needs {_mib(least)} MiB of host memory at least, and {_mib(host_free_bytes)} MiB are available"

    return None


def judge(
    geometry: Geometry,
    shape: PlanShape,
    build: PlanBuild,
    free_bytes: Sequence[int],
    host_free_bytes: int | None = None,
    *,
    margin_bytes: int = 0,
    may_offload: bool = True,
    need: NeedOf | None = None,
    advise: bool = True,
) -> Judgement:
    """Return whether a start fits.

    It fits when the upper bound of its need does, and does not when what is certain is too much already.

    :param free_bytes: of each device
    :param host_free_bytes: what the host has available; None when that is not asked
    :param may_offload: whether weights may be left on the host that the shape has on a device
    :param advise: whether to look for changes, which takes most of the time
    """
    need = need or needs(geometry, build)
    asked = need(shape)
    if not _lacks_host(asked, host_free_bytes) and fits(asked, free_bytes, margin_bytes):
        return _fitting(geometry, shape, asked, free_bytes, margin_bytes, need)

    looked = _changes(geometry, shape, build, free_bytes, host_free_bytes, margin_bytes, need) if advise else ()
    changes = tuple(looked)
    if may_offload:
        for offloaded in _offloads(geometry, shape, build, free_bytes, margin_bytes, need):
            found = need(offloaded)
            if not _lacks_host(found, host_free_bytes):
                whole = replace(offloaded, tensor_split=shape.tensor_split) == shape
                otherwise = "shared out by free memory" if whole else "on devices alone"
                reason = f"{_offload_text(geometry, offloaded)}; {otherwise} it {_needs(asked, free_bytes)}"
                return Judgement("fits" if whole else "fits_with_offload", reason, offloaded, found, changes)

    why = impossible(asked, free_bytes, host_free_bytes)
    least = _most_offloaded(geometry, shape) if may_offload else shape
    if why and (least == shape or (why := impossible(need(least), free_bytes, host_free_bytes))):
        return Judgement("does_not_fit", f"it {why}", shape, asked, changes)

    reason = f"it {_needs(asked, free_bytes)}"
    if impossible(asked, free_bytes, host_free_bytes):
        reason += "; whether it fits with most of its layers on the host is not certain"

    return Judgement("unclear", reason, shape, asked, changes)


def _fitting(
    geometry: Geometry, shape: PlanShape, need: Need, free_bytes: Sequence[int], margin_bytes: int, need_of: NeedOf
) -> Judgement:
    reason = f"it {_needs(need, free_bytes)}"
    plain = replace(shape, n_cpu_moe=0, n_cpu_ffn=0, gpu_layers=None)
    if plain != shape and not fits(need_of(plain), free_bytes, margin_bytes):
        return Judgement("fits_with_offload", f"{_offload_text(geometry, shape)}; {reason}", shape, need, ())

    return Judgement("fits", reason, shape, need, ())


def _offloads(
    geometry: Geometry, shape: PlanShape, build: PlanBuild, free: Sequence[int], margin: int, need: NeedOf
) -> Iterator[PlanShape]:
    """Yield shapes that fit, with the least on the host first."""
    split = spread(geometry, shape, free, margin, need)
    if split is not None:
        yield split
        return

    count = smallest_n_cpu_moe(geometry, shape, build, free, margin, need=need)
    split = spread_experts(geometry, shape, free, margin, need)
    if split is not None and split.n_cpu_moe < (count or ALL):
        yield split

    if count:
        yield replace(shape, n_cpu_moe=count)

    layers = most_gpu_layers(geometry, shape, build, free, margin, need=need)
    if layers and layers <= geometry.block_count:
        yield replace(shape, gpu_layers=layers)


def _changes(
    geometry: Geometry,
    shape: PlanShape,
    build: PlanBuild,
    free: Sequence[int],
    host_free: int | None,
    margin: int,
    need: NeedOf,
) -> Iterator[Remedy]:
    def suits(other: PlanShape) -> bool:
        found = need(other)
        return fits(found, free, margin) and not _lacks_host(found, host_free)

    count = smallest_n_cpu_moe(geometry, shape, build, free, margin, need=need)
    if count and count != shape.n_cpu_moe and suits(replace(shape, n_cpu_moe=count)):
        yield Remedy("memory.n_cpu_moe", count, f"the experts of the first {count} layers on the host")

    context = largest_context(geometry, shape, build, free, margin, need=need)
    shorter = context is not None and _SHORTEST_CONTEXT <= context < shape.context_tokens
    if context and shorter and suits(replace(shape, context_tokens=context)):
        yield Remedy("context.size", context, f"a context of {_spaced(context)} tokens")

    smaller = ("q8_0", "q4_0") if not quantised(shape.kv_k) else ("q4_0",) if shape.kv_k == "q8_0" else ()
    kind = next((each for each in smaller if suits(replace(shape, kv_k=each, kv_v=each))), None)
    if kind:
        yield Remedy("kv.k", kind, f"keys and values in {kind}")

    if shape.draft_max and suits(replace(shape, draft_max=0)):
        yield Remedy("speculative.type", "none", "no MTP")

    if shape.slots > 1 and suits(replace(shape, slots=1)):
        yield Remedy("context.parallel", 1, "one slot")

    if shape.ubatch > UBATCH and suits(replace(shape, ubatch=UBATCH)):
        yield Remedy("batch.ubatch", UBATCH, f"physical batches of {UBATCH} tokens")


def _most_offloaded(geometry: Geometry, shape: PlanShape) -> PlanShape:
    return replace(shape, gpu_layers=0, n_cpu_moe=0)


def _lacks_host(need: Need, host_free_bytes: int | None) -> bool:
    if host_free_bytes is None:
        return False

    return total(host_parts(need)).high_bytes > host_free_bytes


def _offload_text(geometry: Geometry, shape: PlanShape) -> str:
    split = ""
    if shape.tensor_split:
        split = f"the layers split {'/'.join(f'{share:g}' for share in shape.tensor_split)}"

    if shape.n_cpu_moe:
        count = sum(index < shape.n_cpu_moe for index in geometry.expert_layers)
        rest = f", {split}" if split else ""
        return f"it fits with the experts of {count} of {len(geometry.expert_layers)} layers on the host{rest}"

    if split and shape.gpu_layers is None:
        return f"it fits with {split}"

    layers = geometry.block_count + 1 if shape.gpu_layers is None else shape.gpu_layers
    return f"it fits with {layers} of {geometry.block_count + 1} layers on the device, the rest on the host"


def _needs(need: Need, free_bytes: Sequence[int]) -> str:
    said = [
        f"needs {_range(need.device_total(index))} MiB, and {_name(index, free_bytes)} has {_mib(free)} MiB free"
        for index, free in enumerate(free_bytes[: len(need.devices)])
    ]
    return "; ".join(said) or "needs no device"


def _name(index: int, free_bytes: Sequence[int]) -> str:
    return "the device" if len(free_bytes) == 1 else f"device {index}"


def _range(amount: Amount) -> str:
    if amount.is_open:
        return f"{_mib(amount.low_bytes)} or more"

    low, high = _mib(amount.low_bytes), _mib(amount.high_bytes)
    return low if low == high else f"{low} to {high}"


def _mib(size_bytes: int) -> str:
    return _spaced(round(size_bytes / MIB))


def _spaced(number: int) -> str:
    return f"{number:,}".replace(",", " ")
