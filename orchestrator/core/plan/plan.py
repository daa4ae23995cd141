"""The plan of a start: what it needs against what there is, the verdict, and what each choice would cost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from orchestrator.core.plan.amounts import NOTHING, Amount, exact, total
from orchestrator.core.plan.geometry import Geometry
from orchestrator.core.plan.need import COLD_GROWTH_MIB, COLD_OVERHEAD_MIB, Component, Need, PlanBuild, need_of
from orchestrator.core.plan.prices import Price, prices
from orchestrator.core.plan.shape import PlanShape
from orchestrator.core.plan.solve import NeedOf, largest_context, needs, smallest_n_cpu_moe
from orchestrator.core.plan.verdict import FILLED_LATER, Judgement, judge
from orchestrator.core.quantities import MIB

PROJECTOR_COMPUTE_MIB = 512
"""Most that buffers of a projector took in reports; no rule of ours covers them."""


class DeviceRoom(NamedTuple):
    """A device and its memory; None where that is not known."""

    name: str
    total_mib: int | None
    free_mib: int | None


class HostRoom(NamedTuple):
    """The host's memory; None where that is not known."""

    total_mib: int | None
    free_mib: int | None


@dataclass(frozen=True)
class PlanSubject:
    """What is planned: a model, the shape of its start, and the build.

    :param projector_bytes: weights of a multimodal projector
    :param projector_on_host: it does not run on the device
    :param drafter: a draft model of its own, in a file beside
    :param drafter_bytes: weights of any file that drafts, also of one whose geometry is not known
    """

    geometry: Geometry
    shape: PlanShape
    build: PlanBuild
    projector_bytes: int = 0
    projector_on_host: bool = False
    drafter: Geometry | None = None
    drafter_bytes: int = 0

    def needs(
        self,
        *,
        overhead_mib: int = COLD_OVERHEAD_MIB,
        growth_mib: int = COLD_GROWTH_MIB,
        free: Sequence[float] = (),
    ) -> NeedOf:
        """Return the need as a function of the shape, with what lies beside the model.

        :param overhead_mib: device memory that no line of the log tells of, as learned on this card
        :param growth_mib: what is taken after the load, as learned
        :param free: free memory of each device, by which layers are shared out
        """
        main = needs(self.geometry, self.build, overhead_mib=overhead_mib, growth_mib=growth_mib, free=free)

        def need(shape: PlanShape) -> Need:
            found = main(shape)
            return self._beside(found, shape) if self.projector_bytes or self.drafter_bytes else found

        return need

    def _beside(self, need: Need, shape: PlanShape) -> Need:
        """Add the files beside the model: an engine puts them on its first device."""
        devices, host = [dict(parts) for parts in need.devices], dict(need.host)
        first = devices[0] if devices else host
        if self.projector_bytes:
            weights, most = self.projector_bytes, self.projector_bytes + PROJECTOR_COMPUTE_MIB * MIB
            _put(host if self.projector_on_host else first, "projector", Amount(weights, most, "learned"))

        if self.drafter is None:
            _put(first, "draft_weights", exact(self.drafter_bytes))
            return Need(tuple(devices), host)

        own = replace(shape, kv_k=shape.draft_kv_k, kv_v=shape.draft_kv_v, draft_max=0, n_cpu_moe=0, n_cpu_ffn=0)
        draft = need_of(self.drafter, replace(own, gpu_layers=None, devices=min(1, shape.devices)), self.build)
        for into, parts in ((first, draft.devices[0] if draft.devices else draft.host), (host, draft.host)):
            _put(into, "draft_weights", parts["weights"])
            _put(into, "draft_kv", parts["kv"].plus(parts.get("state", NOTHING)))
            compute = parts["compute"]
            _put(into, "draft_compute", Amount(0, compute.high_bytes, "interval"))

        return Need(tuple(devices), host)


