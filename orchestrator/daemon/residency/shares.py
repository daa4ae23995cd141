"""Whose device memory it is: each profile's share of each device, for those who look. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from orchestrator.adapters.hardware.gpu import GpuReading
from orchestrator.core.residency.places import gpu_place
from orchestrator.daemon.fleet.engine_run import EngineRun
from orchestrator.daemon.residency.memory_looks import told_mib


def device_shares(runs: Iterable[EngineRun], readings: Sequence[GpuReading]) -> dict[int, dict[str, int]]:
    """Return MiB by profile, by the device's index; a profile of which nobody tells is not in it.

    As the driver says by process, else as the engine said when it had loaded.
    """
    shares: dict[int, dict[str, int]] = {each.index: {} for each in readings}
    for run in runs:
        told = told_mib(run, len(readings))
        by_driver = [each for each in readings if run.child is not None and run.child.pid in (each.processes or {})]
        for each in readings:
            if by_driver:
                mib = (each.processes or {}).get(run.child.pid, 0) if run.child is not None else 0
            else:
                mib = told.get(gpu_place(each.index), 0)

            if mib:
                own = shares[each.index]
                profile = run.launch.target.profile
                own[profile] = own.get(profile, 0) + mib

    return shares
