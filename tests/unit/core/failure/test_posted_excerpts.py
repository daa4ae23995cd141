"""Logs as people post them: cut at both ends, inside of wrappers, without an exit status. All lines are our own."""

from __future__ import annotations

import pytest

from orchestrator.core.engine_log.signatures import Action, FailureClass, Phase
from tests.unit.core.failure.pasted import diagnose
from tests.unit.core.failure.test_diagnosis import OOM_LINES, fixture, verdict

Expected = tuple[FailureClass, Phase, Action]
OLLAMA_RELAYS = (
    "time=2026-09-13T18:57:21.494+08:00 level=INFO source=sched.go:641 msg=x "
    'error="llama-server process has terminated: exit status 1: cudaMalloc failed: out of memory\\n'
    "alloc_tensor_range: failed to allocate CUDA0 buffer of size 1879048192\\n"
    'llama_init_from_model: failed to initialize the context: failed to allocate buffer for kv cache"'
)

POSTED: dict[str, tuple[list[str], Expected]] = {
    "a lost device is worth another start": (
        ["level_zero backend failed with error: 20 (UR_RESULT_ERROR_DEVICE_LOST)",
         "SYCL error: CHECK_TRY_ERROR(stream->wait()): Exception caught in this line of code."],
        ("driver", "runtime", "restart"),
    ),
    "an NPU without a context": (
        ["CANN error: EE1001: [PID: 7] 2026-01-01 The argument is invalid.Reason: context pointer null"],
        ("driver", "none", "give_up"),
    ),
    "an NPU without memory": (
        ["CANN error: EL0004: [PID: 7] 2026-01-01 Failed to allocate memory."],
        ("device_oom", "runtime", "retry_margin"),
    ),
    "kernels that this device cannot be given": (
        ["The program was built for 1 devices", "Build program log for 'Intel(R) X':"],
        ("driver", "runtime", "give_up"),
    ),
    "an operation without a kernel": (
        ["`ggml_backend_opencl_graph_compute: error: op not supported node_3 (SIN)`"],
        ("engine_bug", "runtime", "give_up"),
    ),
    "a projector that the build does not know, on a machine with a device": (
        ["ggml_metal_init: found device: Apple M9",
         "clip_init: failed to load model 'p.gguf': load_hparams: unknown projector type: new"],
        ("bad_model", "load", "give_up"),
    ),
    "a header that is broken in a way not listed": (
        ["gguf_init_from_file_ptr: key 'x' has invalid GGUF type 99",
         "llama_model_load: error loading model: llama_model_loader: failed to load model from m.gguf"],
        ("bad_model", "load", "give_up"),
    ),
    "a tensor larger than any one buffer": (
        ["ggml_gallocr_allocate: tensor inp is too large to fit in a Vulkan0 buffer (tensor size: 5368709120, max"],
        ("device_oom", "load", "retry_other"),
    ),
    "what ollama quotes of its child": (
        [OLLAMA_RELAYS],
        ("device_oom", "kv", "retry_margin"),
    ),
    "an answer of ollama's, posted instead of its log": (
        ['{"error":"llama-server process has terminated: exit status 1: error loading',
         "model: unknown model architecture: 'new'\\nerror loading model\"}"],
        ("bad_model", "load", "give_up"),
    ),
    "the numbered form of a CUDA error": (
        ["CUDA error 35 at /src/ggml-cuda.cu:493: CUDA driver version is insufficient for CUDA runtime version",
         'GGML_ASSERT: /src/ggml-cuda.cu:493: !"CUDA error"'],
        ("driver", "load", "give_up"),
    ),
    "a card that left the bus": (
        ["[ 1843.308145] NVRM: The NVIDIA GPU 0000:b3:00.0", "               NVRM: fallen off the bus and is not"],
        ("driver", "runtime", "give_up"),
    ),
    "a library that Python cannot load": (
        ["RuntimeError: Failed to load shared library 'C:\\x\\llama.dll': Could not find module"],
        ("missing_library", "none", "give_up"),
    ),
    "a kill while a prompt is saved": (
        ["slot get_availabl: id  0 | task -1 | selected slot by LRU, t_last = 7", "Failed with result 'oom-kill'."],
        ("killed", "runtime", "retry_other"),
    ),
    "compute buffers, by the function that asked for them": (
        ["ggml_gallocr_reserve_n: failed to allocate CUDA0 buffer of size 838447104"],
        ("device_oom", "compute", "retry_margin"),
    ),
    "an exception as macOS and Android relay it": (
        ["libc++abi: terminating due to uncaught exception of type vk::X: vk::Device::createBuffer: ErrorUnknown"],
        ("driver", "load", "give_up"),
    ),
    "a loader's reason as LM Studio relays it": (
        ["llama.cpp error: 'done_getting_tensors: wrong number of tensors; expected 292, got 291'"],
        ("bad_model", "load", "give_up"),
    ),
    "a core that systemd took": (
        ["Jan 29 00:10:57 h systemd-coredump[13]: [x] Process 13 (llama-server) of user 1000 dumped core."],
        ("engine_bug", "runtime", "restart"),
    ),
    "a build without a back end": (
        ["warning: no usable GPU found, --gpu-layers option will be ignored"],
        ("ok", "none", "continue"),
    ),
    "a Python binding's exception": (
        ["ValueError: Model path does not exist: /m/x.gguf"],
        ("missing_file", "load", "give_up"),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", POSTED)
def test_a_posted_log_is_read_as_labelled(name: str) -> None:
    lines, expected = POSTED[name]

    assert verdict(diagnose(lines, None)) == expected


def test_a_log_that_was_quoted_as_a_whole_reads_as_if_it_were_not() -> None:
    quoted = [f"> {line}" for line in OOM_LINES]

    assert verdict(diagnose(["this is what I get:", *quoted], None)) == verdict(diagnose(OOM_LINES, None))
    assert diagnose([*fixture("healthy-upstream"), *quoted], None).failure_class == "ok"


def test_a_signal_in_an_engines_own_information_ended_nothing() -> None:
    line = "0.05.000.000 I srv  params_from_: Chat format: what does SIGSEGV mean?"

    assert diagnose([*fixture("healthy-upstream"), line], None).failure_class == "ok"


@pytest.mark.parametrize("method", ["GET /health", "POST /v1/chat/completions"])
def test_a_crash_right_after_a_line_of_the_access_log_is_seen(method: str) -> None:
    access = f"srv  log_server_r: request: {method} 127.0.0.1 200"
    crash = ["CUDA error: an illegal memory access was encountered", "/src/ggml-cuda.cu:97: CUDA error"]

    assert diagnose(["main: server is listening on http://h:1", access, *crash], None).failure_class == "engine_bug"


def test_a_request_that_was_answered_takes_back_an_earlier_failure() -> None:
    failed = "llama_decode: failed to compute graph, compute status: -3"
    access = "srv  log_server_r: request: POST /v1/chat/completions 127.0.0.1 200"

    assert diagnose([failed, access], None).failure_class == "ok"
    assert diagnose([access, failed], None).failure_class == "engine_bug"


def test_an_engine_that_gives_up_while_it_reads_the_file_without_a_word_cannot_use_it() -> None:
    lines = ["srv    load_model: loading model 'm.gguf'", "llama_model_loader: - type q6_K:   49 tensors"]

    assert verdict(diagnose(lines, 1)) == ("bad_model", "load", "give_up")
    assert diagnose(lines, -11).failure_class == "engine_bug"


def test_a_crash_that_the_next_start_recovered_from_ended_nothing() -> None:
    crash = [
        "Nov 21 13:00:00 host llama-server[123]: /src/ggml-cuda.cu:97: CUDA error",
        "Nov 21 13:00:01 host systemd[1]: llama.service: Main process exited, code=dumped, status=6/ABRT",
    ]
    start = [
        "Nov 21 13:00:06 host systemd[1]: Started llama.service - llama.cpp server.",
        "Nov 21 13:00:16 host llama-server[140]: main: server is listening on http://127.0.0.1:8080",
    ]

    assert diagnose([*crash, *start], None).failure_class == "ok"
    assert diagnose([*crash, start[1]], None).failure_class == "ok"
    assert diagnose([*start, *crash], None).failure_class == "engine_bug"


@pytest.mark.parametrize(
    "banner", ["log_info: verbosity = 3", "cmn  common_param: common_params_print_info: verbosity"]
)
def test_starts_are_told_apart_without_a_build_line(banner: str) -> None:
    served = [f"0.00.100.275 I {banner}", *fixture("healthy-upstream")]
    failed = [f"0.00.100.275 I {banner}", *OOM_LINES]

    assert diagnose([*served, *failed], None).failure_class == "device_oom"
    assert diagnose([*failed, *served], None).failure_class == "ok"


AROUND: dict[str, tuple[str, Expected]] = {
    "docker without the GPU toolkit": (
        'docker: Error response from daemon: could not select device driver "" with capabilities: [[gpu]].',
        ("driver", "none", "give_up"),
    ),
    "the toolkit and a driver that was updated": (
        "nvidia-container-cli: initialization error: nvml error: driver/library version mismatch: unknown",
        ("driver", "none", "give_up"),
    ),
    "docker and a binary that is not there": (
        'docker: Error response from daemon: OCI runtime create failed: exec: "/x": stat /x: no such file or directory',
        ("missing_file", "none", "give_up"),
    ),
    "a binary for another machine": (
        "exec /app/llama-server: exec format error",
        ("illegal_instruction", "none", "give_up"),
    ),
    "a binary whose loader is not installed": (
        "bash: ./llama-server: cannot execute: required file not found",
        ("missing_library", "none", "give_up"),
    ),
    "a binary that may not be run": (
        "bash: ./bin/llama-server: Permission denied",
        ("missing_file", "none", "give_up"),
    ),
    "systemd and a binary that is not there": (
        "Nov 21 13:00:00 h systemd[1]: llama.service: Failed at step EXEC spawning /x/llama-server: No such file",
        ("missing_file", "none", "give_up"),
    ),
    "systemd, which lost patience": (
        "Nov 21 13:00:00 h systemd[1]: llama.service: start operation timed out. Terminating.",
        ("killed", "none", "restart"),
    ),
    "earlyoom": (
        'Nov 21 13:00:00 h earlyoom[5]: sending SIGTERM to process 42 uid 1000 "llama-server": badness 1215',
        ("killed", "none", "retry_other"),
    ),
    "LM Studio, which knows the code alone": (
        "(Exit code: 134). Please check settings and try loading the model again.",
        ("engine_bug", "runtime", "restart"),
    ),
    "a remote device without a host": (
        "Failed to connect to :50052",
        ("driver", "load", "restart"),
    ),
    "a model between quotation marks": (
        '"llama_model_load: error loading model: failed to open /m/x.gguf: No such file or directory"',
        ("missing_file", "load", "give_up"),
    ),
    "a unit without a host": (
        "2026-03-25T19:17:07+02:00 gemma.server[16376]: CUDA error: the provided PTX was compiled with an unsupported",
        ("driver", "runtime", "give_up"),
    ),
}


@pytest.mark.parametrize("name", AROUND)
def test_what_stands_around_an_engine_says_why_it_did_not_run(name: str) -> None:
    line, expected = AROUND[name]

    assert verdict(diagnose([line], None)) == expected


def test_a_log_that_a_client_pasted_ends_no_echo() -> None:
    """It begins earlier than the line that printed it, or in another column."""
    opener = "5.05.000.000 D srv  update_chat_: Parsing chat message: what is"
    pasted = [f"0.01.000.000 E {OOM_LINES[0]}", f"[51234] 6.00.000.000 E {OOM_LINES[0]}"]

    assert diagnose([*fixture("healthy-upstream"), opener, *pasted], None).failure_class == "ok"
    real = [f"5.06.000.000 E {OOM_LINES[0]}"]
    assert diagnose([*fixture("healthy-upstream"), opener, *pasted, *real], None).failure_class == "device_oom"


def test_an_error_of_the_command_line_that_nobody_listed_is_refused_words_and_none_of_a_server_that_serves() -> None:
    line = "error: --new-flag is wrong in a new way"

    assert verdict(diagnose([line], 1)) == ("bad_flag", "none", "give_up")
    assert diagnose([*fixture("healthy-ik"), line], None).failure_class == "ok"


def test_a_routers_word_on_a_child_that_crashed_is_heard_and_on_one_that_it_ended_is_not() -> None:
    lines = ["[51234] 0.00.255.469 W load: control-looking token: 1 '</s>'"]
    said = "5.04.523.860 I srv operator (): instance name=m exited with status"

    assert verdict(diagnose([*lines, f"{said} -1073741819"], None)) == ("engine_bug", "load", "give_up")
    assert diagnose([*lines, f"{said} 1"], None).failure_class == "ok"


def test_colours_that_lost_their_escape_character_are_no_text() -> None:
    lines = [f"[36mllama-1  |[0m {line}" for line in OOM_LINES]

    assert verdict(diagnose(lines, None)) == verdict(diagnose(OOM_LINES, None))


def test_a_reset_of_the_device_is_worth_another_start() -> None:
    lines = ["[ 9123.200000] amdgpu 0000:03:00.0: amdgpu: GPU reset begin!"]

    assert verdict(diagnose(lines, None)) == ("driver", "runtime", "restart")


def test_a_probe_before_the_fit_that_fails_is_survived_and_the_same_words_after_it_are_not() -> None:
    probe = (
        "0.01.519.100 E llama_init_from_model: failed to initialize the context: X requires ctx_other to be set "
        "(this warning is normal during memory fitting)"
    )
    measured = "0.01.584.302 W srv    load_model: [spec] failed to measure draft model memory: failed to create context"
    fit = "0.01.584.312 I common_init_result: fitting params to device memory ..."

    assert diagnose([probe, measured, fit], None).failure_class == "ok"
    assert verdict(diagnose([probe, measured, fit, probe], 1)) == ("bad_model", "load", "give_up")


def test_the_kernels_word_on_a_crash_is_heard() -> None:
    line = (
        "kernel: llama-server[3582]: segfault at 562900023b21 ip 00007f8e054af2a2 sp 00007ffd4cf1a960 error 4 in libc"
    )

    assert verdict(diagnose([line], None)) == ("engine_bug", "runtime", "restart")


@pytest.mark.parametrize(
    "line",
    [
        "warning: failed to mlock 4096-byte buffer (after previously locking 0 bytes): Out of memory (error 1453)",
        "warning: failed to VirtualLock 101449728-byte buffer (after previously locking 17 bytes): Invalid access",
        "warning: failed to munlock buffer: Cannot allocate memory",
        "W ggml_cuda_malloc: failed to allocate 2400.00 MiB of pinned memory: out of memory; using pageable fallback",
        "W sched_reserve: layer 0 is assigned to device CPU but fused X is assigned to device CUDA0 (missing support)",
        "Failed to create /home/u/.cache/mesa_shader_cache for shader cache (Permission denied)---disabling.",
        "Failed to infer a tool call example (possible template bug)",
        "srv    send_error: task id = 7, error: request (24743 tokens) exceeds the available context size",
        'srv    operator(): got exception: {"error":{"code":500,"message":"Failed to parse input at pos 23"}}',
        "parse: error parsing grammar: number of repetitions exceeds sane defaults",
        "mtmd_helper_bitmap_init_from_buf: failed to decode image bytes",
        "llama_decode: failed to decode, ret = 1",
        "get_memory_info: [warning] ext_intel_free_memory is not supported, use total memory as free memory",
        "I common_params_fit_impl: cannot meet free memory target of 1024 MiB, need to reduce memory by 3231 MiB",
        "common_init_from_params: failed to create MTP context, falling back to shared context",
        "load: special_eos_id is not in special_eog_ids - the tokenizer config may be incorrect",
    ],
)
@pytest.mark.parametrize("name", ["healthy-upstream", "healthy-ik"])
def test_a_frightening_line_leaves_a_server_that_goes_on_alone(name: str, line: str) -> None:
    healthy = fixture(name)

    assert verdict(diagnose([line], None)) == ("ok", "none", "continue")
    assert verdict(diagnose([*healthy[:6], line, *healthy[6:]], None)) == ("ok", "none", "continue")
    assert verdict(diagnose([*healthy, line], None)) == ("ok", "none", "continue")


@pytest.mark.parametrize("name", POSTED)
def test_a_failure_that_a_client_asks_about_is_none_of_the_servers(name: str) -> None:
    told = POSTED[name][0]
    verbose = [
        "slot update_slots: id  0 | task 0 | prompt: 'why this:",
        *told,
        "?'",
        "srv  update_slots: all slots are idle",
    ]
    debug = ["0.05.000.000 D srv  update_chat_: Parsing chat message: why", *told]

    assert diagnose([*fixture("healthy-ik"), *verbose], None).failure_class == "ok"
    assert diagnose([*fixture("healthy-upstream"), *debug], None).failure_class == "ok"
