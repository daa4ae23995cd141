"""The plan of a build: the back end with the reason for it, cmake's definitions, the number of jobs.

Facts about the machine come in, nothing is looked up here. Packages are named as Debian and Ubuntu name them.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from orchestrator.core.dialect.capabilities import Kind
from orchestrator.core.errors import OrchError

Backend = Literal["cuda", "rocm", "metal", "vulkan", "cpu"]

BACKENDS: tuple[Backend, ...] = ("cuda", "rocm", "metal", "vulkan", "cpu")
"""Fastest first, where a machine could use several."""

SERVER = "llama-server"

TOOLS = ("llama-bench", "llama-fit-params", "ggml-rpc-server", "rpc-server")
"""Programs installed beside the server by those sources that have them; `rpc-server` is the older name."""

JOB_MIB = 1536
"""Memory that one compiler needs at worst, MiB."""

_ALWAYS = {"cmake": "cmake", "ninja": "ninja-build", "cc": "build-essential", "c++": "build-essential"}
_NEEDED: Mapping[Backend, Mapping[str, str]] = {
    "cuda": {"nvcc": "nvidia-cuda-toolkit"},
    "rocm": {"hipcc": "hipcc libhipblas-dev librocblas-dev"},
    "metal": {},
    "vulkan": {"glslc": "glslc", "vulkan headers": "libvulkan-dev"},
    "cpu": {},
}
_DEVICE = {
    "cuda": "an NVIDIA card",
    "rocm": "an AMD card",
    "metal": "Apple's GPU",
    "vulkan": "a GPU with a render node",
    "cpu": "the processor",
}
_DEFINITIONS: Mapping[Kind, Mapping[Backend, str]] = {
    "upstream": {"cuda": "GGML_CUDA", "rocm": "GGML_HIP", "metal": "GGML_METAL", "vulkan": "GGML_VULKAN"},
    "ik": {"cuda": "GGML_CUDA", "rocm": "GGML_HIPBLAS", "metal": "GGML_METAL", "vulkan": "GGML_VULKAN"},
}

# What would be fetched during the build, or would make the server depend on libraries that orch does not need: it
# starts engines with local files, on loopback. A tree that does not know one of these only warns.
_OFFLINE: Mapping[Kind, Mapping[str, str]] = {
    "upstream": {
        "LLAMA_BUILD_UI": "OFF",
        "LLAMA_BUILD_WEBUI": "OFF",
        "LLAMA_USE_PREBUILT_UI": "OFF",
        "LLAMA_CURL": "OFF",
        "LLAMA_OPENSSL": "OFF",
        "LLAMA_BUILD_EXAMPLES": "OFF",
    },
    "ik": {
        "LLAMA_CURL": "OFF",
        "LLAMA_SERVER_SSL": "OFF",
        "LLAMA_SERVER_SQLITE3": "OFF",
        # gcc 12 prints a quarter of a million lines of warnings for the fork's kernels, and hides an error in them.
        "LLAMA_ALL_WARNINGS": "OFF",
        "GGML_ALL_WARNINGS": "OFF",
    },
}

_LABEL_CHARACTERS = re.compile(r"[^A-Za-z0-9.]+")


@dataclass(frozen=True, slots=True)
class BuildHost:
    """The tools, devices, cores and memory that a build can use.

    :param programs: name to path of those found, of `cmake`, `ninja`, `cc`, `c++`, `nvcc`, `hipcc`, `glslc`,
        `ccache`; `vulkan headers` stands for the directory that has them
    :param devices: back ends that the machine has a device for; the processor is always there
    :param cuda_architectures: compute capabilities without the dot, `86`
    """

    cores: int
    memory_mib: int
    programs: Mapping[str, str]
    devices: frozenset[Backend] = frozenset()
    cuda_architectures: tuple[str, ...] = ()
    apple: bool = False


@dataclass(frozen=True, slots=True)
class Choice:
    """A back end, and the reasons for it."""

    backend: Backend
    reasons: tuple[str, ...] = field(default=())


def choose_backend(machine: BuildHost, wanted: Backend | None = None) -> Choice:
    """Return the back end to build for: the fastest that the machine has both a device and the tools for.

    :raises OrchError: when tools are missing, with the packages that bring them. A card without its toolkit is such a
        case: half an hour of compiling for the processor alone is not what its owner wants.
    """
    _refuse_missing("the build needs tools that are not installed", _missing(machine, _ALWAYS))
    if wanted is not None:
        needed = _missing(machine, _NEEDED[wanted])
        if wanted == "metal" and not machine.apple:
            raise OrchError("Metal exists on Apple's systems alone", hint="choose another --backend")

        _refuse_missing(f"a build for {wanted} needs tools that are not installed", needed)
        return Choice(wanted, (f"{wanted}: asked for",))

    reasons: list[str] = []
    unusable: dict[str, str] = {}
    for backend in BACKENDS:
        if backend != "cpu" and backend not in machine.devices:
            continue

        missing = _missing(machine, _NEEDED[backend])
        if missing:
            reasons.append(f"{backend}: there is {_DEVICE[backend]}, but no {', '.join(missing)}")
            unusable.update(missing)
        elif backend == "cpu" and unusable:
            break
        else:
            reasons.append(f"{backend}: there is {_DEVICE[backend]}")
            return Choice(backend, tuple(reasons))

    raise OrchError(
        "there is a GPU, and the tools to build for it are not installed",
        details=tuple(reasons),
        hint=f"run `{_apt_command(unusable)}`, or build with `--backend cpu`",
    )


def cmake_definitions(kind: Kind, backend: Backend, machine: BuildHost) -> dict[str, str]:
    """Return the definitions for cmake's `-D`, apart from directories."""
    definitions = {
        "CMAKE_BUILD_TYPE": "Release",
        "BUILD_SHARED_LIBS": "ON",
        # Programs find the libraries beside them, in the build tree and where they are installed.
        "CMAKE_BUILD_WITH_INSTALL_RPATH": "ON",
        "CMAKE_INSTALL_RPATH": "@loader_path" if machine.apple else "$ORIGIN",
        "GGML_NATIVE": "ON",
        "GGML_RPC": "ON",
        "GGML_CCACHE": "ON" if "ccache" in machine.programs else "OFF",
        "LLAMA_BUILD_TESTS": "OFF",
        **_OFFLINE[kind],
    }
    own = _DEFINITIONS[kind]
    for other, name in own.items():
        if other == backend:
            definitions[name] = "ON"
        elif other == "metal" and machine.apple:
            definitions[name] = "OFF"  # on by default there

    if backend == "cuda":
        definitions["CMAKE_CUDA_COMPILER"] = machine.programs["nvcc"]
        if machine.cuda_architectures:
            definitions["CMAKE_CUDA_ARCHITECTURES"] = ";".join(f"{each}-real" for each in machine.cuda_architectures)

    return definitions


