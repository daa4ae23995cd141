"""One line, its events; and what the daemon reads in its engines' own logs without peeling what others put around."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.core.engine_log.events import (
    AttentionCacheTold,
    BackendSeen,
    BufferAllocated,
    ContextBegan,
    CurrentDevice,
    DeviceFree,
    DeviceSeen,
    DeviceTotal,
    DraftsCounted,
    ExitReported,
    LayersOffloaded,
    LoadBegan,
    LogEvent,
    PlacedByHand,
    ProcessBegan,
    PromptBatchRead,
    PromptProgress,
    RequestAnswered,
    StackFrame,
    Stage,
    StageReached,
    StoppedCleanly,
)
from orchestrator.core.engine_log.parser import LogParser, parse_log
from orchestrator.core.failure import diagnosis
from tests.support import FIXTURES
from tests.unit.core.failure.pasted import diagnose
from tests.unit.core.failure.test_diagnosis import OOM_LINES

CASES: list[tuple[str, list[LogEvent]]] = [
    ("0.00.081.002 I build_info: b11434-000000000", [ProcessBegan()]),
    ("build: 7000 (abc) with GNU 12 for Linux", [ProcessBegan()]),
    ("0.00.100.377 I srv    load_model: loading model '/m.gguf'", [LoadBegan()]),
    ("llm_load_tensors: offloaded 6/6 layers to GPU", [StageReached(Stage.WEIGHTS), LayersOffloaded(6, 6)]),
    ("0.00.161.350 T load_tensors:        CUDA0 model buffer size =    42.53 MiB",
     [StageReached(Stage.WEIGHTS), BufferAllocated("CUDA0", "weights", 42.53)]),
    ("llm_load_tensors: RPC0[127.0.0.1:5] buffer size =  1761.28 MiB",
     [StageReached(Stage.WEIGHTS), BufferAllocated("RPC0[127.0.0.1:5]", "weights", 1761.28)]),
    ("llama_init_from_model: KV self size  =  896.00 MiB, K (f16):  448.00 MiB, V (f16):  448.00 MiB",
     [StageReached(Stage.KV_CACHE), AttentionCacheTold(896.0)]),
    ("alloc_compute_meta:      CUDA0 compute buffer size =   245.00 MiB", [StageReached(Stage.COMPUTE_BUFFERS)]),
    ("0.00.180.000 T llama_context: n_ctx         = 2048", [ContextBegan()]),
    ("llama_kv_cache_init:      CUDA0 KV buffer size =     2.00 MiB",
     [StageReached(Stage.KV_CACHE), BufferAllocated("CUDA0", "kv", 2.0)]),
    ("0.00.183.000 T sched_reserve:      CUDA0 compute buffer size =     2.14 MiB",
     [StageReached(Stage.COMPUTE_BUFFERS), BufferAllocated("CUDA0", "compute", 2.14)]),
    ("0.00.200.000 I srv  llama_server: model loaded", [StageReached(Stage.LOADED)]),
    ('INFO [    main] HTTP server listening | tid="1" timestamp=1 hostname="127.0.0.1"',
     [StageReached(Stage.LISTENING)]),
    ("slot launch_slot_: id  0 | task 9 | processing task, is_child = 0", [StageReached(Stage.BUSY)]),
    ('INFO [update_slots] kv cache rm [p0, end) | tid="1" id_slot=0 p0=512',
     [StageReached(Stage.BUSY), PromptBatchRead()]),
    ("0.01.000.000 I slot print_timings_pp: id  0 | task 7 | prompt processing, n_tokens = 96, progress = 0.26, t = 3",
     [PromptProgress(7, 0.26), PromptBatchRead()]),
    ("slot print_timing: id  0 | task 4 | prompt eval time =   1.00 ms /   2 tokens",
     [StageReached(Stage.ANSWERED), RequestAnswered()]),
    ('INFO [release_slots] slot released | tid="1" timestamp=1 id_slot=0', [StageReached(Stage.ANSWERED)]),
    ("0.12.000.400 I slot      release: id  0 | task 3 | stop processing: n_tokens = 12, truncated = 0", []),
    ("draft acceptance rate = 0.50000 (   10 accepted /    20 generated)", [DraftsCounted(20, 10)]),
    ("0.09.000.000 I srv    operator(): cleaning up before exit...", [StoppedCleanly()]),
    ("ggml_cuda_init: found 1 ROCm devices:", [DeviceSeen(), BackendSeen("rocm")]),
    ("  Device 0: NVIDIA X, compute capability 8.9, VMM: yes, VRAM: 24000 MiB",
     [DeviceSeen(), DeviceTotal("0", 24000)]),
    ("0.00.131.077 T llama_prepare_model_devices: using device CUDA1 (NVIDIA X) (id) - 900 MiB free",
     [DeviceSeen(), DeviceFree("CUDA1", 900, "1")]),
    ("CUDA0: using device CUDA0 - 900 MiB free", [DeviceFree("CUDA0", 900, None)]),
    ("  current device: 1, in function ggml_cuda_op at ggml-cuda.cu:1", [CurrentDevice("1")]),
    ("0.00.1.000 ggml_metal_init: x", []),
    ("ggml_metal_init: recommendedMaxWorkingSetSize = 1 MB", [BackendSeen("metal")]),
    ("/usr/lib/libllama.so.0(llama_decode+0x1a) [0x7f0000001000]", [StackFrame("runtime")]),
    ("0.01.000.000 I srv  operator(): instance name=a exited with status -11", [ExitReported(code=-11)]),
    ("engine: container exited with code 137", [ExitReported(code=137)]),
    ("a line that says nothing", []),
]  # fmt: skip


@pytest.mark.parametrize(("line", "events"), CASES)
def test_a_line_stands_for_its_events(line: str, events: list[LogEvent]) -> None:
    (record,) = parse_log([line])
    assert list(dict.fromkeys(record.events)) == events


def test_a_placement_by_hand_is_no_failure() -> None:
    line = "0.01.000.000 W failed to fit params to free device memory: n_gpu_layers already set by user to 9, abort"
    (record,) = parse_log([line])
    assert record.events == (PlacedByHand(),)


def test_a_failure_names_the_device_and_the_size() -> None:
    failures = [record.failure for record in parse_log(OOM_LINES)]
    found = [(each.device, each.index, each.requested_mib) for each in failures if each is not None]
    assert found == [(None, "0", 19187.0), ("CUDA0", None, 19187.0), ("CUDA0", None, None)]


def test_what_was_begun_in_one_part_of_a_log_goes_on_in_the_next() -> None:
    parser = LogParser()
    opened = list(parser.parse([(0, "0.05.000.000 D Parsing input with format Content-only: this is what I see:")]))
    assert opened == []
    assert list(parser.parse(enumerate(OOM_LINES, 1))) == []
    (own,) = parser.parse([(4, f"0.05.000.100 E {OOM_LINES[1]}")])
    assert own.number == 4
    assert own.failure is not None


@pytest.mark.parametrize("path", sorted((FIXTURES / "logs").glob("*.log")), ids=lambda path: path.stem)
@pytest.mark.parametrize("exit_code", [None, 0, 1, -6, -9])
def test_the_daemon_reads_an_engines_own_log_as_explain_does(path: Path, exit_code: int | None) -> None:
    lines = path.read_text().splitlines()
    assert diagnosis.diagnose(parse_log(lines), exit_code) == diagnose(lines, exit_code)


@pytest.mark.parametrize("wrapper", ["llama-server-1  | ", "Nov 21 10:12:01 box llama[4]: ", "server.exe : "])
def test_what_others_put_around_a_line_is_no_matter_of_the_daemons(wrapper: str) -> None:
    (record,) = parse_log([wrapper + OOM_LINES[2]])
    assert record.failure is None
