"""Buffers by place and component, from the lines of real starts of both engines."""

from __future__ import annotations

import pytest

from orchestrator.core.engine_log.activity import EngineActivity, add_records
from orchestrator.core.engine_log.loaded_memory import HOST, place_of
from orchestrator.core.engine_log.parser import parse_log
from tests.support import FIXTURES

MIB = 1 << 20

UPSTREAM_WITH_MTP = """\
0.01.954.260 I load_tensors:   CPU_Mapped model buffer size =   497.31 MiB
0.01.954.261 I load_tensors: RPC0[127.0.0.1:21030] model buffer size =  2396.58 MiB
0.04.817.528 I llama_context: constructing llama_context
0.04.817.544 I llama_context: n_seq_max             = 1
0.04.817.544 I llama_context: n_ctx                 = 8192
0.04.817.681 I llama_context:        CPU  output buffer size =     0.95 MiB
0.04.818.232 I llama_kv_cache: RPC0[127.0.0.1:21030] KV buffer size =   136.00 MiB
0.04.818.306 I llama_kv_cache: size =  136.00 MiB (  8192 cells,   8 layers,  1/1 seqs), K (q8_0):   68.00 MiB
0.04.818.679 I llama_memory_recurrent: RPC0[127.0.0.1:21030] RS buffer size =   201.00 MiB
0.04.839.005 I sched_reserve: RPC0[127.0.0.1:21030] compute buffer size =   100.29 MiB
0.04.839.027 I sched_reserve:        CPU compute buffer size =    28.29 MiB
0.04.855.562 I llama_context: constructing llama_context
0.04.855.568 I llama_context: n_ctx                 = 8192
0.04.855.630 I llama_context:        CPU  output buffer size =     0.95 MiB
0.04.856.080 I llama_kv_cache: RPC0[127.0.0.1:21030] KV buffer size =    32.00 MiB
0.04.863.098 I sched_reserve: RPC0[127.0.0.1:21030] compute buffer size =    80.00 MiB
0.04.863.116 I sched_reserve:        CPU compute buffer size =    18.02 MiB
0.04.871.052 I sched_reserve: RPC0[127.0.0.1:21030] compute buffer size =    82.02 MiB
0.04.871.075 I sched_reserve:        CPU compute buffer size =    18.02 MiB
"""

FORK_HYBRID = """\
llm_load_tensors: RPC0[127.0.0.1:21020] buffer size =  1761.28 MiB
llm_load_tensors:        CPU buffer size =   308.23 MiB
llama_init_from_model: n_ctx         = 8192
llama_kv_cache_init: RPC0[127.0.0.1:21020] KV buffer size =   306.25 MiB
llama_init_from_model: KV self size  =  256.00 MiB, K (f16):  128.00 MiB, V (f16):  128.00 MiB
llama_init_from_model:        CPU  output buffer size =     0.49 MiB
llama_init_from_model: RPC0[127.0.0.1:21020] compute buffer size =   262.50 MiB
llama_init_from_model:        CPU compute buffer size =    14.01 MiB
"""

WINDOWS_AND_DRAFTER = """\
load_tensors:        CUDA0 model buffer size =   100.00 MiB
load_tensors:    CUDA_Host model buffer size =    10.00 MiB
llama_context: constructing llama_context
llama_kv_cache:      CUDA0 KV buffer size =    64.00 MiB
llama_kv_cache:      CUDA0 KV buffer size =    12.00 MiB
sched_reserve:      CUDA0 compute buffer size =    30.00 MiB
sched_reserve:      CUDA1 compute buffer size =     5.00 MiB
load_tensors:        CUDA0 model buffer size =    20.00 MiB
llama_context: constructing llama_context
llama_kv_cache:      CUDA0 KV buffer size =     4.00 MiB
sched_reserve:      CUDA0 compute buffer size =     3.00 MiB
"""


def mib_by_place(text: str) -> dict[str, dict[str, float]]:
    memory = add_records(EngineActivity(), parse_log(text.splitlines())).memory
    return {
        place: {name: round(size / MIB, 2) for name, size in row.items()} for place, row in memory.by_place().items()
    }


def test_a_drafters_context_has_its_own_cache_and_its_last_compute_buffers_count() -> None:
    assert mib_by_place(UPSTREAM_WITH_MTP) == {
        HOST: {"weights": 497.31, "output": 1.9, "compute": 28.29, "draft_compute": 18.02},
        "RPC0": {
            "weights": 2396.58,
            "kv": 136.0,
            "state": 201.0,
            "compute": 100.29,
            "draft_kv": 32.0,
            "draft_compute": 82.02,
        },
    }


def test_the_forks_kv_buffer_is_told_apart_from_the_state_in_it() -> None:
    assert mib_by_place(FORK_HYBRID)["RPC0"] == {"weights": 1761.28, "kv": 256.0, "state": 50.25, "compute": 262.5}


def test_window_caches_add_up_and_weights_after_a_context_are_a_drafters() -> None:
    assert mib_by_place(WINDOWS_AND_DRAFTER) == {
        "CUDA0": {
            "weights": 100.0,
            "kv": 76.0,
            "compute": 30.0,
            "draft_weights": 20.0,
            "draft_kv": 4.0,
            "draft_compute": 3.0,
        },
        "CUDA1": {"compute": 5.0},
        HOST: {"weights": 10.0},
    }


@pytest.mark.parametrize("name", ["healthy-upstream.log", "healthy-ik.log"])
def test_the_logs_of_healthy_starts_tell_every_component(name: str) -> None:
    found = mib_by_place((FIXTURES / "logs" / name).read_text())
    assert {"weights", "kv", "compute"} <= {component for row in found.values() for component in row}


def test_nothing_is_told_by_other_lines() -> None:
    assert mib_by_place("llama_kv_cache: size = 2.00 MiB ( 2048 cells)\nmodel buffer size = 3.00 MiB\n") == {}


@pytest.mark.parametrize(
    ("buffer", "place"),
    [("CPU", HOST), ("CPU_Mapped", HOST), ("CPU_REPACK", HOST), ("CUDA_Host", HOST), ("Vulkan_Host", HOST),
     ("CUDA0", "CUDA0"), ("MTL0_Mapped", "MTL0"), ("RPC0[10.0.0.2:50052]", "RPC0"), ("ROCm1", "ROCm1")],
)  # fmt: skip
def test_each_buffer_has_its_place(buffer: str, place: str) -> None:
    assert place_of(buffer) == place
