"""The environment of an engine process: an allowlist, because engines read what they are not told.

`LLAMA_ARG_*` overrides the command line in the fork; `GGML_*` switches back ends; `HF_TOKEN` is a secret; the service
manager's variables (`NOTIFY_SOCKET`, `LISTEN_FDS`, `WATCHDOG_PID`) are meant for the daemon alone.
"""

from __future__ import annotations

import posixpath
from collections.abc import Mapping

_ALLOWED = frozenset({
    "PATH", "HOME", "USER", "LOGNAME", "LANG", "LANGUAGE", "TZ", "TMPDIR",
    "CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER", "CUDA_HOME", "CUDA_PATH", "CUDA_CACHE_PATH",
    "GGML_VK_VISIBLE_DEVICES",
    # CUDA and ROCm are often installed outside ld.so.conf: without it such a build cannot start. It is as trusted as
    # the PATH that found the binary; LD_PRELOAD and LD_AUDIT, which put code into any program, are never passed.
    "LD_LIBRARY_PATH", "DYLD_FALLBACK_LIBRARY_PATH",
})  # fmt: skip

_ALLOWED_PREFIXES = ("LC_", "NVIDIA_", "HIP_", "ROCR_", "HSA_", "ONEAPI_", "ZE_", "VK_", "OMP_")

_SECRET_SUFFIXES = ("_KEY", "_TOKEN", "_SECRET", "_PASSWORD")
"""NVIDIA_API_KEY is a credential for a cloud service."""

_DEFAULTS = {
    # Device numbers mean the same to the engine as to NVML and nvidia-smi.
    "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
    "PATH": "/usr/local/bin:/usr/bin:/bin",
}

_FORCED = {
    # An abort would otherwise fork a debugger for the backtrace: a slow death that holds the device's memory.
    "GGML_NO_BACKTRACE": "1",
}


def child_environment(parent: Mapping[str, str], *, state_dir: str, extra: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of an engine process.

    :param parent: the environment to choose from, usually this process's
    :param state_dir: absolute; XDG_CONFIG_HOME points to `no-config` below it, which nobody fills (upstream since
        b10405 reads `llama.cpp/config.ini` there)
    :param extra: set by the user for this engine on purpose, so it wins over everything but what is forced
    """
    chosen = {name: value for name, value in parent.items() if _is_allowed(name)}
    return {
        **_DEFAULTS,
        **chosen,
        "XDG_CONFIG_HOME": posixpath.join(state_dir, "no-config"),
        **extra,
        **_FORCED,
    }


def _is_allowed(name: str) -> bool:
    return name in _ALLOWED or (name.startswith(_ALLOWED_PREFIXES) and not name.endswith(_SECRET_SUFFIXES))