@dataclass(frozen=True)
class Plan:
    """A verdict with all that belongs to it.

    :param context_max: the largest context with the judged settings, tokens; 0 when there is none
    :param n_cpu_moe_min: the fewest first layers whose experts have to be on the host; None without such a number
    """

    subject: PlanSubject
    devices: tuple[DeviceRoom, ...]
    host: HostRoom
    judgement: Judgement
    context_max: int
    n_cpu_moe_min: int | None
    prices: tuple[Price, ...]

    @property
    def shape(self) -> PlanShape:
        """The shape that the verdict is about: the one asked for, or that with fewer layers on the devices."""
        return self.judgement.shape

    @property
    def need(self) -> Need:
        return self.judgement.need


def plan_of(
    subject: PlanSubject,
    devices: Sequence[DeviceRoom],
    host: HostRoom,
    *,
    need: NeedOf | None = None,
    may_offload: bool = True,
    advise: bool = True,
) -> Plan:
    """Return the plan of a start on these devices.

    :param need: with what was learned of the build and the card, instead of the subject's own
    :param may_offload: layers may be put on the host that the settings have on a device
    :param advise: with the largest context, what to change and prices; the verdict alone takes a fifth of the time
    """
    shape = replace(subject.shape, devices=len(devices))
    free = [room.free_mib * MIB for room in devices if room.free_mib is not None]
    known = len(free) == len(devices)
    need = need or subject.needs(free=free if known else ())
    geometry, build = subject.geometry, subject.build
    if not known:
        judgement = _unjudged(need, shape)
        return Plan(subject, tuple(devices), host, judgement, 0, None, prices(geometry, shape, build, need=need))

    host_free = None if host.free_mib is None else host.free_mib * MIB
    judgement = judge(geometry, shape, build, free, host_free, may_offload=may_offload, need=need, advise=advise)
    if not advise:
        return Plan(subject, tuple(devices), host, judgement, 0, None, ())

    if not devices and host_free is not None:
        return _on_host(subject, host, judgement, host_free, need)

    context = largest_context(geometry, judgement.shape, build, free, need=need)
    fewest = smallest_n_cpu_moe(geometry, replace(shape, n_cpu_moe=0), build, free, need=need)
    if judgement.shape.tensor_split != shape.tensor_split:  # a split of its own leaves more on the devices
        fewest = judgement.shape.n_cpu_moe
    costs = prices(geometry, shape, build, need=need)
    return Plan(subject, tuple(devices), host, judgement, context or 0, fewest, costs)


def _on_host(subject: PlanSubject, host: HostRoom, judgement: Judgement, free: int, need: NeedOf) -> Plan:
    """Return the plan of a start without a device: its context and its prices are those in host memory."""

    def in_host(shape: PlanShape) -> Need:
        found = need(shape)
        parts = {name: amount for name, amount in found.host.items() if name not in FILLED_LATER}
        return Need((parts,), {})

    geometry, build, shape = subject.geometry, subject.build, judgement.shape
    taken = in_host(shape).device_total(0)
    told = " to ".join(dict.fromkeys((_spaced(taken.low_mib), _spaced(taken.high_mib))))
    judged = replace(judgement, reason=f"it needs {told} MiB of host memory, and {_spaced(free / MIB)} are available")
    context = largest_context(geometry, shape, build, [free], need=in_host)
    return Plan(subject, (), host, judged, context or 0, None, prices(geometry, shape, build, need=in_host))


def _spaced(mib: float) -> str:
    return f"{mib:,.0f}".replace(",", " ")


def _unjudged(need_of_shape: NeedOf, shape: PlanShape) -> Judgement:
    """Return the answer where nobody knows how much memory is free."""
    need = need_of_shape(shape)
    amount = total(need.device_total(index) for index in range(len(need.devices)))
    high = "or more" if amount.is_open else f"to {_spaced(amount.high_mib)}"
    low = _spaced(amount.low_mib)
    return Judgement("unclear", f"it needs {low} {high} MiB, and how much is free is not known", shape, need, ())


def _put(parts: dict[Component, Amount], name: Component, amount: Amount) -> None:
    parts[name] = parts.get(name, NOTHING).plus(amount)
