"""The choice between starting a new engine beside the one that serves and in its place. Pure; sizes in MiB."""

from __future__ import annotations

from collections.abc import Sequence

from orchestrator.core.fleet.fleet_states import Strategy
from orchestrator.core.profile.profile import EngineProfile

DEVICE_OVERHEAD_MIB = 1536
"""CUDA context (450 to 700 MiB), compute buffers and growth at run time: what no file size tells."""

HOST_OVERHEAD_MIB = 1024
DEFAULT_MARGIN_MIB = 1024


def choose_strategy(
    profile: EngineProfile, model_mib: int, device_free_mib: Sequence[int], host_available_mib: int
) -> tuple[Strategy, str]:
    """Return the strategy of a switch, with the reason: side by side only when the whole new model fits as well.

    A model that is fitted into what is left would be placed differently from what its profile was made for, so a model
    larger than the free memory of one device is never started beside another.

    :param model_mib: size of the model's files
    :param device_free_mib: free memory of each device now; empty without devices
    """
    if device_free_mib:
        margin = profile.settings.get("memory.fit_margin", DEFAULT_MARGIN_MIB)
        margin_mib = max(margin) if isinstance(margin, tuple) else margin
        assert isinstance(margin_mib, int | float)
        need, free, where = model_mib + DEVICE_OVERHEAD_MIB + int(margin_mib), max(device_free_mib), "on the device"
    else:
        need, free, where = model_mib + HOST_OVERHEAD_MIB, host_available_mib, "in host memory"

    if need <= free:
        return "beside", f"{need} MiB needed, {free} MiB free {where}"

    return "replace", f"{need} MiB needed, only {free} MiB free {where}"
