"""The places where memory is: the host, and each device under one name, whatever a profile or an engine calls it. Pure.

A device that orch reads itself is `gpu0`, by its index there. A remote one is `rpc HOST:PORT`: which of them an engine
calls `RPC0` depends on its profile. Any other is what the engine calls it, `Vulkan0`.

Variables that hide devices from an engine (`CUDA_VISIBLE_DEVICES=1`) make its first one another than orch's.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from orchestrator.core.profile.profile import EngineProfile

HOST_PLACE = "host"
_DEVICE = re.compile(r"(?P<backend>[A-Za-z]+)(?P<number>\d+)")
_NO_DEVICE = ("CPU", "none")
_HIDING = {
    "CUDA": ("CUDA_VISIBLE_DEVICES",),
    "ROCm": ("HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES", "CUDA_VISIBLE_DEVICES"),
    "Vulkan": ("GGML_VK_VISIBLE_DEVICES",),
}
"""By back end, the first that is set counts."""


def place_of_device(name: str, profile: EngineProfile, read: int, environment: Mapping[str, str] | None = None) -> str:
    """Return the place of a device that an engine calls by this name, without an address.

    :param read: how many devices orch reads
    :param environment: of the engine; by default what the profile sets
    """
    found = _DEVICE.fullmatch(name)
    if found is None:
        return name

    number, remote = int(found["number"]), _remote(profile)
    if found["backend"] == "RPC":
        return f"rpc {remote[number]}" if number < len(remote) else name

    shown = _shown(found["backend"], read, profile.environment if environment is None else environment)
    return gpu_place(shown[number]) if number < len(shown) else name


def gpu_place(index: int) -> str:
    """Return the place of a device that orch reads."""
    return f"gpu{index}"


def is_remote(place: str) -> bool:
    return place.startswith("rpc ")


def places_of(profile: EngineProfile, read: int, environment: Mapping[str, str] | None = None) -> tuple[str, ...]:
    """Return the places of the devices that an engine will use, in the order of a plan; empty where that is not known.

    :param read: how many devices orch reads
    :param environment: of the engine; by default what the profile sets
    """
    environment = profile.environment if environment is None else environment
    named = profile.settings.get("memory.devices")
    if isinstance(named, tuple) and named:
        return tuple(place_of_device(str(name), profile, read, environment) for name in named if name not in _NO_DEVICE)

    shown = _shown("CUDA", read, environment)
    if profile.settings.get("memory.split") == "none" and shown:
        main = profile.settings.get("memory.main_gpu", 0)
        return (gpu_place(shown[main if isinstance(main, int) and main < len(shown) else 0]),)

    return (*map(gpu_place, shown), *(f"rpc {address}" for address in _remote(profile)))


def _shown(backend: str, read: int, environment: Mapping[str, str]) -> Sequence[int]:
    """Return the devices that orch reads and an engine's back end sees, in its order."""
    said = next((environment[name] for name in _HIDING.get(backend, ()) if environment.get(name)), None)
    if said is None or not re.fullmatch(r"\d+(,\d+)*", said):  # all, or by names that orch does not compare
        return range(read)

    return [index for index in map(int, said.split(",")) if index < read]


def _remote(profile: EngineProfile) -> Sequence[str]:
    remote = profile.settings.get("memory.rpc")
    return tuple(map(str, remote)) if isinstance(remote, tuple) else ()
