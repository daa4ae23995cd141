"""Divides a device's used memory between orch's engines and other processes. Pure."""

from __future__ import annotations

from collections.abc import Collection

from orchestrator.adapters.hardware.gpu import GpuReading


def engine_mib(
    reading: GpuReading, engines: Collection[int], alive: Collection[int], before_mib: int | None
) -> int | None:
    """Return the MiB that the engines hold of a device.

    As the driver says, where it tells about the engines' processes. In a container it tells about none, or about
    numbers that mean nothing here: then what is in use beyond what was before they started, which is wrong by what
    others have taken or given back since.

    :param engines: pids of the engines' processes; empty when none runs
    :param alive: those of the reading's pids that exist here
    :param before_mib: what was in use before they started; None where nobody knows
    :return: MiB, or None
    """
    if not engines:
        return 0

    if reading.processes is not None:
        held = [mib for pid, mib in reading.processes.items() if pid in engines]
        if held:
            return sum(held)

        if any(pid in alive for pid in reading.processes):
            return 0

    return None if before_mib is None else max(reading.used_mib - before_mib, 0)


def others_mib(reading: GpuReading, engine: int | None) -> int | None:
    """Return the MiB that other processes hold; the driver's own share, where it is known, belongs to nobody."""
    return None if engine is None else max(reading.used_mib - (reading.reserved_mib or 0) - engine, 0)
