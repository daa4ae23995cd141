"""The choice between starting a new engine beside the one that serves and in its place. Pure; sizes in MiB."""

from __future__ import annotations

from collections.abc import Sequence

from orchestrator.core.fleet.resident_states import Strategy
from orchestrator.core.profile.profile import EngineProfile

DEVICE_OVERHEAD_MIB = 1536
"""CUDA context (450 to 700 MiB), compute buffers and growth at run time: what no file size tells, without a plan."""

HOST_OVERHEAD_MIB = 1024
DEFAULT_MARGIN_MIB = 1024


def choose_strategy(
    profile: EngineProfile,
    model_mib: int,
    device_free_mib: Sequence[int],
    host_available_mib: int,
    *,
    planned_device_mib: int | None = None,
    planned_host_mib: int | None = None,
) -> tuple[Strategy, str]:
    """Return the strategy of a switch, with the reason: side by side only when the whole new model fits as well.

    A model that is fitted into what is left would be placed differently from what its profile was made for, so a model
    larger than the free memory of one device is never started beside another.

    :param model_mib: size of the model's files
    :param device_free_mib: free memory of each device now; empty without devices
    :param planned_device_mib: what the plan has it need at most on devices, all of it on them; None without a plan
    :param planned_host_mib: likewise in host memory, without what requests fill later
    """
    if device_free_mib:
        margin = profile.settings.get("memory.fit_margin", DEFAULT_MARGIN_MIB)
        margin_mib = max(margin) if isinstance(margin, tuple) else margin
        assert isinstance(margin_mib, int | float)
        takes_mib = model_mib + DEVICE_OVERHEAD_MIB if planned_device_mib is None else planned_device_mib
        need, free, where = takes_mib + int(margin_mib), max(device_free_mib), "on the device"
    else:
        takes_mib = model_mib if planned_host_mib is None else planned_host_mib
        need, free, where = takes_mib + HOST_OVERHEAD_MIB, host_available_mib, "in host memory"

    if need <= free:
        return "beside", f"{need} MiB needed, {free} MiB free {where}"

    return "replace", f"{need} MiB needed, only {free} MiB free {where}"
