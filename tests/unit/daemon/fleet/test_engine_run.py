"""What a process's own log says of it."""

from __future__ import annotations

import pytest

from tests.unit.daemon.telemetry.idle_parts import run_on

OOM = (
    "E ggml_backend_cuda_buffer_type_alloc_buffer: allocating 2645.29 MiB on device 0: cudaMalloc failed: out of memory"
)
NO_LAYERS = "W llama_init_from_model: context type MTP requested but model doesn't contain MTP layers"
TIMED = "0.14.000.000 I slot print_timing: id  0 | task 4 |        eval time =      10.00 ms /     8 tokens"


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("lines", "action", "failure_class", "evidence"),
    [
        ((OOM, TIMED), "retry_margin", "device_oom", OOM),  # the next start keeps more memory free
        ((NO_LAYERS, TIMED), "give_up", "engine_bug", NO_LAYERS),
        ((TIMED,), "give_up", "engine_bug", None),
    ],
)
async def test_why_nothing_is_drafted_is_in_the_log(
    lines: tuple[str, ...], action: str, failure_class: str, evidence: str | None
) -> None:
    run = run_on(1, "a.1")
    run.log.write(lines)
    assert run.drafts_in_log() == 0
    failure = run.undrafted(3)
    assert (failure.action, failure.failure_class, failure.evidence) == (action, failure_class, evidence)
