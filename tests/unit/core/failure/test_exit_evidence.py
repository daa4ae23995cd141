from __future__ import annotations

import pytest

from orchestrator.core.failure.diagnosis import ExitStatus
from orchestrator.core.failure.exit_evidence import OomKills, Scope, judge_kill
from tests.unit.core.failure.pasted import diagnose

LOADING = ["load_tensors: loading model tensors, this can take a while... (mmap = true)"]


def kills(before: int | None, after: int | None, scope: Scope = "engine") -> OomKills:
    return OomKills("memory.events", scope, before, after)


def judge(status: int, counted: OomKills, *, ours: bool = False, lines: list[str] = LOADING) -> tuple[str, str, str]:
    found = judge_kill(diagnose(lines, status, alive=False), ExitStatus.of(status), ours, counted)
    return found.failure_class, found.action, found.evidence


@pytest.mark.parametrize("status", [-9, 137])
def test_a_counter_that_grew_says_that_it_was_the_kernel(status: int) -> None:
    """137 is what a shell in front of the engine makes of it."""
    assert judge(status, kills(0, 1)) == ("host_oom", "retry_other", "memory.events: oom_kill 0 -> 1")


def test_a_counter_that_did_not_grow_says_that_it_was_somebody() -> None:
    found = judge_kill(diagnose(LOADING, -9, alive=False), ExitStatus.of(-9), False, kills(3, 3, "group"))
    assert (found.failure_class, found.evidence) == ("killed", "memory.events: oom_kill 3, as before")
    assert found.hint is not None and "the kernel did not" in found.hint


def test_an_engine_with_a_limit_of_its_own_is_told_of_it() -> None:
    counted = OomKills("memory.events", "engine", 0, 1, limit_mib=4096)
    found = judge_kill(diagnose(LOADING, -9, alive=False), ExitStatus.of(-9), False, counted)
    assert found.hint is not None and "`daemon.engine_memory_max_mib`, which is 4096" in found.hint


@pytest.mark.parametrize(("scope", "words"), [("group", "else is in that group"), ("machine", "the whole machine")])
def test_the_evidence_says_whom_else_the_counter_counts(scope: Scope, words: str) -> None:
    name, _, evidence = judge(-9, kills(7, 9, scope))
    assert name == "host_oom"
    assert evidence.startswith("memory.events: oom_kill 7 -> 9") and words in evidence


def test_what_orch_killed_itself_is_not_the_kernel_s() -> None:
    assert judge(-9, kills(0, 1), ours=True)[0] == "killed"


@pytest.mark.parametrize(("before", "after"), [(None, 1), (0, None), (None, None)])
def test_a_counter_that_cannot_be_read_says_nothing(before: int | None, after: int | None) -> None:
    assert judge(-9, kills(before, after)) == ("killed", "retry_other", "")


@pytest.mark.parametrize("status", [-15, -11, -6, 1, 0])
def test_other_ends_than_sigkill_have_their_own_reasons(status: int) -> None:
    plain = diagnose(LOADING, status, alive=False)
    assert judge_kill(plain, ExitStatus.of(status), False, kills(0, 1)) == plain


def test_a_cause_in_the_log_comes_before_the_counter() -> None:
    allocating = "ggml_backend_cuda_buffer_type_alloc_buffer: allocating 4100.00 MiB on device 0"
    assert judge(-9, kills(0, 1), lines=[f"{allocating}: cudaMalloc failed: out of memory"])[0] == "device_oom"


def test_a_line_about_the_kernel_s_kill_outweighs_a_counter_that_looked_elsewhere() -> None:
    line = "Out of memory: Killed process 4711 (llama-server) total-vm:9000kB"
    name, _, evidence = judge(-9, kills(0, 0, "group"), lines=[line])
    assert (name, evidence) == ("killed", line)
