"""What real starts took, held against the formula, and used in its place. Pure.

An engine says while it loads what each of its buffers takes. For the same build, model and shape that is the plan. What
lies further outside the formula's bounds than rounding and an allocator's luck explain means that the build computes
another graph than the formula knows; what was read is then trusted, for other contexts of the same shape, too.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from orchestrator.core.plan.amounts import NOTHING, Amount
from orchestrator.core.plan.need import BESIDE_THE_ENGINE, Component, Need
from orchestrator.core.plan.shape import PlanShape
from orchestrator.core.plan.solve import NeedOf
from orchestrator.core.quantities import MIB

TOLERANCE_MIB = 16
TOLERANCE_SHARE = 0.02
"""A difference beyond the larger of the two is no rounding and no luck of an allocator."""

_ROUNDING = MIB // 50
"""Engines print MiB with two decimals: an exact figure that agrees stays exact."""

HOST_NAME = "host"

SizesByName = Mapping[str, int]


@dataclass(frozen=True, slots=True)
class MeasuredDevice:
    """What an engine said of one device, bytes by component.

    :param name: as the engine calls it, without an address
    :param beside: bytes in use there that no line of the log has: the context, its modules; None where not measured
    """

    name: str
    sizes: SizesByName
    beside: int | None = None


@dataclass(frozen=True, slots=True)
class MeasuredStart:
    """One start that became ready.

    :param build: its key: label and program
    :param model: identity of the model's file
    :param shape: of the plan, with the devices that the engine used
    :param fitted: the engine placed the layers itself, by the memory that was free
    :param when: RFC 3339
    :param host: bytes by component in host memory
    :param hidden_mib: device memory that upstream's fit counted twice; None where not seen
    """

    build: str
    model: str
    shape: PlanShape
    fitted: bool
    when: str
    devices: tuple[MeasuredDevice, ...]
    host: SizesByName
    hidden_mib: int | None = None

    @property
    def day(self) -> str:
        return self.when[:10]


@dataclass(frozen=True, slots=True)
class Residual:
    """A component that was measured outside of its bounds: by how much, bytes."""

    place: str
    component: str
    measured_bytes: int
    planned: Amount

    @property
    def beyond_bytes(self) -> int:
        """Return the distance from the nearest bound; negative where less was taken."""
        if self.measured_bytes > self.planned.high_bytes:
            return self.measured_bytes - self.planned.high_bytes

        return min(0, self.measured_bytes - self.planned.low_bytes)

    @property
    def contradicts(self) -> bool:
        """Return whether it is too much for rounding and luck."""
        return abs(self.beyond_bytes) > max(TOLERANCE_MIB * MIB, TOLERANCE_SHARE * self.measured_bytes)

    def __str__(self) -> str:
        low, high = self.planned.low_mib, self.planned.high_mib
        planned = f"{low:.0f}" if round(low) == round(high) else f"{low:.0f} to {high:.0f}"
        return f"{self.component} on {self.place}: {self.measured_bytes / MIB:.0f} MiB, planned {planned}"


def residuals(need: Need, start: MeasuredStart) -> tuple[Residual, ...]:
    """Return what a start took, each component beside its plan; only what both know, and with no open bound."""
    found = [
        _residuals(device.name, parts, device.sizes) for device, parts in zip(start.devices, need.devices, strict=False)
    ]
    return (*(each for row in found for each in row), *_residuals(HOST_NAME, need.host, start.host))


def contradictions(need: Need, start: MeasuredStart) -> tuple[Residual, ...]:
    """Return what shows that the build takes another amount than the formula knows."""
    return tuple(each for each in residuals(need, start) if each.contradicts)


class MemoryRow(NamedTuple):
    """One component of one place as it was planned and as it was measured, bytes; None before it was."""

    place: str
    component: str
    planned: Amount
    measured_bytes: int | None


def memory_rows(need: Need, start: MeasuredStart | None) -> tuple[MemoryRow, ...]:
    """Return each component beside its plan: the devices first, the host last.

    :param start: None before it is known
    """
    rows: list[MemoryRow] = []
    for index, parts in enumerate(need.devices):
        device = start.devices[index] if start is not None and index < len(start.devices) else None
        sizes = dict(device.sizes) if device is not None else {}
        if device is not None and device.beside is not None:
            sizes["overhead"] = device.beside

        rows += _rows(device.name if device is not None else f"device {index}", parts, sizes)

    return (*rows, *_rows(HOST_NAME, need.host, start.host if start is not None else {}))


def _rows(place: str, planned: Mapping[Component, Amount], measured: SizesByName) -> Iterator[MemoryRow]:
    plan = _as_told(planned, measured) if measured else planned
    told: dict[str, Amount] = dict(plan.items())
    for component in dict.fromkeys([*told, *measured]):
        amount, size = told.get(component, NOTHING), measured.get(component)
        if amount.high_bytes or size:
            yield MemoryRow(place, component, amount, size)


def learned_needs(needs: NeedOf, starts: Sequence[MeasuredStart], said: list[str] | None = None) -> NeedOf:
    """Return a function from shapes to needs that takes figures from starts of the same build and model.

    :param needs: the formula
    :param starts: of this build and model, the newest last
    :param said: each source is added here once, as a sentence for people
    """

    def need(shape: PlanShape) -> Need:
        plan = needs(shape)
        same = next((each for each in reversed(starts) if each.shape == shape and _placed_as(plan, each)), None)
        if same is not None:
            _say(said, f"read back from the start of {same.day}")
            return _replaced(plan, same)

        near = next((each for each in reversed(starts) if _alike(each.shape, shape)), None)
        if near is None:
            return plan

        then = needs(near.shape)
        changed = contradictions(then, near) if _placed_as(then, near) else ()
        if not changed:
            return plan

        parts = "; ".join(map(str, changed))
        _say(said, f"this build takes other amounts than the formula knows (start of {near.day}: {parts})")
        return _shifted(plan, near, changed)

    return need


def learned_beside_mib(starts: Sequence[MeasuredStart]) -> int | None:
    """Return the most that starts of one build took beside what its log tells, on one device, MiB."""
    found = [device.beside for start in starts for device in start.devices if device.beside is not None]
    return -(-max(found) // MIB) if found else None


def _placed_as(plan: Need, start: MeasuredStart) -> bool:
    """Return whether the layers were where the plan has them: an engine that fits may have put them elsewhere."""
    if len(start.devices) != len(plan.devices):
        return False

    if not start.fitted:
        return True

    for device, parts in zip(start.devices, plan.devices, strict=True):
        planned = sum(parts[name].low_bytes for name in _WEIGHTS if name in parts)
        measured = sum(device.sizes.get(name, 0) for name in _WEIGHTS)
        if abs(measured - planned) > TOLERANCE_MIB * MIB:
            return False

    return True


_WEIGHTS: tuple[Component, ...] = ("weights", "draft_weights")


def _alike(one: PlanShape, other: PlanShape) -> bool:
    return replace(one, context_tokens=other.context_tokens) == other


def _residuals(place: str, planned: Mapping[Component, Amount], measured: SizesByName) -> Iterator[Residual]:
    for component, amount in _as_told(planned, measured).items():
        size = measured.get(component)
        if size is not None and not amount.is_open:
            yield Residual(place, component, size, amount)


def _as_told(planned: Mapping[Component, Amount], measured: SizesByName) -> dict[Component, Amount]:
    """Return the plan with weights of an MTP block among the model's, as an engine's lines have them."""
    told = dict(planned)
    if "draft_weights" in told and "draft_weights" not in measured:
        told["weights"] = told["weights"].plus(told.pop("draft_weights"))

    return told


def _replaced(plan: Need, start: MeasuredStart) -> Need:
    devices = tuple(_with_sizes(parts, device.sizes) for parts, device in zip(plan.devices, start.devices, strict=True))
    return replace(plan, devices=devices, host=_with_sizes(plan.host, start.host))


def _with_sizes(planned: Mapping[Component, Amount], measured: SizesByName) -> dict[Component, Amount]:
    parts = dict(planned)
    for component, amount in planned.items():
        size = measured.get(component)
        if size is None or component in BESIDE_THE_ENGINE:
            continue

        if component == "weights" and "draft_weights" in planned and "draft_weights" not in measured:
            size = max(0, size - planned["draft_weights"].low_bytes)

        parts[component] = (
            Amount(size, size, "learned") if size != amount.low_bytes or amount.kind != "exact" else amount
        )

    return parts


def _shifted(plan: Need, near: MeasuredStart, changed: Sequence[Residual]) -> Need:
    """Return the plan moved by what another context was off by; what has bounds keeps their width."""
    devices = [dict(parts) for parts in plan.devices]
    places: dict[str, dict[Component, Amount]] = {
        device.name: parts for device, parts in zip(near.devices, devices, strict=False)
    }
    host = dict(plan.host)
    for each in changed:
        parts = places.get(each.place, host)
        for component, amount in list(parts.items()):
            if component == each.component:
                by = each.beyond_bytes
                low, high = max(0, amount.low_bytes + min(by, 0)), amount.high_bytes + max(by, 0)
                if amount.kind != "interval":
                    low, high = max(0, amount.low_bytes + by), max(0, amount.high_bytes + by)

                parts[component] = Amount(low, high, "interval" if amount.kind == "interval" else "learned")

    return replace(plan, devices=tuple(devices), host=host)


def _say(said: list[str] | None, text: str) -> None:
    if said is not None and text not in said:
        said.append(text)
