"""Gathers what a plan is made of: headers of a profile's files, the build, and the room on devices and host."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace

from orchestrator.adapters.gguf.reader import GgufHeader
from orchestrator.adapters.gguf.splits import read_splits
from orchestrator.adapters.paths import Paths
from orchestrator.core.errors import OrchError
from orchestrator.core.plan.geometry import Geometry, GeometryError, geometry_of
from orchestrator.core.plan.need import PlanBuild
from orchestrator.core.plan.plan import DeviceRoom, HostRoom, PlanSubject
from orchestrator.core.plan.shape import ALL, PlanShape, shape_of
from orchestrator.core.plan.speed.cards import card_of_device
from orchestrator.core.plan.speed.forecast import Ceilings, SpeedKey, device_key
from orchestrator.core.plan.speed.outlook import SpeedOutlook, outlook_of
from orchestrator.core.profile.profile import EngineProfile
from orchestrator.core.profile.settings import Value
from orchestrator.engines.registry import Engine

_NUMBER = re.compile(r"\d+$")
_EXPERTS = re.compile(r"blk\.(\d+)\.ffn_(?:up|down|gate|gate_up)_(?:ch|)exps\.")


def gather(profile: EngineProfile, engine: Engine | None, parts: Sequence[GgufHeader]) -> PlanSubject:
    """Return what is to be planned.

    :param engine: None where none is installed: its kind is taken from the profile's name of it, its build as current
    :param parts: headers of every file of the model
    :raises GeometryError: when the header does not say enough
    """
    build = build_of(engine, profile.engine)
    geometry = geometry_of(parts)
    settings = profile.settings
    shape, unplanned = _overridden(shape_of(settings, build.kind, geometry), settings, geometry, parts)
    projector = _bytes_of(settings.get("multimodal.mmproj"))
    drafter = settings.get("speculative.draft_model")
    return PlanSubject(
        replace(geometry, gaps=(*geometry.gaps, *unplanned)),
        shape,
        build,
        projector_bytes=projector,
        projector_on_host=settings.get("multimodal.offload") is False,
        drafter=_geometry_of(drafter),
        drafter_bytes=_bytes_of(drafter),
    )


def _overridden(
    shape: PlanShape, settings: Mapping[str, Value], geometry: Geometry, parts: Sequence[GgufHeader]
) -> tuple[PlanShape, tuple[str, ...]]:
    """Return a shape with experts on the host as `memory.tensor_overrides` has them, and what is not planned of those.

    Whole layers of experts on the CPU are as many first layers of `n_cpu_moe`; any other placement is not planned.
    """
    overrides = settings.get("memory.tensor_overrides")
    if not isinstance(overrides, tuple) or not overrides:
        return shape, ()

    text = ", ".join(map(str, overrides))
    rules = [(pattern, buffer) for pattern, _, buffer in (str(each).rpartition("=") for each in overrides)]
    names = [tensor.name for part in parts for tensor in part.tensors]
    try:
        placed = {name: buffer for name in names if (buffer := _buffer_of(name, rules)) is not None}
    except re.error:  # the engines' dialect of regular expressions has words that this one lacks
        return shape, (f"tensor_overrides {text}",)

    experts = {name: match for name in names if (match := _EXPERTS.match(name))}
    layers = [{name for name, match in experts.items() if int(match[1]) == layer} for layer in geometry.expert_layers]
    moved = [layer for layer in layers if layer and layer <= placed.keys()]
    whole = {name for layer in moved for name in layer}
    if placed.keys() - whole - _of_drafts(experts, geometry) or set(placed.values()) - {"CPU"}:
        return shape, (f"tensor_overrides {text}",)

    if not moved:
        return shape, ()

    count = ALL if len(moved) == len(layers) else geometry.expert_layers[len(moved) - 1] + 1
    return replace(shape, n_cpu_moe=max(count, shape.n_cpu_moe)), ()


def _buffer_of(name: str, rules: Sequence[tuple[str, str]]) -> str | None:
    return next((buffer for pattern, buffer in rules if re.search(pattern, name)), None)


def _of_drafts(experts: Mapping[str, re.Match[str]], geometry: Geometry) -> set[str]:
    """Return the experts of the layers that MTP drafts with: they go with the others."""
    return {name for name, match in experts.items() if int(match[1]) >= len(geometry.trunk)}


def build_of(engine: Engine | None, name: str) -> PlanBuild:
    """Return what of a build decides memory; without one, of the newest of its kind that the formulas know."""
    if engine is None:
        return PlanBuild("ik" if name == "ik-fork" else "upstream")

    kind = engine.capabilities.kind
    return PlanBuild("ik" if kind == "ik" else "upstream", engine.capabilities.build_number)


def devices_used(settings: Mapping[str, Value], rooms: Sequence[DeviceRoom]) -> tuple[DeviceRoom, ...]:
    """Return the devices that a start with these settings would use: those named, the main one, or all."""
    named = settings.get("memory.devices")
    if isinstance(named, tuple) and named:
        numbers = [int(match[0]) for name in named if (match := _NUMBER.search(str(name)))]
        return tuple(rooms[number] for number in numbers if number < len(rooms)) or tuple(rooms[: len(named)])

    if settings.get("memory.split") == "none":
        main = settings.get("memory.main_gpu", 0)
        return tuple(rooms[main : main + 1]) if isinstance(main, int) else tuple(rooms[:1])

    return tuple(rooms)


def measure_devices() -> tuple[DeviceRoom, ...]:
    """Return this machine's devices with what is free now; none where no driver tells. Blocks for up to a second."""
    from orchestrator.adapters.hardware.gpu_sources import open_gpus

    return tuple(
        DeviceRoom(reading.name, reading.total_mib, max(0, reading.total_mib - reading.used_mib))
        for reading in open_gpus(os.environ).read()
    )


