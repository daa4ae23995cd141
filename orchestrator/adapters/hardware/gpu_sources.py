"""The choice of sources: the drivers of this machine, or a recording."""

from __future__ import annotations

from collections.abc import Mapping

from orchestrator.adapters.hardware.gpu import GpuReader
from orchestrator.adapters.hardware.gpu_amd import AmdSysfs
from orchestrator.adapters.hardware.gpu_nvml import Nvml
from orchestrator.adapters.hardware.gpu_replay import VARIABLE, Replay


def open_gpus(environ: Mapping[str, str], patience_s: float = 1.0) -> GpuReader:
    """Return the reader of this machine's devices, or of a recording.

    :param patience_s: how long a caller waits for the drivers
    :raises UsageError: when a recording was asked for that cannot be read
    """
    path = environ.get(VARIABLE)
    if path:
        return GpuReader((Replay(path),), patience_s=patience_s)

    return GpuReader((Nvml(), AmdSysfs()), patience_s=patience_s)
