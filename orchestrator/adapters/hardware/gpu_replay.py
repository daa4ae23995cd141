"""Devices from a file of recorded samples, so that everything that shows devices runs on a machine without one.

`ORCH_GPU_REPLAY=FILE orch serve` reads no driver. The file is JSON:

    {
      "every_s": 1.0,
      "samples": [
        [
          {"index": 0, "name": "NVIDIA GeForce RTX 3060", "used_mib": 11000, "total_mib": 12288,
           "processes": {"engine": 10500, "4242": 300}, "utilization": 0.97, "throttle": ["power_cap"]}
        ]
      ]
    }

A sample is the list of devices at one moment; fields and units are those of `gpu.GpuReading`. One is shown for
`every_s` seconds, and after the last comes the first. An empty sample: every device is lost. The pid `engine` is
whatever engine runs; without one its memory is free.
"""

from __future__ import annotations

from collections.abc import Collection
from time import monotonic
from typing import Literal

import msgspec

from orchestrator.adapters.hardware.gpu import GpuReading
from orchestrator.core.errors import UsageError

VARIABLE = "ORCH_GPU_REPLAY"
ENGINE = "engine"
_HINT = (
    f"the format is described in orchestrator/adapters/hardware/gpu_replay.py; without {VARIABLE} the drivers are read"
)


class Device(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """One device of a sample, as in the file."""

    index: int
    name: str
    used_mib: int
    total_mib: int
    uuid: str = ""
    vendor: Literal["nvidia", "amd"] = "nvidia"
    processes: dict[str, int] | None = None
    utilization: float | None = None
    power_w: float | None = None
    power_limit_w: float | None = None
    temperature_c: float | None = None
    sm_clock_mhz: int | None = None
    memory_clock_mhz: int | None = None
    throttle: tuple[str, ...] = ()
    pcie_rx_mib_s: float | None = None
    pcie_tx_mib_s: float | None = None
    energy_j: float | None = None
    reserved_mib: int | None = None
    pci_address: str = ""


class Recording(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """The whole file: samples, each shown for `every_s`."""

    samples: tuple[tuple[Device, ...], ...]
    every_s: float = 1.0


class Replay:
    """A recording as a source.

    :raises UsageError: when the file cannot be read, or is no recording
    """

    def __init__(self, path: str) -> None:
        self._recording = _load(path)
        self._began = monotonic()

    def query(self, pids: Collection[int]) -> tuple[GpuReading, ...]:
        samples, every_s = self._recording.samples, self._recording.every_s
        return tuple(
            _reading(each, pids) for each in samples[int((monotonic() - self._began) / every_s) % len(samples)]
        )


def _reading(device: Device, pids: Collection[int]) -> GpuReading:
    fields = msgspec.structs.asdict(device)
    if device.processes is not None:
        held = dict(device.processes)
        engine_mib = held.pop(ENGINE, None)
        processes = {int(pid): mib for pid, mib in held.items()}
        if engine_mib is not None:
            if pids:
                processes[min(pids)] = engine_mib
            else:
                fields["used_mib"] = max(device.used_mib - engine_mib, 0)

        fields["processes"] = processes

    return GpuReading(**fields)


def _load(path: str) -> Recording:
    try:
        with open(path, "rb") as file:
            recording = msgspec.json.decode(file.read(), type=Recording)
    except OSError as error:
        raise UsageError(f"cannot read the recording of {VARIABLE}: {path}", details=(str(error),)) from error
    except msgspec.DecodeError as error:
        raise UsageError(f"{VARIABLE}: {path} is no recording", details=(str(error),), hint=_HINT) from error

    if not recording.samples or recording.every_s <= 0:
        details = (f"{len(recording.samples)} samples, every_s {recording.every_s:g}; allowed: 1 or more, above 0",)
        raise UsageError(f"{VARIABLE}: {path} has nothing to show", details=details, hint=_HINT)

    for sample in recording.samples:
        for device in sample:
            for pid in device.processes or ():
                if pid != ENGINE and not (pid.isascii() and pid.isdecimal()):
                    details = (f"processes of device {device.index}: `{pid}`; allowed: a number, or `{ENGINE}`",)
                    raise UsageError(f"{VARIABLE}: {path} has a wrong process id", details=details, hint=_HINT)

    return recording
