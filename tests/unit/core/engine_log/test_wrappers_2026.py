"""What stands around an engine's lines in 2026: ollama as the parent of llama-server, compose, journald, Kubernetes."""

# ruff: noqa: E501
from __future__ import annotations

import json

import pytest

from orchestrator.core.engine_log.wrappers import parse_pasted_log
from orchestrator.core.failure.diagnosis import diagnose

HOST = "ggml_backend_cpu_buffer_type_alloc_buffer: failed to allocate buffer of size 3103784960"
DEVICE = (
    "E ggml_backend_cuda_buffer_type_alloc_buffer: allocating 4100.00 MiB on device 0: cudaMalloc failed: out of memory"
)
MAGIC = "gguf_init_from_reader: invalid magic characters: 'oops', expected 'GGUF'"
TWICE = "llama-server startup failed before projector CPU offload retry: llama-server reported out-of-memory during startup: "
STAMP = "2026-11-03T10:45:23.466123456Z"


def classes(*lines: str) -> tuple[str, float | None]:
    found = diagnose(parse_pasted_log(lines), None)
    return found.failure_class, found.requested_mib


@pytest.mark.parametrize(
    "line",
    [
        f"Error: 500 Internal Server Error: {TWICE}{HOST}",
        f"{TWICE}{HOST}",
        f"llama-server startup failed before flash attention retry: {HOST}",
        f"llama-server reported out-of-memory during startup: {HOST}",
        f"llama runner reported out-of-memory during startup: {HOST}",
        json.dumps({"error": f"{TWICE}{HOST}"}),
        json.dumps({"error": {"message": f"{TWICE}{HOST}", "type": "api_error", "code": None}}),
        json.dumps({"error": {"code": 500, "message": f"500 Internal Server Error: {TWICE}{HOST}"}}),
        f'time={STAMP} level=ERROR source=sched.go:571 msg="error loading llama server" error="{TWICE}{HOST}"',
        f'Nov 03 10:45:23 box ollama[711]: time={STAMP} level=ERROR source=s.go:5 msg="error loading" error="{TWICE}{HOST}"',
        f"Error: timed out waiting for llama-server to start - {HOST}",
    ],
)
def test_ollama_s_own_words_come_off_and_the_engine_s_are_read(line: str) -> None:
    assert classes(line) == ("host_oom", 2960.0)


@pytest.mark.parametrize("line", [HOST, DEVICE, MAGIC])
@pytest.mark.parametrize(
    "wrapped",
    [
        "llama-1  | {}",
        "llama-server-1 | " + STAMP + " {}",
        "stack_llama.1.q8x1@node-3    | {}",
        STAMP + " stderr F {}",
        STAMP + " stderr P {}",
        "2026-11-03T10:45:23.466+01:00 {}",
        "[pod/llama-7d9f/server] {}",
        "pod/llama-7d9f/server " + STAMP + " {}",
        "Nov 03 10:45:23 box podman[711]: {}",
        "Nov 03 10:45:23.123456 box llama-server[711]: {}",
    ],
)
def test_a_container_s_prefix_comes_off(wrapped: str, line: str) -> None:
    bare = classes(line)
    assert bare[0] != "ok" and classes(wrapped.format(line)) == bare


@pytest.mark.parametrize(
    "record",
    [
        {"__REALTIME_TIMESTAMP": "1780764001000000", "_PID": "7", "PRIORITY": "6", "MESSAGE": HOST},
        {"MESSAGE": list(HOST.encode()), "_SYSTEMD_UNIT": "ollama.service"},
        {"log": HOST + "\n", "stream": "stderr", "time": STAMP},
        {
            "SYSLOG_IDENTIFIER": "ollama",
            "MESSAGE": f'time={STAMP} level=ERROR source=s.go:1 msg="x" error="{TWICE}{HOST}"',
        },
        {"SYSLOG_IDENTIFIER": "docker", "MESSAGE": f"llama-1  | {HOST}"},
        {"timestamp": STAMP, "level": "error", "message": f"{TWICE}{HOST}"},
    ],
)
def test_records_of_log_stores_are_opened(record: dict[str, object]) -> None:
    assert classes(json.dumps(record)) == ("host_oom", 2960.0)


@pytest.mark.parametrize("message", [[300], ["a"], {"a": 1}, 7, None])
def test_a_record_whose_message_is_no_text_says_nothing(message: object) -> None:
    assert classes(json.dumps({"PRIORITY": "6", "MESSAGE": message})) == ("ok", None)


@pytest.mark.parametrize(
    "line",
    [
        "Error: timed out waiting for llama runner to start",
        "timed out waiting for llama-server to start - ",
        json.dumps({"error": "timed out waiting for llama-server to start - "}),
    ],
)
def test_a_start_that_took_too_long_is_no_crash(line: str) -> None:
    found = diagnose(parse_pasted_log([line]), None)
    assert "not ready in time" in found.message and "crash" not in found.message
    assert found.hint is not None and "daemon.load_stall_s" in found.hint


@pytest.mark.parametrize(
    ("line", "failure_class"),
    [
        (f'time={STAMP} level=ERROR source=s.go:4 msg="x" error="timed out waiting for llama-server to start - "', "engine_bug"),
        ("Error: timed out waiting for llama runner to start", "engine_bug"),
        ("Error: 500 Internal Server Error: something that nobody has seen yet", "engine_bug"),
        ("Error: 503 Service Unavailable: no runner", "engine_bug"),
        ("llama-server startup failed before projector CPU offload retry", "engine_bug"),
        ("llama-server reported out-of-memory during startup", "device_oom"),
        ("error: the GPU ran out of memory", "device_oom"),
        ("fatal: worker is out of memory", "host_oom"),
        ("Error: 500 Internal Server Error: model requires more system memory (15.1 GiB) than is available (9.9 GiB)", "host_oom"),
    ],
)  # fmt: skip
def test_what_says_that_it_failed_is_never_ok(line: str, failure_class: str) -> None:
    assert classes(line)[0] == failure_class


@pytest.mark.parametrize(
    "line",
    [
        '{"error":{"code":400,"message":"the request exceeds the available context size, try increasing it"}}',
        '[GIN] 2026/11/03 - 10:50:23 | 200 |          5m1s |       127.0.0.1 | POST     "/api/chat"',
        "srv  log_server_r: done request: POST /v1/chat/completions 127.0.0.1 500",
        '"content": "Error: 500 Internal Server Error: llama-server startup failed"',
    ],
)
def test_what_a_client_is_told_of_its_own_request_is_no_failure_of_the_engine(line: str) -> None:
    assert classes(line)[0] == "ok"
