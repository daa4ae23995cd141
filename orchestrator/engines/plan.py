"""Gathers what a plan is made of: headers of a profile's files, the build, and the room on devices and host."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence

from orchestrator.adapters.gguf.reader import GgufHeader
from orchestrator.adapters.gguf.splits import read_splits
from orchestrator.core.errors import OrchError
from orchestrator.core.plan.geometry import Geometry, GeometryError, geometry_of
from orchestrator.core.plan.need import PlanBuild
from orchestrator.core.plan.plan import DeviceRoom, HostRoom, PlanSubject
from orchestrator.core.plan.shape import shape_of
from orchestrator.core.profile.profile import EngineProfile
from orchestrator.core.profile.settings import Value
from orchestrator.engines.registry import Engine

_NUMBER = re.compile(r"\d+$")


def gather(profile: EngineProfile, engine: Engine | None, parts: Sequence[GgufHeader]) -> PlanSubject:
    """Return what is to be planned.

    :param engine: None where none is installed: its kind is taken from the profile's name of it, its build as current
    :param parts: headers of every file of the model
    :raises GeometryError: when the header does not say enough
    """
    build = build_of(engine, profile.engine)
    geometry = geometry_of(parts)
    settings = profile.settings
    projector = _bytes_of(settings.get("multimodal.mmproj"))
    drafter = settings.get("speculative.draft_model")
    return PlanSubject(
        geometry,
        shape_of(settings, build.kind, geometry),
        build,
        projector_bytes=projector,
        projector_on_host=settings.get("multimodal.offload") is False,
        drafter=_geometry_of(drafter),
        drafter_bytes=_bytes_of(drafter),
    )


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
