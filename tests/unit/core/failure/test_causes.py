# ruff: noqa: E501
"""Advice goes by the cause that the log names: `download again` is for files that are short, and for nothing else."""

from __future__ import annotations

import pytest

from orchestrator.core.engine_log.parser import parse_log
from orchestrator.core.failure.causes import hint_for, kind_of
from orchestrator.core.failure.diagnosis import Diagnosis, diagnose

UPSTREAM = "0.00.021.114 I srv    load_model: loading model '/m.gguf'"
FORK = 'INFO [                    main] build info | tid="1" timestamp=1 build=4561 commit="5f0a11ce"'
LAST = [
    "E llama_model_load_from_file_impl: failed to load model",
    "E srv    load_model: failed to load model, '/m.gguf'",
]


def explained(*lines: str, exit: int | None = 1) -> Diagnosis:
    return diagnose(parse_log(lines), exit, alive=False)


def hint(*lines: str) -> str:
    last = ["llama_init_from_gpt_params: error: failed to load model '/m.gguf'"] if lines[0] == FORK else LAST
    found = explained(*lines, *last)
    assert found.failure_class == "bad_model"
    return str(found.hint)


@pytest.mark.parametrize(
    ("first", "line", "words"),
    [
        (UPSTREAM, "E gguf_init_from_reader: tensor 'a' has invalid ggml type 144. should be in [0, 43)", "ik-fork"),
        (UPSTREAM, "E gguf_init_from_reader: tensor 'a' has invalid ggml type 137. should be in [0, 43)", "iq2_k"),
        (UPSTREAM, "E gguf_init_from_reader: tensor 'a' has invalid ggml type 142. should be in [0, 43)", "is whole"),
        (UPSTREAM, "E gguf_init_from_reader: tensor 'a' has invalid ggml type 41. should be in [0, 41)", "older than"),
        (FORK, "gguf_init_from_file: tensor 'a' has invalid ggml type 142", "is whole"),
        (UPSTREAM, "E gguf_init_from_reader: tensor 'a' has offset 402116608, expected 425771008", "is whole"),
        (UPSTREAM, "E llama_model_load: error loading model: read error: Bad address", "memory.mmap = true"),
        (UPSTREAM, "E llama_model_load: error loading model: read error: Input/output error", "dmesg"),
        (UPSTREAM, "E llama_model_load: error loading model: read error: Stale file handle", "mount it again"),
        (UPSTREAM, "E llama_model_load: error loading model: read error: Transport endpoint is not connected", "mount"),
        (UPSTREAM, "E llama_model_load: error loading model: read error: Permission denied", "permissions"),
        (UPSTREAM, "E llama_model_load: error loading model: read error: Something new", "may be whole"),
        (FORK, "llama_model_load: error loading model: check_tensor_dims: tensor 'blk.17.attn_k.weight' not found", "--engine upstream"),
        (UPSTREAM, "E llama_model_load: error loading model: missing tensor 'blk.40.attn_norm.weight'", "--engine ik-fork"),
        (UPSTREAM, "E llama_model_load: error loading model: unknown model architecture: 'newarch'", "newer build"),
        (UPSTREAM, "E llama_model_load: error loading model: wrong number of tensors; expected 291, got 290", "newer build"),
        (UPSTREAM, "E llama_model_load: error loading model: illegal split file idx: 1 (file: b.gguf)", "all of one download"),
        (UPSTREAM, "E gguf_init_from_reader: invalid magic characters: 'vers', expected 'GGUF'", "git-lfs"),
        (UPSTREAM, "E gguf_init_from_reader: invalid magic characters: 'PK..', expected 'GGUF'", "no GGUF"),
    ],
)  # fmt: skip
def test_a_whole_file_is_not_to_be_downloaded_again(first: str, line: str, words: str) -> None:
    found = hint(first, line)
    assert words in found
    assert "download it again" not in found and "download the model again" not in found


