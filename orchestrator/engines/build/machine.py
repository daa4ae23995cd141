"""The tools, devices, cores and memory that this machine offers to a build. Reads only; starts one program at most."""

from __future__ import annotations

import glob
import os
import shutil
import sys

from orchestrator.adapters.hardware.host import available_memory_bytes
from orchestrator.adapters.hardware.nvidia_driver import compute_capabilities
from orchestrator.core.setup.build_plan import Backend, BuildHost

_PROGRAMS: dict[str, tuple[str, ...]] = {
    "cmake": ("cmake",),
    "ninja": ("ninja", "ninja-build"),
    "cc": ("cc", "gcc", "clang"),
    "c++": ("c++", "g++", "clang++"),
    "nvcc": ("nvcc", "/usr/local/cuda/bin/nvcc", "/opt/cuda/bin/nvcc"),
    "hipcc": ("hipcc", "/opt/rocm/bin/hipcc"),
    "glslc": ("glslc",),
    "ccache": ("ccache", "sccache"),
}
"""Toolkits are often installed beside PATH."""

_VULKAN_HEADERS = ("/usr/include/vulkan/vulkan.hpp", "/usr/local/include/vulkan/vulkan.hpp")


def read_build_host() -> BuildHost:
    """Return what the machine has now."""
    programs = {}
    for name, candidates in _PROGRAMS.items():
        found = next(filter(None, map(shutil.which, candidates)), None)
        if found is not None:
            programs[name] = found

    headers = next(filter(os.path.exists, _vulkan_headers()), None)
    if headers is not None:
        programs["vulkan headers"] = os.path.dirname(headers)

    nvidia = bool(glob.glob("/dev/nvidia[0-9]*") or os.path.exists("/dev/dxg") and _cuda_library())
    return BuildHost(
        cores=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        memory_mib=available_memory_bytes() >> 20,
        programs=programs,
        devices=_devices(nvidia),
        cuda_architectures=_cuda_architectures() if nvidia else (),
        apple=sys.platform == "darwin",
    )


def _vulkan_headers() -> tuple[str, ...]:
    sdk = os.environ.get("VULKAN_SDK")
    return (*((os.path.join(sdk, "include/vulkan/vulkan.hpp"),) if sdk else ()), *_VULKAN_HEADERS)


def _devices(nvidia: bool) -> frozenset[Backend]:
    found: set[Backend] = set()
    if nvidia:
        found.add("cuda")

    if os.path.exists("/dev/kfd"):
        found.add("rocm")

    if sys.platform == "darwin":
        found.add("metal")

    # A render node alone may be a display adapter without Vulkan: it counts where somebody installed the shader
    # compiler, and is no reason to refuse a build for the processor.
    if glob.glob("/dev/dri/renderD*") and shutil.which("glslc") and any(map(os.path.exists, _vulkan_headers())):
        found.add("vulkan")

    return frozenset(found)


def _cuda_library() -> bool:
    return os.path.exists("/usr/lib/wsl/lib/libcuda.so.1")


def _cuda_architectures() -> tuple[str, ...]:
    """The compute capabilities as cmake writes them; none when the driver does not answer (cmake then asks nvcc)."""
    return tuple(f"{major}{minor}" for major, minor in compute_capabilities())
