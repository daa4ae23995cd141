"""A real NVIDIA device: what we read of it against `nvidia-smi`, and memory that a process takes."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from orchestrator.adapters.hardware.gpu import GpuReader, GpuReading
from orchestrator.adapters.hardware.gpu_nvml import Nvml
from tests.busy import in_time
from tests.support import PATIENCE_S, until

pytestmark = pytest.mark.gpu

TAKEN_MIB = 512
TAKE = f"""
import ctypes, sys
cuda = ctypes.CDLL("libcuda.so.1")
context, pointer = ctypes.c_void_p(), ctypes.c_void_p()
assert cuda.cuInit(0) == 0
assert cuda.cuDevicePrimaryCtxRetain(ctypes.byref(context), 0) == 0
assert cuda.cuCtxSetCurrent(context) == 0
assert cuda.cuMemAlloc_v2(ctypes.byref(pointer), ctypes.c_size_t({TAKEN_MIB} << 20)) == 0
print("taken", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def reader() -> GpuReader:
    reader = GpuReader((Nvml(),), max_age_s=0, patience_s=10.0)
    if not reader.read():
        pytest.skip("NVML shows no device: no NVIDIA driver on this machine, or none that it can reach")

    return reader


def smi(what: str) -> list[str]:
    if shutil.which("nvidia-smi") is None:
        pytest.skip("nvidia-smi is not installed")

    command = ["nvidia-smi", f"--query-gpu={what}", "--format=csv,noheader,nounits"]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=PATIENCE_S).stdout.split("\n")[
        :-1
    ]


def test_each_device_is_read_as_nvidia_smi_reads_it(reader: GpuReader) -> None:
    readings = reader.read()
    assert [each.uuid for each in readings] == smi("uuid")
    assert [each.name for each in readings] == smi("name")
    for reading, total in zip(readings, smi("memory.total"), strict=True):
        assert abs(reading.total_mib - int(total)) <= 1
        assert 0 <= reading.used_mib <= reading.total_mib
        check_plausible(reading)


def check_plausible(reading: GpuReading) -> None:
    assert reading.utilization is None or 0.0 <= reading.utilization <= 1.0
    assert reading.power_w is None or 1.0 < reading.power_w < 3000.0
    assert reading.temperature_c is None or 5.0 < reading.temperature_c < 120.0
    assert reading.sm_clock_mhz is None or 0 < reading.sm_clock_mhz < 10_000
    assert reading.pcie_rx_mib_s is None or 0.0 <= reading.pcie_rx_mib_s < 200_000.0
    assert reading.energy_j is None or reading.energy_j > 0.0


def test_a_reading_without_the_slow_figures_is_quick(reader: GpuReader) -> None:
    reader.read()
    began = time.monotonic()
    reader.read()
    assert in_time(time.monotonic() - began, 0.5)


@pytest.fixture
def process() -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-c", TAKE], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        yield process
    finally:
        process.communicate(timeout=PATIENCE_S)


def test_memory_that_a_process_takes_is_seen_on_its_device_and_given_back(
    reader: GpuReader, process: subprocess.Popen[str]
) -> None:
    assert process.stdout is not None
    before = reader.read()[0].used_mib
    if process.stdout.readline() != "taken\n":
        pytest.skip("CUDA does not let a process take memory here")

    def taken() -> GpuReading | None:
        reading = reader.read()[0]
        return reading if reading.used_mib >= before + TAKEN_MIB - 16 else None

    reading = until(taken, "the memory is seen")
    held = (reading.processes or {}).get(process.pid)  # a container shows other numbers, or none
    assert held is None or held >= TAKEN_MIB
    process.communicate(timeout=PATIENCE_S)
    until(lambda: reader.read()[0].used_mib < before + TAKEN_MIB // 2, "the memory is given back")
