from __future__ import annotations

import pytest

from orchestrator.api.types import (
    AttemptStatus,
    GatewayStatus,
    GpuStatus,
    InstanceStatus,
    MemoryStatus,
    SpeedStatus,
    Status,
)
from orchestrator.cli.operate.render_status import lines
from orchestrator.core.fleet.state_summary import StateName


def attempt(number: int, outcome: str, **changes: object) -> AttemptStatus:
    base = AttemptStatus(
        number=number,
        started="2026-11-21T10:00:00.000+00:00",
        margin_mib=None,
        steps=[],
        outcome=outcome,
        cause=None,
        evidence=None,
        next=None,
    )
    return AttemptStatus(**{**base, **changes})  # type: ignore[typeddict-item]


def status(state: StateName = "ready", **changes: object) -> Status:
    base = Status(
        version=1,
        state=state,
        profile="demo",
        engine="upstream",
        build="b11434",
        pid=4711,
        margin_mib=1664,
        attempts=[attempt(1, "ready", margin_mib=1664)],
        gateway=GatewayStatus(url="http://127.0.0.1:8080", queued=1, in_flight=2, abandoned=0),
        speed=SpeedStatus(decode_tok_s=41.237, prompt_tok_s=1203.0, draft_acceptance=0.756),
        gpus=[GpuStatus(index=0, name="RTX 4070", used_mib=9000, total_mib=12282)],
        since="2026-11-21T10:00:05.000+00:00",
        cause=None,
        hint=None,
        stale=[],
        switching=False,
        progress="ready demo@upstream",
        daemon_pid=4700,
        generation=7,
        notice=None,
        memory=[],
        unloaded=None,
        instances=[],
        lease=None,
        page_cache=None,
    )
    return Status(**{**base, **changes})  # type: ignore[typeddict-item]


def memory(place: str, component: str, low: float, high: float | None, measured: float | None) -> MemoryStatus:
    return MemoryStatus(
        place=place,
        component=component,
        planned_mib={"low": low, "high": high},
        kind="computed",
        measured_mib=measured,
    )


def memory_lines(*rows: MemoryStatus) -> list[str]:
    return [line for line in lines(status(memory=list(rows))) if line.startswith("  memory")]


def test_memory_is_shown_as_read_and_the_plan_beside_what_differs() -> None:
    assert memory_lines(
        memory("CUDA0", "weights", 17583.8, 17583.8, 17583.8),
        memory("CUDA0", "compute", 80.0, 82.0, 489.0),
        memory("CUDA0", "overhead", 0.0, 700.0, None),
        memory("host", "weights", 257.7, 257.7, 257.7),
        memory("host", "prompt_cache", 0.0, 8192.0, None),
    ) == [
        "  memory    CUDA0: 18 073 MiB, planned 17 664 to 17 666: weights 17 584, compute 489 (planned 80 to 82)",
        "  memory    host: 258 MiB, planned 258: weights 258",
    ]


def test_before_it_serves_the_plan_is_shown() -> None:
    assert memory_lines(
        memory("device 0", "draft_kv", 32.0, 32.0, None),
        memory("device 0", "compute", 80.0, None, None),
        memory("host", "prompt_cache", 0.0, 8192.0, None),
        memory("host", "weights", 5.0, 6.0, None),
    ) == [
        "  memory    device 0: planned 112 or more MiB: draft kv 32, compute 80 or more",
        "  memory    host: planned 5 to 6 MiB: weights 5 to 6",
    ]


def test_a_serving_engine_in_full() -> None:
    assert list(lines(status())) == [
        "● ready demo on upstream",
        "  build     b11434",
        "  process   4711, ready since 2026-11-21T10:00:05.000+00:00",
        "  margin    1664 MiB",
        "  gateway   http://127.0.0.1:8080 (2 in flight, 1 queued)",
        "  speed     41.2 tok/s, 1203.0 tok/s prompt, 76% of drafts accepted",
        "  gpu 0     RTX 4070: 9000 of 12282 MiB",
    ]


def test_nothing_running_shows_no_empty_lines() -> None:
    nothing = status(
        "stopped",
        profile=None,
        engine=None,
        build=None,
        pid=None,
        margin_mib=None,
        attempts=[],
        speed=SpeedStatus(decode_tok_s=None, prompt_tok_s=None, draft_acceptance=None),
        gpus=[],
    )
    assert list(lines(nothing)) == ["○ stopped", "  gateway   http://127.0.0.1:8080 (2 in flight, 1 queued)"]


def test_a_failure_shows_its_cause_and_every_attempt() -> None:
    attempts = [
        attempt(1, "device_oom", margin_mib=1664, evidence="cudaMalloc failed", next="try margin 2048 MiB, kv:q4_0"),
        attempt(2, "device_oom", margin_mib=2048, steps=["kv:q4_0"], next="give up"),
    ]
    shown = list(lines(status("failed", cause="out of device memory", pid=None, attempts=attempts)))
    assert shown[:2] == ["✗ failed demo on upstream", "  cause     out of device memory"]
    assert shown[-6:] == [
        "  attempts",
        "    1. device_oom, margin 1664 MiB",
        "       cudaMalloc failed",
        "       next: try margin 2048 MiB, kv:q4_0",
        "    2. device_oom, margin 2048 MiB, kv:q4_0",
        "       next: give up",
    ]


