"""The plan of a start as it is about to be made: its shape, and the bounds of whatever placement the engine chooses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from orchestrator.core.dialect.capabilities import Kind
from orchestrator.core.plan.amounts import NOTHING, Amount, total
from orchestrator.core.plan.geometry import Geometry
from orchestrator.core.plan.need import COMPONENTS, Component, Need, PlanBuild
from orchestrator.core.plan.shape import ALL, PlanShape, shape_of
from orchestrator.core.plan.solve import NeedOf, needs
from orchestrator.core.plan.verdict import FILLED_LATER
from orchestrator.core.profile.profile import EngineProfile
from orchestrator.core.quantities import MIB

_PLACING = ("memory.tensor_overrides", "memory.tensor_split")
_UNPLANNED_SPLITS = ("row", "tensor", "attn", "graph")
_PAGED_BY_DRIVER = ("GGML_CUDA_ENABLE_UNIFIED_MEMORY", "GGML_HIP_UMA")
_ANONYMOUS: tuple[Component, ...] = ("kv", "state", "draft_kv")
"""Host memory that no file is behind."""


@dataclass(frozen=True)
class StartPlan:
    """What is expected of a start.

    :param whole: with everything on devices that the profile does not keep off them
    :param least: with as little on devices as the engine may choose; the same where it does not choose
    :param fitted: the engine places the layers by the memory that it finds free
    :param certain: no setting places tensors or splits them in a way that is not planned
    """

    geometry: Geometry
    build: PlanBuild
    shape: PlanShape
    whole: Need
    least: Need
    fitted: bool
    certain: bool

    @property
    def need(self) -> Need:
        """Return the bounds of every placement that the engine may choose."""
        return between(self.whole, self.least) if self.fitted else self.whole


def plan_start(
    geometry: Geometry,
    profile: EngineProfile,
    build: PlanBuild,
    *,
    devices: int | None = None,
    need: NeedOf | None = None,
) -> StartPlan:
    """Return the plan of a start.

    :param devices: how many the engine has; None takes those that the profile names, at least one
    :param need: from a shape to its need, with what was learned
    """
    shape = shape_of(profile.settings, build.kind, geometry)
    if devices is not None:
        shape = replace(shape, devices=devices)

    need = need or needs(geometry, build)
    fitted = shape.devices > 0 and engine_places(profile, build.kind)
    whole = need(shape)
    least = need(_least(geometry, shape, build.kind)) if fitted else whole
    return StartPlan(geometry, build, shape, whole, least, fitted, is_certain(profile))


def engine_places(profile: EngineProfile, kind: Kind) -> bool:
    """Return whether the engine places layers by itself: upstream unless it is told not to, or where to."""
    fit = profile.settings.get("memory.fit")
    by_hand = ("memory.n_cpu_moe", "memory.cpu_moe", *_PLACING)
    if profile.settings.get("memory.gpu_layers", "auto") != "auto" or any(key in profile.settings for key in by_hand):
        return kind == "ik" and fit is True

    return fit is True or (fit is None and kind == "upstream")


def is_certain(profile: EngineProfile) -> bool:
    """Return whether nothing in the profile moves tensors, or memory, in a way that is not planned."""
    settings = profile.settings
    return (
        not profile.extra_args
        and not any(key in settings for key in _PLACING)
        and settings.get("memory.split") not in _UNPLANNED_SPLITS
        and not any(name in profile.environment for name in _PAGED_BY_DRIVER)
    )


def placed_mib(plan: StartPlan) -> tuple[int | None, int | None]:
    """Return what a start needs at most on its devices together, and on the host without what requests fill later.

    None for a need without an upper bound, and for devices where it has none.
    """
    devices = total(plan.whole.device_total(index) for index in range(len(plan.whole.devices)))
    host = total(amount for name, amount in plan.whole.host.items() if name not in FILLED_LATER)
    on_devices = None if devices.is_open or not plan.whole.devices else -(-devices.high_bytes // MIB)
    return on_devices, None if host.is_open else -(-host.high_bytes // MIB)


def between(one: Need, other: Need) -> Need:
    """Return a need with the lower and the upper bounds of two."""
    devices = tuple(_bounds(first, second) for first, second in zip(one.devices, other.devices, strict=True))
    return Need(devices, _bounds(one.host, other.host))


def refuse_start(
    plan: StartPlan,
    profile: EngineProfile,
    device_total_mib: Sequence[int],
    host_total_mib: int | None,
    *,
    needs_device: bool,
) -> str | None:
    """Return why a start cannot be, whatever else is on the devices; None where it might.

    Only what is certain counts: weights, caches and states to the byte against the whole memory of the devices. Where
    the engine places the layers, what it does not put on a device is in host memory, and weights may stay in the file.

    :param device_total_mib: of each device; empty where that is not known
    :param needs_device: the profile is served on a device only: without one that the build can use, nothing is placed
    """
    if not plan.certain or "memory.rpc" in profile.settings or plan.geometry.gaps:
        return None

    kind = plan.build.kind
    totals = sorted(device_total_mib, reverse=True)[: plan.shape.devices]  # which of them it uses is not known
    if totals and needs_device and not (plan.fitted and kind == "upstream"):
        # A fork that cannot draft with a model's MTP block goes on without it.
        names = [name for name in COMPONENTS if kind == "upstream" or not name.startswith("draft")]
        wanted = sum(_exact(parts, names) for parts in plan.least.devices)
        have = sum(totals) * MIB
        if wanted > have:
            return f"it needs {_mib(wanted)} MiB of device memory at least, and there are {_mib(have)} MiB in all"

    if host_total_mib is None:
        return None

    held = sum(_exact(plan.whole.host, (name,)) for name in _ANONYMOUS)
    if plan.fitted or not totals:
        held = sum(_exact(parts, _ANONYMOUS) for parts in (*plan.whole.devices, plan.whole.host))

    have = (host_total_mib + (sum(totals) if plan.fitted or not totals else 0)) * MIB
    if held > have:
        return f"its caches and states need {_mib(held)} MiB, and there are {_mib(have)} MiB of memory in all"

    return None


def _least(geometry: Geometry, shape: PlanShape, kind: Kind) -> PlanShape:
    """The fork's fit moves experts alone where a model has them."""
    if kind == "ik" and geometry.expert_layers:
        return replace(shape, n_cpu_moe=ALL)

    return replace(shape, gpu_layers=0)


def _bounds(one: Mapping[Component, Amount], other: Mapping[Component, Amount]) -> dict[Component, Amount]:
    found: dict[Component, Amount] = {}
    for name in dict.fromkeys([*one, *other]):
        first, second = one.get(name, NOTHING), other.get(name, NOTHING)
        low, high = min(first.low_bytes, second.low_bytes), max(first.high_bytes, second.high_bytes)
        found[name] = first if first == second else Amount(low, high, "interval")

    return found


def _exact(parts: Mapping[Component, Amount], names: Sequence[Component]) -> int:
    return sum(parts[name].low_bytes for name in names if name in parts and parts[name].kind in ("exact", "learned"))


def _mib(size_bytes: int) -> str:
    return f"{round(size_bytes / MIB):,}".replace(",", " ")
