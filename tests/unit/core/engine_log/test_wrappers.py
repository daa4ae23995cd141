"""Wrappers come off, client text stays out, and nothing makes the classifier raise."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.core.engine_log.events import LinesLeftOut
from orchestrator.core.engine_log.lines import without_sequences
from orchestrator.core.engine_log.wrappers import parse_pasted_log
from orchestrator.core.failure.diagnosis import Diagnosis, ExitStatus
from tests.unit.core.failure.pasted import diagnose
from tests.unit.core.failure.test_diagnosis import OOM_LINES, fixture

WRAPPERS: dict[str, Callable[[str], str]] = {
    "none": lambda line: line,
    "docker compose": lambda line: f"llama-server-1  | {line}",
    "journald": lambda line: f"Nov 21 10:12:01 box llama-server[4242]: {line}",
    "router": lambda line: f"[51234] {line}",
    "kubernetes": lambda line: f"2026-06-01T12:00:00.123456789Z stderr F {line}",
    "LM Studio": lambda line: f"[2026-06-01 12:00:00][DEBUG] {line}",
    "colours": lambda line: f"\x1b[31m{line}\x1b[0m",
    "Windows": lambda line: f"{line}\r",
    "PowerShell": lambda line: f"llama-server.exe : {line}",
    "logfmt": lambda line: f"time=2026-06-01T12:00:00Z level=INFO source=server.go:1 msg={json.dumps(line)}",
    "json": lambda line: json.dumps({"type": "log", "level": "error", "msg": line + "\n"}),
    "docker json": lambda line: json.dumps({"log": line + "\n", "stream": "stderr"}),
    "LocalAI": lambda line: f"9:25PM DBG GRPC(m.gguf-127.0.0.1:34567): stderr {line}",
    "Python logging": lambda line: f"2026-06-01 12:00:00,123 - engine - INFO - {line}",
}


def verdict(diagnosis: Diagnosis) -> tuple[str, str, str, str | None, float | None]:
    found = diagnosis
    return found.failure_class, found.phase, found.action, found.device, found.requested_mib


@pytest.mark.parametrize("wrapper", WRAPPERS)
@pytest.mark.parametrize(
    "name",
    ["healthy-upstream", "healthy-ik", "missing-file-upstream", "oom-compute-ik", "oom-first-request-upstream"],
)
def test_what_others_put_around_a_line_changes_nothing(name: str, wrapper: str) -> None:
    wrapped = [WRAPPERS[wrapper](line) for line in fixture(name)]

    assert verdict(diagnose(wrapped, None)) == verdict(diagnose(fixture(name), None))


@settings(deadline=None)  # a busy machine takes its time
@given(st.lists(st.sampled_from(sorted(WRAPPERS)), max_size=2))
def test_wrappers_inside_of_wrappers_change_nothing(wrappers: list[str]) -> None:
    lines = list(OOM_LINES)
    for wrapper in wrappers:
        lines = [WRAPPERS[wrapper](line) for line in lines]

    assert verdict(diagnose(lines, 1)) == verdict(diagnose(OOM_LINES, 1))


LOG_TEXT = st.lists(
    st.one_of(
        st.text(),
        st.sampled_from([*OOM_LINES, "[...]", "Killed", '{"level":', "0.00.000.000 E ", 'msg="', "[[[[", "{" * 3000]),
        st.sampled_from(fixture("healthy-upstream") + fixture("healthy-ik") + fixture("oom-compute-ik")),
    )
)


@given(LOG_TEXT, st.one_of(st.none(), st.integers(-(2**40), 2**40)), st.sampled_from([None, True, False]))
def test_any_text_with_any_exit_has_a_diagnosis(lines: list[str], exit_code: int | None, alive: bool | None) -> None:
    found = diagnose(lines, exit_code, alive=alive)

    assert found.message
    assert found.action == "continue" or not (alive and found.failure_class == "ok")
    assert len(found.evidence) <= 500
    assert found.evidence == without_sequences(found.evidence)


@given(st.builds(ExitStatus, code=st.none() | st.integers(), signal=st.none() | st.integers(1, 64)))
def test_an_exit_that_failed_is_never_called_ok(status: ExitStatus) -> None:
    assert (diagnose([], status).failure_class == "ok") is not status.failed


@settings(deadline=None)
@given(before=st.text(max_size=40), after=st.text(max_size=40), line=st.sampled_from(OOM_LINES))
def test_a_prompt_with_the_line_in_it_leaves_a_healthy_log_healthy(before: str, after: str, line: str) -> None:
    prompt = f"{before}\n{line}\n{after}"
    request = json.dumps({"messages": [{"role": "user", "content": prompt}]})
    indented = json.dumps({"messages": [{"role": "user", "content": prompt}]}, indent=2).splitlines()
    for healthy, echo in (
        (fixture("healthy-upstream"), [f"0.05.000.000 D srv  log_server_r: request:  {request}"]),
        (fixture("healthy-ik"), [f'VERB [  handle] request | tid="1" timestamp=1 request={json.dumps(request)}']),
        (fixture("healthy-upstream"), ["[2026-06-01 12:00:00][DEBUG] Received request: POST with body", *indented]),
    ):
        assert diagnose([*healthy, *echo], None).failure_class == "ok"


@given(st.text())
def test_nothing_that_a_terminal_acts_on_is_left(text: str) -> None:
    kept = without_sequences(f"\x1b]0;{text}\x07\x1b[2J{text}\x9b1A")

    assert not {"\x1b", "\x07", "\x9b", "\r", "\x00", "\u202e"} & set(kept)


def test_a_gap_is_marked() -> None:
    records = parse_pasted_log(["a b", "[...]", "c d"])
    assert [LinesLeftOut() in record.events for record in records] == [False, True, False]