@pytest.mark.parametrize(("state", "shown"), [("ready", False), ("failed", True), ("backoff", True)])
def test_a_single_attempt_is_listed_where_something_went_wrong(state: StateName, shown: bool) -> None:
    assert ("  attempts" in list(lines(status(state)))) == shown


def test_the_attempts_behind_a_ready_engine_are_listed() -> None:
    shown = list(lines(status(attempts=[attempt(1, "device_oom"), attempt(2, "ready")])))
    assert shown[-3:] == ["  attempts", "    1. device_oom", "    2. ready"]


def test_a_changed_profile_says_how_to_apply_it() -> None:
    shown = list(lines(status(stale=["context.size", "kv.k"])))
    assert "  stale     the profile changed: context.size, kv.k; `orch reload` applies it" in shown


def test_figures_of_zero_are_figures() -> None:
    speed = SpeedStatus(decode_tok_s=None, prompt_tok_s=None, draft_acceptance=0.0)
    shown = list(lines(status(margin_mib=0, speed=speed)))
    assert "  margin    0 MiB" in shown
    assert "  speed     0% of drafts accepted" in shown


def instance(profile: str, state: StateName = "ready", **changes: object) -> InstanceStatus:
    base = InstanceStatus(
        profile=profile,
        engine="upstream",
        build="b11434",
        state=state,
        pid=4711,
        focus=False,
        pinned=False,
        idle_s=None,
        in_flight=0,
        queued=0,
        memory=[],
        device_mib=None,
        host_mib=None,
        unloaded_since=None,
        waits=None,
        cause=None,
        hint=None,
        since="2026-11-21T10:00:05.000+00:00",
        progress="",
    )
    return InstanceStatus(**{**base, **changes})  # type: ignore[typeddict-item]


def test_several_residents_are_a_table_under_the_lines_of_the_one_in_focus() -> None:
    rows = [
        instance("demo", focus=True, in_flight=2, queued=1, device_mib=9000, host_mib=812),
        instance("embed", engine="ik-fork", pinned=True, idle_s=20.4, device_mib=640, host_mib=90),
        instance("code", "stopped", unloaded_since="2026-11-21T10:00:05.000+00:00", idle_s=1210.0),
        instance("vision", "preparing", waits="vision needs 9000 MiB on gpu0, 100 MiB are free"),
        instance("bad", "failed", cause="the file is no GGUF"),
    ]
    shown = list(lines(status(instances=rows)))
    alone = list(lines(status()))
    assert shown[: len(alone)] == alone
    assert shown[len(alone) :] == [
        "",
        "  profile  engine    state                       device     host  use",
        "  demo     upstream  ● ready                   9000 MiB  812 MiB  2 in flight, 1 queued  focus",
        "  embed    ik-fork   ● ready                    640 MiB   90 MiB  idle 20 s              pinned",
        "  code     upstream  ○ unloaded (idle 20 min)         -        -",
        "  vision   upstream  ◌ waiting                        -        -",
        "  bad      upstream  ✗ failed                         -        -",
        "  vision waits: vision needs 9000 MiB on gpu0, 100 MiB are free",
        "  bad: the file is no GGUF",
    ]


def test_one_resident_is_told_as_ever() -> None:
    assert list(lines(status(instances=[instance("demo", focus=True)]))) == list(lines(status()))


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"state": "held"}, "  lease     bench 3, since 10:00; chat@upstream serves again at its end"),
        ({"state": "held", "serves": None}, "  lease     bench 3, since 10:00; nothing runs after it, as before it"),
        ({"state": "restoring"}, "  lease     bench 3 is over; chat@upstream comes back"),
        (
            {"state": "interrupted", "cause": "its process ended"},
            "  interrupted bench 3: its process ended; `go` goes on",
        ),
        ({"state": "failed", "cause": "no", "resume": ""}, "  failed    bench 3: no"),
    ],
)
def test_who_tries_other_targets_is_told_and_what_became_of_it(changes: dict[str, object], line: str) -> None:
    serves = {"profile": "chat", "engine": "upstream"}
    lease = {"title": "bench 3", "resume": "go", "since": "10:00", "serves": serves, "cause": None, **changes}
    assert line in list(lines(status(lease=lease)))


def test_what_of_the_model_is_in_the_page_cache_is_shown() -> None:
    figure = {"part_mib": 9000, "resident_mib": 8100, "experts_mib": 8000, "experts_resident_mib": 7100}
    shown = list(lines(status(page_cache={**figure, "where": "experts of layers 0-25"})))
    assert "  cached    8100 of 9000 MiB that the host reads, experts 7100 of 8000 (experts of layers 0-25)" in shown
    dense = {**figure, "experts_mib": 0, "experts_resident_mib": 0, "where": ""}
    assert "  cached    8100 of 9000 MiB that the host reads" in list(lines(status(page_cache=dense)))
    unknown = {**figure, "resident_mib": None, "where": ""}
    fitted = {**figure, "experts_mib": None, "experts_resident_mib": None, "where": ""}
    told = "  cached    8100 of 9000 MiB that are mapped; what of it is on a device is not known"
    assert told in list(lines(status(page_cache=fitted)))
    assert any("the kernel tells nobody but the file's owner" in line for line in lines(status(page_cache=unknown)))
    assert not any("cached" in line for line in lines(status()))