@pytest.mark.parametrize(
    "line",
    [
        "E llama_model_load: error loading model: tensor 'a' data is not within the file bounds, model is corrupted or incomplete",
        "E llama_model_load: error loading model: unexpectedly reached end of file",
        "E llama_model_load: error loading model: read error: unexpectedly reached end of file",
    ],
)  # fmt: skip
def test_a_file_that_is_short_is(line: str) -> None:
    assert "download it again" in hint(UPSTREAM, line)


@pytest.mark.parametrize("line", ["", "E something that nobody has seen yet"])
def test_without_a_cause_nobody_is_sent_to_download(line: str) -> None:
    assert "download" not in hint(UPSTREAM, line)


def test_a_file_that_changed_under_the_server_is_compared_with_its_header() -> None:
    found = explained("server is listening on http://127.0.0.1:1", exit=-7)
    assert found.failure_class == "bad_model" and "orch profile check" in str(found.hint)


CUBLAS = [
    "llama_init_from_model: graph splits = 84",
    "CUDA error: an unsupported value or parameter was passed to the function",
    "  current device: 0, in function ggml_cuda_op_mul_mat_cublas at /src/ggml/src/ggml-cuda.cu:1882",
]


def test_cublas_right_after_a_fit_asks_for_a_margin() -> None:
    found = explained(*CUBLAS, exit=-6)
    assert (found.failure_class, found.action) == ("engine_bug", "retry_margin")
    assert "memory.fit_margin" in str(found.hint)


def test_the_same_after_it_has_served_is_a_crash_of_that_request() -> None:
    assert explained("server is listening on http://127.0.0.1:1", *CUBLAS, exit=-6).action == "restart"


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("error: invalid argument: -dio", "set `memory.direct_io = true`"),
        ("error: invalid argument: --no-mmap", "set `memory.mmap = false`"),
        ("error: unknown argument: -mtp", 'set `speculative.type = "mtp"`'),
        ("error: invalid argument: --draft-max", "set `speculative.draft_max`"),
        ("error: invalid argument: --frobnicate", "take it out of `extra_args`"),
        ("--defrag-thold is no longer supported", "take it out of `extra_args`"),
    ],
)
def test_a_flag_that_a_build_does_not_know_is_named_with_its_setting(line: str, words: str) -> None:
    found = explained(line)
    assert found.failure_class == "bad_flag"
    assert words in str(found.hint)


@pytest.mark.parametrize(
    ("reason", "last"),
    [
        ("E srv    load_model: the frobnicator has no flux", LAST),
        ("0.00.031.404 E llama_model_load: cannot frobnicate tensor 7", LAST),
        ('ERR [              load_model] no flux in the model | tid="1" timestamp=1', ["llama_init_from_gpt_params: error: failed to load model '/m.gguf'"]),
        ("E srv  llama_server: weights are for another planet", ["E srv  llama_server: exiting due to model loading error"]),
        ("E common_init: the moon is in the wrong phase", []),
    ],
)  # fmt: skip
def test_the_reason_is_quoted_before_a_generic_last_line(reason: str, last: list[str]) -> None:
    assert explained("I srv    load_model: loading model '/m.gguf'", reason, *last).evidence == reason


def test_an_error_about_a_request_on_a_server_that_lives_is_none() -> None:
    lines = [
        "server is listening on http://127.0.0.1:1",
        "E srv    send_error: task id = 12, error: the prompt is too long",
    ]
    assert diagnose(parse_log(lines), None, alive=True).failure_class == "ok"


def test_a_kill_keeps_no_line_of_something_else_as_its_evidence() -> None:
    assert explained("E srv    load_model: the frobnicator has no flux", exit=-9).evidence == ""


@pytest.mark.parametrize(("lines", "kind"), [([UPSTREAM], "upstream"), ([FORK], "ik"), ([], "unknown"), ([UPSTREAM, FORK], "unknown")])  # fmt: skip
def test_whose_log_it_is(lines: list[str], kind: str) -> None:
    assert kind_of(lines) == kind


def test_a_class_without_causes_has_no_hint_of_its_own() -> None:
    assert hint_for("missing_file", "read error: Bad address", "upstream") is None
