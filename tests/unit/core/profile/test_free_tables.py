"""Variables for the engine and metadata of the model: what a profile may set, and what is refused with the reason."""

from __future__ import annotations

import pytest

from orchestrator.core.profile.reading import build_profile
from tests.unit.core.profile.test_reading import problems_of, profile_of, read


@pytest.mark.parametrize(
    "line",
    [
        "GGML_CUDA_ENABLE_UNIFIED_MEMORY = 1",
        "CUDA_VISIBLE_DEVICES = '0,1'",
        "GGML_VK_VISIBLE_DEVICES = ''",
        "HSA_OVERRIDE_GFX_VERSION = '11.0.0'",
        "ROCR_VISIBLE_DEVICES = '0'",
        "ZES_ENABLE_SYSMAN = 1",
        "UR_L0_ENABLE_RELAXED_ALLOCATION_LIMITS = 1",
        "ONEAPI_DEVICE_SELECTOR = 'level_zero:0'",
        "RADV_PERFTEST = 'cooperative_matrix'",
        "MESA_VK_DEVICE_SELECT = '1002:744c'",
        "AMD_VULKAN_ICD = 'RADV'",
        "VK_ICD_FILENAMES = '/usr/share/vulkan/icd.d/radeon_icd.json'",
        "OMP_NUM_THREADS = 8",
        "KMP_AFFINITY = 'granularity=fine,compact,1,0'",
        "GOMP_CPU_AFFINITY = '0-7'",
        "LLAMA_GRAPH_REUSE_DISABLE = 1",
    ],
)
def test_variables_of_drivers_ggml_and_threading_libraries_are_taken(line: str) -> None:
    name, _, value = line.partition(" = ")
    environment = profile_of(f"[environment]\n{line}").for_engine("upstream").environment
    assert environment == {name: value.strip("'")}


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("LLAMA_ARG_CTX_SIZE = 1", "`--ctx-size` is said by `context.size`"),
        ("LLAMA_ARG_N_GPU_LAYERS = 99", "`--n-gpu-layers` is said by `memory.gpu_layers`"),
        ("LLAMA_ARG_PORT = 1", "`--port` belongs to orch"),
        ("LLAMA_ARG_OF_TOMORROW = 1", "use the setting"),
        ("LD_PRELOAD = '/x.so'", "what code the engine loads"),
        ("LD_LIBRARY_PATH = '/x'", "what code the engine loads"),
        ("GGML_BACKEND_PATH = '/x.so'", "what code the engine loads"),
        ("CUDA_INJECTION64_PATH = '/x.so'", "what code the engine loads"),
        ("OMP_TOOL_LIBRARIES = '/x.so'", "what code the engine loads"),
        ("VK_LAYER_PATH = '/x'", "what code the engine loads"),
        ("PATH = '/x'", "not a variable of a driver"),
        ("HOME = '/x'", "not a variable of a driver"),
        ("HF_TOKEN = 'x'", "no place for a secret"),
        ("NVIDIA_API_KEY = 'x'", "no place for a secret"),
        ("GGML_NO_BACKTRACE = 0", "orch sets it itself"),
        ("NOTIFY_SOCKET = '/x'", "not a variable of a driver"),
        ("GGML_X = true", 'programs read `"1"` and `"0"`'),
        ("GGML_X = 1.5", "write the value in quotes"),
        ("GGML_X = ['1']", "expected a string or an integer"),
        ('GGML_X = "a\\nb"', "one line"),
        ("'GGML X' = 1", "letters, digits"),
    ],
)
def test_other_variables_are_refused_with_the_reason(line: str, reason: str) -> None:
    [problem] = problems_of(f"[environment]\n{line}")
    assert reason in problem


def test_the_environment_is_merged_by_name_from_parent_to_engine() -> None:
    parent, _ = read("schema = 1\nmodel = 'm'\n[environment]\nGGML_A = 1\nGGML_B = 1", "base")
    text = "schema = 1\nextends = 'base'\n[environment]\nGGML_B = 2\n[engine.ik-fork.environment]\nGGML_C = 3"
    child, problems = read(text)
    profile = build_profile([child, parent])
    assert problems == []
    assert profile is not None
    assert profile.for_engine("upstream").environment == {"GGML_A": "1", "GGML_B": "2"}
    assert profile.for_engine("ik-fork").environment == {"GGML_A": "1", "GGML_B": "2", "GGML_C": "3"}


def test_metadata_keeps_the_type_that_it_is_written_with() -> None:
    lines = '"a.context_length" = 524288\n"a.scale" = 0.5\n"a.add_bos" = true\n"a.name" = "x"'
    settings = profile_of(f"[override_kv]\n{lines}").settings
    assert settings == {
        "override_kv.a.context_length": 524288,
        "override_kv.a.scale": 0.5,
        "override_kv.a.add_bos": True,
        "override_kv.a.name": "x",
    }


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("a.context_length = 1", 'put the whole key into quotes: `"a.context_length" = ...`'),
        ("'a.b' = 'int:5'", "write `5`"),
        ("'a.b' = 'str:five'", 'write `"five"`'),
        ("'a.b' = 'a,b'", "without a comma"),
        ("'a.b' = [1]", "expected a number, a string or a boolean"),
        ("'a=b' = 1", "a key of the model's metadata"),
        (f"'a.b' = '{'x' * 128}'", "at most 127 bytes"),
    ],
)
def test_metadata_that_no_engine_reads_as_meant_is_refused(line: str, reason: str) -> None:
    [problem] = problems_of(f"[override_kv]\n{line}")
    assert reason in problem


@pytest.mark.parametrize("table", ["environment", "override_kv"])
def test_a_free_table_is_a_table(table: str) -> None:
    [problem] = problems_of(f"{table} = 1")
    assert "expected a table" in problem