def default_jobs(cores: int, memory_mib: int) -> int:
    """Return how many compilers run at once: as many as there are cores and memory for."""
    return max(1, min(cores, memory_mib // JOB_MIB))


def build_id(label: str, backend: Backend, source_digest: str, definitions: Mapping[str, str]) -> str:
    """Return the name of an installed build, also its directory's: the same source built the same way has the same."""
    content = json.dumps([source_digest, sorted(definitions.items())])
    word = _LABEL_CHARACTERS.sub("-", label).strip("-.") or "build"
    return f"{word}-{backend}-{hashlib.sha256(content.encode()).hexdigest()[:8]}"


def wanted_targets(available: Sequence[str]) -> tuple[str, ...]:
    """Return the targets to build, of those that a configured tree has.

    :raises OrchError: when there is no server among them
    """
    if SERVER not in available:
        raise OrchError(
            f"this source has no target `{SERVER}`",
            details=("its version is too old, or too new for this orch",),
            hint="choose another commit",
        )

    return (SERVER, *(tool for tool in TOOLS if tool in available))


def _missing(machine: BuildHost, needed: Mapping[str, str]) -> dict[str, str]:
    return {tool: package for tool, package in needed.items() if tool not in machine.programs}


def _refuse_missing(message: str, missing: Mapping[str, str]) -> None:
    if missing:
        raise OrchError(
            message,
            details=(f"not found: {', '.join(missing)}",),
            hint=f"run `{_apt_command(missing)}` (Debian, Ubuntu)",
        )


def _apt_command(missing: Mapping[str, str]) -> str:
    return f"sudo apt install {' '.join(dict.fromkeys(missing.values()))}"
