"""The device memory of processes as the kernel's DRM drivers tell it in /proc/PID/fdinfo (amdgpu, i915, xe).

NVIDIA's driver tells nothing there. Each call looks at every descriptor of each process: once a question, not each
second for all processes.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass

from orchestrator.adapters.process.linux import read_proc
from orchestrator.core.vram.drm_usage import parse_client


@dataclass(frozen=True, slots=True)
class DrmMemory:
    """:ivar held: PCI address to pid to bytes
    :ivar unreadable: the processes that may not be looked at: other users'
    """

    held: dict[str, dict[int, int]]
    unreadable: tuple[int, ...]


def vram_by_device(proc: str, pids: Iterable[int]) -> DrmMemory:
    """Return what each process holds of each device.

    A client counts once, for the lowest pid that has it open, however often its descriptor was duplicated or given on.

    :raises OSError: when this process has run out of descriptors
    """
    found: dict[tuple[str, str], tuple[int, int]] = {}
    unreadable = []
    for pid in sorted(pids):
        directory = os.path.join(proc, str(pid), "fdinfo")
        try:
            names = sorted(os.listdir(directory))
        except PermissionError:
            unreadable.append(pid)
            continue
        except (FileNotFoundError, ProcessLookupError):  # the process is gone
            continue

        for name in names:
            if not _may_be_drm(os.path.join(proc, str(pid), "fd", name)):
                continue

            client = parse_client((read_proc(os.path.join(directory, name)) or b"").decode(errors="replace"))
            if client is not None:
                key = client.client_id or f"{pid}/{name}"  # before Linux 5.19 there is no telling
                found.setdefault((client.address, key), (pid, client.vram_bytes))

    held: dict[str, dict[int, int]] = {}
    for (address, _), (pid, size_bytes) in found.items():
        of_device = held.setdefault(address, {})
        of_device[pid] = of_device.get(pid, 0) + size_bytes

    return DrmMemory(held, tuple(unreadable))


def _may_be_drm(link: str) -> bool:
    """Return whether a descriptor leads to a device of DRM: to ask that is far quicker than to read its fdinfo."""
    try:
        return os.readlink(link).startswith("/dev/dri/")
    except OSError:  # closed meanwhile: reading it says so as well
        return True