def measure_host() -> HostRoom:
    """Return this machine's memory with what is available now."""
    found = {}
    with open("/proc/meminfo", encoding="ascii") as file:
        for line in file:
            name, _, kib = line.partition(":")
            found[name] = int(kib.split()[0]) >> 10

    return HostRoom(found["MemTotal"], found["MemAvailable"])


def speed_outlook(
    paths: Paths, geometry: Geometry, shape: PlanShape, build: PlanBuild, build_name: str, devices: Sequence[DeviceRoom]
) -> SpeedOutlook:
    """Return how fast a start would be, by what was measured on this machine and what bandwidths are known.

    :param build_name: as the engine tells it; empty for none that is installed
    """
    from orchestrator.adapters.hardware.machine import machine_name
    from orchestrator.adapters.store.speeds import SpeedStore

    room = devices[0] if len(devices) == 1 else None
    card = card_of_device(room.name, room.total_mib) if room is not None and room.total_mib else None
    store = SpeedStore(paths.speeds_file)
    host = store.host(machine_name())
    key = SpeedKey(build.kind, build_name, device_key([each.name for each in devices]), geometry.architecture,
                   geometry.tensor_types)  # fmt: skip
    note = f"measured on {host.when[:10]} with {host.threads} threads" if host is not None else ""
    ceilings = Ceilings(card.bandwidth_gb_s if card else None, host.gb_s if host is not None else None, note)
    return outlook_of(store.samples(), key, geometry, shape, build, ceilings)


def _bytes_of(path: object) -> int:
    """Return the bytes of the tensors in a file beside the model; nothing of one that cannot be read, which is said
    elsewhere."""
    headers = _headers(path)
    return sum(tensor.size_bytes for header in headers for tensor in header.tensors)


def _geometry_of(path: object) -> Geometry | None:
    headers = _headers(path)
    try:
        return geometry_of(headers) if headers else None
    except GeometryError:
        return None


def _headers(path: object) -> tuple[GgufHeader, ...]:
    try:
        return read_splits(path) if isinstance(path, str) else ()
    except OrchError:
        return ()
