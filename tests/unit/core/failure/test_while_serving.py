from __future__ import annotations

import pytest

from orchestrator.core.engine_log.parser import parse_log
from orchestrator.core.failure.diagnosis import Diagnosis
from orchestrator.core.failure.while_serving import memory_ran_out as memory_ran_out_since
from orchestrator.core.failure.while_serving import memory_ran_out_before_serving

BUFFER = "0.12.000.100 E ggml_gallocr_reserve_n_impl: failed to allocate CUDA1 buffer of size 104857600"
VULKAN = "0.12.000.200 E srv  update_slots: decode() failed: vk::Device::allocateMemory: ErrorOutOfDeviceMemory"
METAL = "0.12.000.200 E ggml_metal_synchronize: error: Insufficient Memory (00000008:kIOGPUCommandBufferCallback)"
COMPUTE = "0.12.000.300 E srv  send_error: task id = 3, error: Compute error."
RELEASED = "0.12.000.400 I slot      release: id  0 | task 3 | stop processing: n_tokens = 12, truncated = 0"
LAUNCHED = "0.13.000.000 I slot launch_slot_: id  0 | task 4 | processing task, is_child = 0"
TIMED = "0.14.000.000 I slot print_timing: id  0 | task 4 |        eval time =      10.00 ms /     8 tokens"
FORK_BUFFER = "ggml_gallocr_reserve_n: failed to allocate CUDA1 buffer of size 104857600"


def memory_ran_out(lines: list[str], new: int) -> Diagnosis | None:
    """As when the last `new` lines were printed since the last look."""
    return memory_ran_out_since(parse_log(lines), len(lines) - new)


@pytest.mark.parametrize("line", [BUFFER, FORK_BUFFER])
def test_a_failed_allocation_says_on_which_device_and_how_much(line: str) -> None:
    found = memory_ran_out([line], 1)
    assert found is not None
    assert (found.failure_class, found.device, found.requested_mib) == ("device_oom", "CUDA1", 100.0)
    assert found.evidence == line
    assert (found.action, found.phase) == ("retry_margin", "runtime")


def test_where_the_model_was_placed_by_hand_a_margin_does_not_help() -> None:
    by_hand = (
        "0.01.000.000 W failed to fit params to free device memory: tensor_buft_overrides already set by user, abort"
    )
    found = memory_ran_out([by_hand, LAUNCHED, BUFFER], 2)
    assert found is not None
    assert found.action == "retry_other"


@pytest.mark.parametrize("line", [BUFFER, VULKAN, METAL])
def test_neither_the_end_of_the_failed_request_nor_the_begin_of_another_makes_it_well(line: str) -> None:
    found = memory_ran_out([LAUNCHED, line, COMPUTE, RELEASED, LAUNCHED], 5)
    assert found is not None
    assert (found.failure_class, found.evidence) == ("device_oom", line)


@pytest.mark.parametrize("line", [BUFFER, VULKAN, METAL])
def test_a_request_that_is_answered_afterwards_shows_that_it_recovered(line: str) -> None:
    assert memory_ran_out([line, RELEASED, LAUNCHED, TIMED], 4) is None


def test_one_that_was_answered_before_shows_nothing() -> None:
    assert memory_ran_out([LAUNCHED, TIMED, BUFFER], 3) is not None


def test_what_was_looked_at_before_is_not_told_again() -> None:
    assert memory_ran_out([BUFFER, COMPUTE, LAUNCHED], 1) is None


@pytest.mark.parametrize(
    "line",
    [
        COMPUTE,
        "0.12.000.100 E ggml_backend_cpu_buffer_type_alloc_buffer: failed to allocate buffer of size 4096000000",
        "0.12.000.100 D ggml_cuda_host_malloc: failed to allocate 100.00 MiB of pinned memory: out of memory",
        "0.12.000.100 W decode: failed to find free space in the KV cache, retrying with smaller batch size",
        "0.12.000.100 I srv  log: CUDA error: out of memory",
    ],
)
def test_other_failures_are_no_matter_of_device_memory(line: str) -> None:
    assert memory_ran_out([line, RELEASED], 2) is None


def test_a_clients_text_is_no_reason_though_it_was_begun_before_the_last_look() -> None:
    lines = ["0.12.000.100 D srv  process: formatted prompt: 'hello", "CUDA error: out of memory", BUFFER[15:]]
    assert memory_ran_out(lines, 2) is None


MTP_OOM = "E ggml_backend_cuda_buffer_type_alloc_buffer: allocating 2645.29 MiB on device 0: cudaMalloc failed"


def test_memory_that_was_missing_before_the_first_answer_says_why_nothing_is_drafted() -> None:
    found = memory_ran_out_before_serving(parse_log([MTP_OOM, LAUNCHED, TIMED]))
    assert found is not None and (found.requested_mib, found.phase) == (2645.29, "compute")
    assert found.action == "retry_margin"


@pytest.mark.parametrize("lines", [[LAUNCHED, TIMED], [LAUNCHED, TIMED, MTP_OOM]])
def test_memory_that_was_missing_later_or_never_does_not(lines: list[str]) -> None:
    assert memory_ran_out_before_serving(parse_log(lines)) is None
