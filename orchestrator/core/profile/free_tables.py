"""The two tables of a profile whose keys are not orch's: variables for the engine, and metadata of the model.

Their values are settings as all others (`environment.GGML_CUDA_ENABLE_UNIFIED_MEMORY`): merged key by key by `extends`,
and laid over by `[engine.ID.environment]`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType

from orchestrator.core.profile.settings import Value

ENVIRONMENT = "environment"
OVERRIDE_KV = "override_kv"

FREE_TABLES: Mapping[str, str] = MappingProxyType({
    ENVIRONMENT: "variables for the engine's process; the names that drivers and ggml read, no others",
    OVERRIDE_KV: "metadata of the model that the engine takes instead of the file's",
})  # fmt: skip
"""Name to what it holds, for people."""

VARIABLE_PREFIXES = (
    "GGML_", "CUDA_", "CUBLAS_", "CUDNN_", "NVIDIA_", "NCCL_", "NVK_",
    "HIP_", "HIPBLASLT_", "ROCR_", "ROCM_", "ROCBLAS_", "ROCPROFILER_", "HSA_", "AMD_", "AMDGPU_", "GPU_", "MIOPEN_",
    "TENSILE_", "RCCL_",
    "SYCL_", "ONEAPI_", "ZE_", "ZES_", "ZET_", "UR_", "PI_", "NEO_", "INTEL_", "IGC_", "DNNL_", "ONEDNN_", "MKL_",
    "VK_", "RADV_", "ANV_", "MESA_", "AMDVLK_", "OCL_", "OPENCL_", "POCL_", "RUSTICL_",
    "OMP_", "KMP_", "GOMP_", "OPENBLAS_", "BLIS_", "VECLIB_", "MALLOC_", "MIMALLOC_",
)  # fmt: skip

VARIABLES = ("DRI_PRIME", "LLAMA_GRAPH_REUSE_DISABLE", "LLAMA_SET_ROWS", "LLAMA_TRACE")
"""Names beside the prefixes: the choice of a device in Mesa, and what upstream reads that no flag says."""

_LOADS_CODE = re.compile(
    r"GGML_BACKEND_(PATH|DIR)|CUDA_INJECTION(32|64)_PATH|NVIDIA_INJECTION\w*|HSA_TOOLS_\w+|ROCPROFILER_\w*LIB\w*"
    r"|ROCP_\w+|OMP_TOOL\w*|VK_(ADD_)?(IMPLICIT_)?LAYER_PATH|VK_INSTANCE_LAYERS|VK_LOADER_LAYERS_\w+"
    r"|(NCCL|RCCL)_\w*PLUGIN\w*|UR_ADAPTERS_\w+|ZE_\w*(LIB|PATH)\w*|OCL_ICD_\w+|OPENCL_\w*(LIB|LAYERS|PATH)\w*"
)
_ORCHS_OWN = ("GGML_NO_BACKTRACE",)
_SECRET = re.compile(r".*_(KEY|TOKEN|SECRET|PASSWORD)")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,126}")

_UNKNOWN_VARIABLE = "not a variable of a driver, of ggml or of a threading library"

_MAX_VARIABLE = 4096
"""Characters: a variable of a driver is a word, a number or a path."""

_MAX_METADATA = 127
"""Bytes of a key and of a text that both engines keep (`llama_model_kv_override`)."""

_METADATA_KEY = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
_TYPED = re.compile(r"(int|float|bool|str):(.*)", re.DOTALL)


def refuse_variable(name: str) -> str | None:
    """Return the reason why a profile may not set this variable; None when it may."""
    if _NAME.fullmatch(name) is None:
        return "a variable's name has letters, digits and `_`"

    if name in _ORCHS_OWN:
        return "orch sets it itself"

    if name.startswith("LLAMA_ARG_"):
        return "it says what a flag says, behind the profile's back: use the setting"

    if name.startswith(("LD_", "DYLD_")) or _LOADS_CODE.fullmatch(name):
        return "it decides what code the engine loads: set it for the daemon, if at all"

    if _SECRET.fullmatch(name):
        return "a profile is no place for a secret, and an engine needs none"

    if name in VARIABLES or name.startswith(VARIABLE_PREFIXES):
        return None

    return _UNKNOWN_VARIABLE


def read_variable(name: str, raw: object) -> tuple[str | None, str | None, str | None]:
    """Return the text of a variable; or None with what is wrong, and perhaps a hint."""
    reason = refuse_variable(name)
    if reason is not None:
        prefixes = "allowed are names that begin with " + ", ".join(VARIABLE_PREFIXES)
        return None, reason, prefixes if reason == _UNKNOWN_VARIABLE else None

    if isinstance(raw, bool):
        return None, "expected a string or an integer, found a boolean", 'programs read `"1"` and `"0"`'

    if isinstance(raw, int):
        return str(raw), None, None

    if not isinstance(raw, str):
        return None, "expected a string or an integer", "write the value in quotes"

    if "\0" in raw or "\n" in raw or len(raw) > _MAX_VARIABLE:
        return None, f"expected one line of at most {_MAX_VARIABLE} characters", None

    return raw, None, None


def read_metadata(key: str, raw: object) -> tuple[Value | None, str | None, str | None]:
    """Return the value of a metadata key; or None with what is wrong, and perhaps a hint."""
    if _METADATA_KEY.fullmatch(key) is None or len(key) > _MAX_METADATA:
        return None, f"expected a key of the model's metadata, at most {_MAX_METADATA} characters", None

    if isinstance(raw, dict):
        hint = f'put the whole key into quotes: `"{key}.{next(iter(raw), "")}" = ...`'
        return None, "expected a number, a string or a boolean, found a table", hint

    if isinstance(raw, str):
        typed = _TYPED.fullmatch(raw)
        if typed is not None:
            shown = typed[2] if typed[1] != "str" else f'"{typed[2]}"'
            return None, f"the type is not written here, found `{raw[:60]}`", f"write `{shown}`"

        # A list of overrides is one argument with commas in between, and `"` groups there.
        if len(raw.encode()) > _MAX_METADATA or any(char in raw for char in '\0\n,"'):
            return None, f'expected at most {_MAX_METADATA} bytes without a comma, a `"` or a line break', None

        return raw, None, None

    if isinstance(raw, bool | int | float):
        return raw, None, None

    return None, "expected a number, a string or a boolean", None


def free_values(settings: Mapping[str, Value], table: str) -> dict[str, Value]:
    """Return what the settings say in one of these tables, by key."""
    prefix = f"{table}."
    return {path.removeprefix(prefix): value for path, value in settings.items() if path.startswith(prefix)}
