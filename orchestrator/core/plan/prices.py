"""What a choice costs or saves on the devices: MTP, the cache's type, slots, the physical batch, layers of experts."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from orchestrator.core.plan.geometry import Geometry
from orchestrator.core.plan.memory.caches import quantised
from orchestrator.core.plan.need import BESIDE_THE_ENGINE, Need, PlanBuild
from orchestrator.core.plan.shape import MTP_DRAFT_MAX, PlanShape
from orchestrator.core.plan.solve import NeedOf, needs
from orchestrator.core.quantities import MIB

_SLOTS = 4
_LARGE_UBATCH = 2048


@dataclass(frozen=True, slots=True)
class Price:
    """A choice.

    :param choice: `mtp`, `kv`, `slots`, `ubatch` or `expert_layer`
    :param mib: MiB that it costs on all devices together; negative is saved
    :param layers: the same in layers of experts; None without experts
    """

    choice: str
    text: str
    mib: int
    layers: float | None


def prices(geometry: Geometry, shape: PlanShape, build: PlanBuild, *, need: NeedOf | None = None) -> tuple[Price, ...]:
    """Return the prices of the choices that a start of this shape has, each against the shape as it is."""
    return tuple(_prices(geometry, shape, need or needs(geometry, build)))


def _prices(geometry: Geometry, shape: PlanShape, need: NeedOf) -> Iterator[Price]:
    layer = expert_layer_mib(geometry)
    here = _mib(need(shape))

    def price(choice: str, what: str, mib: float) -> Price:
        layers = round(mib / layer, 1) if layer else None
        verb = "cost" if mib >= 0 else "save"
        verb += "" if choice == "slots" else "s"
        text = f"{what} {verb} {_spaced(abs(round(mib)))} MiB"
        if layers and abs(layers) >= 0.1:
            text += f", {abs(layers):g} layers of experts"

        return Price(choice, text, round(mib), layers)

    if geometry.mtp_blocks:
        drafting = replace(shape, draft_max=shape.draft_max or MTP_DRAFT_MAX)
        yield price("mtp", "MTP", _mib(need(drafting)) - _mib(need(replace(shape, draft_max=0))))

    f16 = _mib(need(replace(shape, kv_k="f16", kv_v="f16")))
    for kind in ("q8_0", "q4_0"):
        other = _mib(need(replace(shape, kv_k=kind, kv_v=kind)))
        if kind == shape.kv_k or not quantised(shape.kv_k):
            yield price("kv", f"{kind} KV instead of f16", other - f16)

    # Four that share the context, so that each can have all of it, as the one has.
    one, four = replace(shape, slots=1), replace(shape, slots=_SLOTS, unified_kv=True)
    yield price("slots", f"{_SLOTS} slots instead of 1", _mib(need(four)) - _mib(need(one)))
    if shape.ubatch != _LARGE_UBATCH:
        larger = replace(shape, ubatch=_LARGE_UBATCH, batch=max(shape.batch, _LARGE_UBATCH))
        yield price("ubatch", f"a ubatch of {_LARGE_UBATCH} instead of {shape.ubatch}", _mib(need(larger)) - here)

    if layer:
        yield Price(
            "expert_layer", f"a layer's experts on the device cost {_spaced(round(layer))} MiB", round(layer), 1.0
        )


def expert_layer_mib(geometry: Geometry) -> float:
    """Return the MiB of one layer's experts, on average; 0 without experts."""
    sizes = [geometry.layers[index].expert_bytes for index in geometry.expert_layers]
    return sum(sizes) / len(sizes) / MIB if sizes else 0.0


def _mib(need: Need) -> float:
    """What the engine takes on all devices, in the middle of its bounds."""
    amounts = [
        amount
        for parts in need.devices
        for name, amount in parts.items()
        if name not in BESIDE_THE_ENGINE and not amount.is_open
    ]
    return sum(amount.low_mib + amount.high_mib for amount in amounts) / 2


def _spaced(number: int) -> str:
    return f"{number:,}".replace(",", " ")
