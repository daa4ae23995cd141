"""The places where memory is: the host, and each device under one name, whatever a profile or an engine calls it. Pure.

A device that orch reads itself is `gpu0`, by its index there. A remote one is `rpc HOST:PORT`: which of them an engine
calls `RPC0` depends on its profile. Any other is what the engine calls it, `Vulkan0`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from orchestrator.core.profile.profile import EngineProfile

HOST_PLACE = "host"
_DEVICE = re.compile(r"(?P<backend>[A-Za-z]+)(?P<number>\d+)")
_NO_DEVICE = ("CPU", "none")


def place_of_device(name: str, profile: EngineProfile, read: int) -> str:
    """Return the place of a device that an engine calls by this name, without an address.

    :param read: how many devices orch reads
    """
    found = _DEVICE.fullmatch(name)
    if found is None:
        return name

    number, remote = int(found["number"]), _remote(profile)
    if found["backend"] == "RPC":
        return f"rpc {remote[number]}" if number < len(remote) else name

    return gpu_place(number) if number < read else name


def gpu_place(index: int) -> str:
    """Return the place of a device that orch reads."""
    return f"gpu{index}"


def is_remote(place: str) -> bool:
    return place.startswith("rpc ")


def places_of(profile: EngineProfile, read: int) -> tuple[str, ...]:
    """Return the places of the devices that an engine will use, in the order of a plan; empty where that is not known.

    :param read: how many devices orch reads
    """
    named = profile.settings.get("memory.devices")
    if isinstance(named, tuple) and named:
        return tuple(place_of_device(str(name), profile, read) for name in named if name not in _NO_DEVICE)

    if profile.settings.get("memory.split") == "none" and read:
        main = profile.settings.get("memory.main_gpu", 0)
        return (gpu_place(main if isinstance(main, int) and main < read else 0),)

    return (*map(gpu_place, range(read)), *(f"rpc {address}" for address in _remote(profile)))


def _remote(profile: EngineProfile) -> Sequence[str]:
    remote = profile.settings.get("memory.rpc")
    return tuple(map(str, remote)) if isinstance(remote, tuple) else ()
