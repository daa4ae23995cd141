"""Figures from the log lines of both engines, as their versions write them."""

from __future__ import annotations

import pytest

from orchestrator.core.engine_log.activity import KEPT_TASKS, EngineActivity, add_records
from orchestrator.core.engine_log.parser import parse_log

AUTUMN = (
    "0.01.002.003 I slot print_timings_pp: id  0 | task 7 | prompt processing, n_tokens =   4096, progress = 0.26, "
    "t =   3.20 s / 1280.00 tokens per second"
)
SUMMER = "0.01.002.003 I slot update_slots: id  1 | task 8 | prompt processing, n_tokens = 2048, progress = 0.13"
SPRING = (
    "slot update_slots: id  2 | task 9 | prompt processing progress, n_tokens = 512, batch.n_tokens = 512, "
    "progress = 0.500000"
)


UPSTREAM_DEVICE = "0.00.131.077 T llama_prepare_model_devices: using device {} ({}) (unknown id) - {} MiB free"
FORK_DEVICE = "RPC0[10.0.0.2:50052]: using device RPC0[10.0.0.2:50052] - {} MiB free"
FORK_DRAFTS = "draft acceptance rate = 0.50000 (   10 accepted /    20 generated)"
UPSTREAM_DRAFTS = "slot print_timing: id  0 | draft acceptance = 0.75000 (    3 accepted /     4 generated)"


def activity(lines: list[str]) -> EngineActivity:
    return add_records(EngineActivity(), parse_log(lines))


def prompt_shares(lines: list[str]) -> dict[int, float]:
    return dict(activity(lines).prompt_shares)


@pytest.mark.parametrize(("line", "told"), [(AUTUMN, {7: 0.26}), (SUMMER, {8: 0.13}), (SPRING, {9: 0.5})])
def test_each_wording_is_read(line: str, told: dict[int, float]) -> None:
    assert prompt_shares([line]) == told


def test_the_newest_line_about_a_task_counts() -> None:
    later = AUTUMN.replace("0.26", "0.91")
    assert prompt_shares([AUTUMN, SUMMER, later, "slot release: id  0 | task 7 | stop processing"]) == {
        7: 0.91,
        8: 0.13,
    }


@pytest.mark.parametrize(
    "line",
    [
        "slot update_slots: id  0 | task 7 | prompt processing done, n_tokens = 72, batch.n_tokens = 4",
        "slot update_slots: id  0 | task x | prompt processing, n_tokens = 2048, progress = 0.13",
        'text: "prompt processing, n_tokens = 1, progress = 0.5"',
    ],
)
def test_other_lines_say_nothing(line: str) -> None:
    assert prompt_shares([line]) == {}


def test_the_progress_of_the_newest_tasks_is_remembered() -> None:
    lines = [AUTUMN.replace("task 7", f"task {task}") for task in range(3 * KEPT_TASKS)]
    assert sorted(prompt_shares(lines)) == list(range(2 * KEPT_TASKS, 3 * KEPT_TASKS))


def test_drafts_are_counted_in_either_engines_words() -> None:
    assert activity([FORK_DRAFTS, UPSTREAM_DRAFTS, "srv update_slots: all slots are idle"]).drafts == 24
    assert activity([FORK_DRAFTS]).drafts == 20
    assert activity([UPSTREAM_DRAFTS]).drafts == 4
    assert activity(["draft acceptance unknown"]).drafts == 0


def test_lines_about_a_prompt_are_counted_and_those_about_questions_are_not() -> None:
    lines = [
        "slot update_slots: id  3 | task 0 | prompt processing progress, n_tokens = 2048, batch.n_tokens = 2048",
        'INFO [batch_pending_prompt] kv cache rm [p0, end) | id_slot=0 id_task=1 p0=512',
        "INFO [process_single_task] slot data | n_idle_slots=0 n_processing_slots=1",
        "srv  log_server_r: done request: GET /health 127.0.0.1 200",
    ]  # fmt: skip
    assert activity(lines).prompt_batches == 2


def test_both_engines_tell_what_each_device_had_free() -> None:
    upstream = [UPSTREAM_DEVICE.format("CUDA0", "RTX", 11000), UPSTREAM_DEVICE.format("RPC0", "10.0.0.2:50052", 512)]
    assert activity(["build: 11434", *upstream]).free_mib == {"CUDA0": 11000, "RPC0": 512}
    assert activity([FORK_DEVICE.format(64), "CPU: using device CPU - 0 MiB free"]).free_mib == {"RPC0": 64}


def test_the_first_telling_counts() -> None:
    lines = [UPSTREAM_DEVICE.format("CUDA0", "RTX", free) for free in (11000, 9000)]
    assert activity(lines).free_mib == {"CUDA0": 11000}
    later = add_records(activity(lines[:1]), parse_log(lines[1:]))
    assert later.free_mib == {"CUDA0": 11000}


def test_a_client_who_sends_such_lines_moves_nothing() -> None:
    pasted = [AUTUMN, UPSTREAM_DRAFTS, UPSTREAM_DEVICE.format("CUDA0", "RTX", 1)]
    echo = [f'0.05.000.000 D srv  log_server_r: request:  {{"prompt": "{line}"}}' for line in pasted]
    open_echo = ["0.05.000.000 D Parsing input with format Content-only: this is what I see:", *pasted]
    assert activity(echo) == EngineActivity()
    assert activity(open_echo) == EngineActivity()
