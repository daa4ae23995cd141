"""What a machine is called: processor, system, and NVIDIA's driver. Files of /proc, read at once."""

from __future__ import annotations

import contextlib
import platform

NVIDIA_VERSION = "/proc/driver/nvidia/version"


def processor_name() -> str:
    """Return the processor as it calls itself; its architecture where it does not."""
    with contextlib.suppress(OSError), open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
        for line in file:
            if line.startswith("model name"):
                return line.partition(":")[2].strip()

    return platform.machine()


def machine_name() -> str:
    """Return what tells this machine from others that may share a home: its name and its processor."""
    return f"{platform.node()}, {processor_name()}"


def driver_version() -> str | None:
    """Return what the NVIDIA driver says of itself; None without one."""
    with contextlib.suppress(OSError), open(NVIDIA_VERSION, encoding="utf-8") as file:
        return file.readline().strip()

    return None


def kernel_release() -> str:
    """Return name and release of the system, `Linux 6.8.0`."""
    return f"{platform.system()} {platform.release()}"
