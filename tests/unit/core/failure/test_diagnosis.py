"""What one start of an engine came to. Logs are written from the engines' formats; none is copied from anybody."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from benchmarks.classifier import VARIABLE, Score, accuracy, harmful, load, measure
from orchestrator.core.engine_log.signatures import Action, FailureClass, Phase
from orchestrator.core.failure.diagnosis import Diagnosis, ExitStatus
from tests.support import FIXTURES
from tests.unit.core.failure.pasted import diagnose

LOGS = FIXTURES / "logs"
OOM = "allocating 19187.00 MiB on device 0: cudaMalloc failed: out of memory"
CLIP = "clip_init: failed to load model 'a': clip_model_loader: "
SPECULATIVE = "srv    load_model: failed to initialize speculative decoding context: "
LOADER = "llama_model_load: error loading model: "
OOM_LINES = (
    f"ggml_backend_cuda_buffer_type_alloc_buffer: {OOM}",
    "ggml_gallocr_reserve_n: failed to allocate CUDA0 buffer of size 20119027712",
    "llama_model_load: error loading model: unable to allocate CUDA0 buffer",
)


def fixture(name: str) -> list[str]:
    return (LOGS / f"{name}.log").read_text().splitlines()


def verdict(diagnosis: Diagnosis) -> tuple[FailureClass, Phase, Action]:
    return diagnosis.failure_class, diagnosis.phase, diagnosis.action


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (0, ExitStatus(code=0)),
        (1, ExitStatus(code=1)),
        (-9, ExitStatus(signal=9)),
        (127, ExitStatus(code=127)),
        (137, ExitStatus(code=137, signal=9)),
        (134, ExitStatus(code=134, signal=6)),
        (0xC0000005, ExitStatus(code=0xC0000005, signal=11)),
        (-1073741819, ExitStatus(code=-1073741819, signal=11)),
    ],
)
def test_an_exit_status_is_read_as_python_shells_and_windows_give_it(value: int, expected: ExitStatus) -> None:
    assert ExitStatus.of(value) == expected


def test_weights_that_do_not_fit_name_the_device_and_the_size() -> None:
    found = diagnose(fixture("oom-weights-upstream"), 1)

    assert verdict(found) == ("device_oom", "load", "retry_margin")
    assert (found.device, found.requested_mib) == ("CUDA0", 19187.0)
    assert OOM in found.evidence
    assert "CUDA0" in found.message


def test_the_stage_that_needed_the_memory_is_the_phase() -> None:
    assert verdict(diagnose(fixture("oom-compute-ik"), -11)) == ("device_oom", "compute", "retry_margin")
    assert diagnose(fixture("oom-compute-ik"), -11).device == "CUDA1"


def test_memory_that_ends_on_the_first_request_is_found_behind_the_abort() -> None:
    found = diagnose(fixture("oom-first-request-upstream"), -6)

    assert verdict(found) == ("device_oom", "runtime", "retry_margin")
    assert found.device == "CUDA0"


def test_what_the_fit_says_of_memory_does_not_hide_a_missing_file() -> None:
    assert verdict(diagnose(fixture("missing-file-upstream"), 1)) == ("missing_file", "load", "give_up")


@pytest.mark.parametrize("name", ["healthy-upstream", "healthy-ik"])
@pytest.mark.parametrize(("exit_code", "alive"), [(None, None), (None, True), (0, False)])
def test_warnings_of_a_start_that_went_well_are_no_failure(
    name: str, exit_code: int | None, alive: bool | None
) -> None:
    assert verdict(diagnose(fixture(name), exit_code, alive=alive)) == ("ok", "none", "continue")


def test_an_allocation_that_failed_before_the_server_listened_is_survived() -> None:
    lines = fixture("healthy-ik")

    assert diagnose([*lines[:6], *OOM_LINES[:2], *lines[6:]], None).failure_class == "ok"


def test_a_process_that_lives_has_not_failed() -> None:
    assert diagnose(OOM_LINES, None, alive=True).failure_class == "ok"
    assert diagnose(OOM_LINES, None, alive=False).failure_class == "device_oom"


def test_a_server_that_lives_and_fails_every_request_has_failed() -> None:
    lines = [
        *fixture("healthy-upstream"),
        "0.05.000.000 E ggml_metal_synchronize: error: command buffer 0 failed with status 5",
        "0.05.000.001 E error: Insufficient Memory (00000008:kIOGPUCommandBufferCallbackErrorOutOfMemory)",
        "0.05.000.002 E llama_decode: failed to decode, ret = -3",
    ]
    answered = "0.09.000.000 I slot print_timing: id  0 | task 4 | prompt eval time =   1.00 ms /   2 tokens"

    assert verdict(diagnose(lines, None, alive=True)) == ("device_oom", "runtime", "retry_margin")
    assert diagnose([*lines, answered], None, alive=True).failure_class == "ok"


def test_an_allocation_that_fails_while_serving_is_behind_the_crash_on_the_next_request() -> None:
    """Upstream b11434 answers 500 to the request that met it, and aborts on the one after."""
    refused = [
        "0.05.000.000 E ggml_gallocr_reserve_n_impl: failed to allocate CUDA0 buffer of size 1774880",
        "0.05.000.001 E graph_reserve: failed to allocate compute buffers",
        "0.05.000.002 E srv  update_slots: decode() failed: failed to allocate compute pp buffers",
    ]
    taken_up = "0.06.000.000 I slot launch_slot_: id  0 | task 9 | processing task, is_child = 0"
    abort = "/src/tools/server/server-context.cpp:3533: pos_min == -1, but n_past > 0 - should not happen"
    answered = "0.09.000.000 I slot print_timing: id  0 | task 9 | prompt eval time =   1.00 ms /   2 tokens"
    log = [*fixture("healthy-upstream"), *refused]

    found = diagnose([*log, taken_up, abort], -6)
    assert (*verdict(found), found.device, found.requested_mib) == (
        "device_oom", "compute", "retry_margin", "CUDA0", 1.69
    )  # fmt: skip
    assert diagnose(log, None, alive=True).failure_class == "device_oom"
    assert diagnose([*log, taken_up, answered], None, alive=True).failure_class == "ok"
    assert diagnose([*log, taken_up, answered, abort], -6).failure_class == "engine_bug"


@pytest.mark.parametrize(
    "line",
    [
        f'{{"messages":[{{"role":"user","content":"{OOM_LINES[0]}"}}]}}',
        f'0.05.000.000 D srv  log_server_r: request:  {{"prompt": "{OOM_LINES[2]}"}}',
        f'srv  log_server_r: request: {{"prompt": "{OOM_LINES[2]}"}}',
        f'VERB [      operator()] request | tid="1" timestamp=1 prompt="{OOM_LINES[0]}"',
        f'"content": "{OOM_LINES[0]}"',
        f'  "prompt": "why: {OOM}",',
        f"slot process_toke: id  0 | task 0 | n_decoded = 1, next token:  1234 '{OOM}'",
        f"0.05.000.000 I {OOM_LINES[0]}",
        f"0.05.000.000 D Parsing input with format Content-only: {OOM_LINES[0]}",
        f"my server printed {OOM_LINES[0]}",
        json.dumps({"type": "log", "level": "debug", "msg": f"request: x\n{OOM_LINES[0]}\n"}),
    ],
)
def test_a_client_that_sends_the_line_fools_nobody(line: str) -> None:
    assert diagnose([*fixture("healthy-upstream"), line], None).failure_class == "ok"


def test_client_text_of_several_lines_lasts_until_the_engine_speaks_again() -> None:
    echo = ["0.05.000.000 D Parsing input with format Content-only: this is what I see:", *OOM_LINES]

    assert diagnose([*fixture("healthy-upstream"), *echo], None).failure_class == "ok"
    real = [f"0.05.000.100 E {line}" for line in OOM_LINES]
    assert diagnose([*fixture("healthy-upstream")[:-3], *echo, *real], 1).failure_class == "device_oom"


def test_what_a_client_sent_does_not_name_the_cause_of_a_crash() -> None:
    echo = ["0.05.000.000 D Parsing input with format Content-only: this is what I see:", *OOM_LINES]

    assert diagnose([*fixture("healthy-upstream"), *echo], -11).failure_class == "engine_bug"


@pytest.mark.parametrize(
    ("lines", "exit_code", "expected"),
    [
        (["error: invalid argument: --foo"], 1, ("bad_flag", "none", "give_up")),
        (["error: unknown argument: --foo", "usage: llama-server [options]"], 1, ("bad_flag", "none", "give_up")),
        (
            ["=== K cache q5_0 coupled with V cache f16 is not a supported combination on the CPU backend."],
            -6,
            ("bad_flag", "runtime", "give_up"),
        ),
        (
            ['error while handling argument "--draft-max": the argument has been removed. use --spec-draft-n-max'],
            1,
            ("bad_flag", "none", "give_up"),
        ),
        (["terminate called after throwing an instance of 'std::invalid_argument'", "  what():  stoi"], -6,
         ("bad_flag", "none", "give_up")),
        (["llama_model_load: error loading model: unknown model architecture: 'lzama'"], 1,
         ("bad_model", "load", "give_up")),
        (["gguf_init_from_file: invalid magic characters '????'"], 139, ("bad_model", "load", "give_up")),
        (["couldn't bind to server socket: hostname=127.0.0.1 port=8080"], 1, ("port_in_use", "none", "give_up")),
        (["llama-server: error while loading shared libraries: libcudart.so.12: cannot open shared object file"], 127,
         ("missing_library", "none", "give_up")),
        (["./llama-server: /lib/libc.so.6: version `GLIBC_2.38' not found (required by ./llama-server)"], 1,
         ("missing_library", "none", "give_up")),
        ([], 127, ("missing_library", "none", "give_up")),
        ([], -7, ("bad_model", "runtime", "give_up")),  # SIGBUS: the file that was mapped is shorter now
        (["bash: ./llama-server: No such file or directory"], 127, ("missing_file", "none", "give_up")),
        (["zsh: command not found: llama-server"], 127, ("missing_file", "none", "give_up")),
        (["Error: llama runner process no longer running: 3221225785"], None, ("missing_library", "none", "give_up")),
        (["engine: container exited with code 137"], None, ("killed", "none", "retry_other")),
        (["the runner has terminated: exit status 0xc0000005"], None, ("engine_bug", "runtime", "restart")),
        (["ggml_vulkan: Failed to allocate pinned memory.",
          "ggml_vulkan: vk::Device::allocateMemory: ErrorOutOfDeviceMemory"], None, ("ok", "none", "continue")),
        (["llama_model_load: error loading model: vk::Device::createComputePipeline: ErrorUnknown"], 1,
         ("driver", "load", "give_up")),
        (["Hip error: 'unspecified launch failure'(719) at hipblaslt.cpp:99"], None,
         ("engine_bug", "runtime", "restart")),
        (["ggml_backend_cpu_buffer_type_alloc_buffer: failed to allocate buffer of size 64000000000",
          "llama_kv_cache_init: failed to allocate buffer for kv cache"], 1, ("host_oom", "kv", "retry_other")),
        (["/src/ggml/src/ggml.c:1700: GGML_ASSERT(obj_new) failed",
          "/usr/lib/libllama.so.0(_ZN13llama_context13graph_reserveEjjj+0x1a) [0x7f0000001000]"], 134,
         ("engine_bug", "compute", "give_up")),
        ([], 132, ("illegal_instruction", "none", "give_up")),
        ([], -9, ("killed", "none", "retry_other")),
        ([], -11, ("engine_bug", "runtime", "restart")),
        ([], 0, ("ok", "none", "continue")),
        ([], None, ("ok", "none", "continue")),
        (["ggml_cuda_init: failed to initialize CUDA: no CUDA-capable device is detected"], None,
         ("driver", "none", "continue")),
        (["CUDA error: no kernel image is available for execution on the device"], 134,
         ("driver", "runtime", "give_up")),
        (["CUDA error: an illegal memory access was encountered"], 134, ("engine_bug", "runtime", "restart")),
        (["Memory critical error by agent node-0 (Agent handle: 0x5) on address 0x7f. Reason: Memory in use."], 134,
         ("engine_bug", "runtime", "restart")),  # of a start there is no word
        (["load_tensors: loading model tensors, this can take a while... (mmap = false)",
          "Memory critical error by agent node-0 (Agent handle: 0x5) on address 0x7f. Reason: Memory in use."], 134,
         ("engine_bug", "load", "give_up")),
        (["/src/ggml/src/ggml-cuda.cu:99: GGML_ASSERT(to_fp16 != nullptr) failed"], 134,
         ("engine_bug", "runtime", "give_up")),
        (["terminate called after throwing an instance of 'vk::DeviceLostError'",
          "  what():  vk::Queue::submit: ErrorDeviceLost"], 134, ("driver", "runtime", "restart")),
        (["/src/ggml/src/ggml-rpc/ggml-rpc.cpp:547: Failed to connect to 127.0.0.1:1"], 134,
         ("driver", "load", "restart")),
        (["RPC server version mismatch: 6.0.0",
          "/src/ggml/src/ggml-rpc/ggml-rpc.cpp:550: RPC handshake failed for 127.0.0.1:50052"], 134,
         ("driver", "load", "give_up")),
        (["/src/ggml/src/ggml-rpc/ggml-rpc.cpp:520: Remote RPC server crashed or returned malformed response"], 134,
         ("engine_bug", "runtime", "restart")),
        (["ggml_aligned_malloc: insufficient memory (attempted to allocate 3906.25 MB)"], 134,
         ("host_oom", "load", "retry_other")),
        (["kernel: Out of memory: Killed process 4242 (llama-server) total-vm:1kB"], -9,
         ("killed", "none", "retry_other")),
        (["llm_load_tensors: offloaded 6/6 layers to GPU", "Killed"], None, ("killed", "load", "retry_other")),
        (["ggml_metal_init: recommendedMaxWorkingSetSize = 1 MB"], -9, ("killed", "none", "retry_margin")),
    ],
)  # fmt: skip
def test_each_cause_has_its_class(
    lines: list[str], exit_code: int | None, expected: tuple[FailureClass, Phase, Action]
) -> None:
    assert verdict(diagnose(lines, exit_code)) == expected


@pytest.mark.parametrize(
    "lines",
    [
        ["ggml_vulkan: Device memory allocation of size 3000000000 failed.",
         "ggml_vulkan: Requested buffer size exceeds device memory allocation limit: ErrorOutOfDeviceMemory"],
        ["common_fit_params: failed to fit params to free device memory: n_gpu_layers already set by user to 9, abort",
         *OOM_LINES],
        ["ggml_backend_cuda_buffer_type_alloc_buffer: allocating 360000.00 MiB on device 0: cudaMalloc failed: x",
         "llama_init_from_model: failed to allocate compute buffers"],
        ["  Device 0: NVIDIA X, compute capability 8.9, VMM: yes, VRAM: 24000 MiB",
         "llama_model_load_from_file_impl: using device CUDA0 (NVIDIA X) (0000:01:00.0) - 900 MiB free", *OOM_LINES],
        ["Required memory 30000 MiB in device 0 is still greater than available memory 11000 MiB after overriding"],
    ],
    ids=["single allocation limit", "placed by hand", "larger than any card", "another process", "everything moved"],
)  # fmt: skip
def test_where_a_margin_cannot_help_another_step_is_asked_for(lines: list[str]) -> None:
    assert diagnose(lines, 1).action == "retry_other"
    assert diagnose(lines, 1).failure_class == "device_oom"


def test_an_empty_allocation_that_fails_is_the_driver() -> None:
    lines = ["ggml_backend_metal_buffer_from_ptr: error: failed to allocate buffer, size =     0.00 MiB"]

    assert verdict(diagnose(lines, 1)) == ("driver", "load", "give_up")


def test_the_last_start_in_a_log_is_the_one_explained() -> None:
    first = ["build: 7000 (abc) with GNU 12 for Linux", *OOM_LINES]
    second = ["build: 7000 (abc) with GNU 12 for Linux", *fixture("healthy-ik")]

    assert diagnose([*first, *second], None).failure_class == "ok"
    assert diagnose([*second, *first], 1).failure_class == "device_oom"
    assert diagnose([*first, second[0]], 1).failure_class == "device_oom"


def test_rocm_devices_are_named_as_the_engine_names_them() -> None:
    lines = ["ggml_cuda_init: found 1 ROCm devices:", OOM_LINES[0]]

    assert diagnose(lines, 1).device == "ROCm0"


@pytest.mark.parametrize("score", measure(load(LOGS / "from_sources.jsonl")), ids=lambda score: score.row["id"])
def test_what_the_engines_sources_print_is_read_as_labelled(score: Score) -> None:
    """Written from the format strings of both engines, labelled before they were first read (docs/failures.md)."""
    assert {label: score.answer(label) for label in ("class", "phase", "action")} == {
        label: score.row[label] for label in ("class", "phase", "action")
    }


@pytest.mark.parametrize(
    "score", measure(load(LOGS / "from_sources.jsonl"), alive=True), ids=lambda score: score.row["id"]
)
def test_knowing_whether_the_engine_lives_changes_no_reading_of_the_sources_lines(score: Score) -> None:
    assert score.right("class") and score.right("action"), score.found


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("ggml_vulkan: Device with index 3 does not exist.", ("driver", "load", "give_up")),
        ("ggml_vulkan: Error: Vulkan 1.2 required.", ("driver", "load", "give_up")),
        ("ggml_vulkan: Invalid device index 7 in GGML_VK_VISIBLE_DEVICES.", ("driver", "load", "give_up")),
        ("ggml_vulkan: compute pipeline creation failed for mul_mat_f16: vk::Device", ("driver", "load", "give_up")),
        (f"{LOADER}LLAMA_SPLIT_MODE_TENSOR not implemented for architecture 'bert'", ("bad_flag", "load", "give_up")),
        (f"{LOADER}device Vulkan0 does not support split buffers", ("bad_flag", "load", "give_up")),
        (f"{SPECULATIVE}the head has no confidence: please set --spec-draft-p-min 0", ("bad_flag", "load", "give_up")),
        ("/s/ggml-rpc.cpp:539: Failed to parse endpoint: 10.0.0.2", ("bad_flag", "load", "give_up")),
        (f"{CLIP}failed to load CLIP model from a. Does this file exist?", ("missing_file", "load", "give_up")),
        ("srv  llama_server: failed to download model: HTTP 404", ("missing_file", "load", "give_up")),
        ("srv  init: --port 0 is not supported with multiple TCP addresses", ("bad_flag", "none", "give_up")),
        ("srv  init: static assets path not found: /web", ("bad_flag", "none", "give_up")),
        (f"{LOADER}-ncmoe | --n-cpu-moe cannot be used with --fit", ("bad_flag", "load", "give_up")),
        (f"{LOADER}It is not possible to use split mode 'graph' with less", ("bad_flag", "load", "give_up")),
    ],
)  # fmt: skip
def test_what_stands_beside_those_lines_in_the_sources_is_read_alike(
    line: str, expected: tuple[FailureClass, Phase, Action]
) -> None:
    assert verdict(diagnose([line], 1)) == expected


def test_real_logs_are_read_well_enough() -> None:
    """Other people's logs are no part of this repository: whoever has labelled ones names their file."""
    if not os.environ.get(VARIABLE):
        pytest.skip(f"{VARIABLE} names no labelled logs (docs/failures.md)")

    scores = measure(load(Path(os.environ[VARIABLE])))
    assert accuracy(scores, "class") >= 0.97
    assert accuracy(scores, "action") >= 0.93
    assert not harmful(scores)
