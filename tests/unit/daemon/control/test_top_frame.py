"""What a frame says of the margin, and of the requests that run."""

from __future__ import annotations

from typing import cast

import pytest

from orchestrator.api.top_frames import GpuFigures, RequestRow
from orchestrator.api.types import InstanceStatus, PageCacheStatus
from orchestrator.core.fleet.ladder import Rung
from orchestrator.core.fleet.lifecycle_states import Attempt, Ready, StartRecord, Stopped, Target
from orchestrator.core.measure.slots import Slot
from orchestrator.core.profile.profile import EngineProfile, Recovery
from orchestrator.core.profile.settings import Value
from orchestrator.daemon.control.clock import Clock
from orchestrator.daemon.control.top_frame import host_figures, margin_origin, row_of, underway_row, with_shares
from orchestrator.daemon.telemetry.engine_samples import Work
from orchestrator.daemon.telemetry.request_slots import slots_of
from orchestrator.daemon.telemetry.telemetry import DeviceSnapshot
from orchestrator.gateway.contract import Finished, Underway

TARGET = Target("m", "upstream")


def start_record(*margins: int | None, steps: tuple[str, ...] = ()) -> StartRecord:
    """One attempt for each margin; the last is in force."""
    rungs = [Rung(margin, steps) for margin in margins]
    attempts = tuple(Attempt(number, 0.0, rung) for number, rung in enumerate(rungs, 1))
    return StartRecord(TARGET, rungs[-1] if rungs else None, attempts=attempts)


def profile(margin: int | None) -> EngineProfile:
    settings: dict[str, Value] = {} if margin is None else {"memory.fit": True, "memory.fit_margin": margin}
    return EngineProfile("m", "upstream", "/m.gguf", (), settings, Recovery(), ())


@pytest.mark.parametrize(
    ("tried", "written", "origin"),
    [
        ((1664,), 1664, "profile"),
        ((2048,), 1664, "learned"),
        ((1664, 2048), 1664, "ladder"),
        ((1792, 2048), 1664, "ladder"),
        ((2048, 2048), 1664, "learned"),
        ((None,), None, None),
        ((), 1664, None),
    ],
)
def test_how_a_margin_was_found(tried: tuple[int | None, ...], written: int | None, origin: str | None) -> None:
    state = Ready(start_record(*tried), "i-1", 1, 0.0)
    assert margin_origin(state, profile(written)) == origin


def test_nothing_runs_and_nothing_has_a_margin() -> None:
    assert margin_origin(Stopped(), None) is None
    assert margin_origin(Stopped(start_record(1664)), None) is None


def test_the_host_s_figures_are_those_of_the_status() -> None:
    cached = PageCacheStatus(part_mib=900, resident_mib=800, experts_mib=0, experts_resident_mib=0, where="")
    shown = host_figures(DeviceSnapshot(), cached)
    assert (shown["model_mib"], shown["model_resident_mib"]) == (900, 800)
    copied = host_figures(DeviceSnapshot(), None)
    assert (copied["model_mib"], copied["model_resident_mib"]) == (None, None)


def running(number: int, started: float = 1.0, instance: str | None = "i", *, waits: bool = False) -> Underway:
    return Underway(
        id=number, route="/completion", outcome="held" if waits else "running", started=started, held_s=0.0,
        first_token_s=0.1, total_s=1.0, instance=instance, profile="m", engine="upstream", build="b",
    )  # fmt: skip


def slot(number: int, task: int | None, *, busy: bool = True) -> Slot:
    return Slot(number, busy, 4096, task, decoded=10 * number)


def matched(requests: list[Underway], slots: list[Slot]) -> dict[int, int]:
    found = slots_of(requests, Work("i", tuple(slots), asked_s=10.0))
    return {number: each.id for number, each in found.items()}


def test_requests_that_run_and_slots_that_work_are_matched_in_their_order() -> None:
    assert matched([running(7)], [slot(0, None), slot(1, None, busy=False)]) == {7: 0}
    waiting = running(9, instance=None, waits=True)
    assert matched([running(7), running(8), waiting], [slot(0, 31), slot(1, 30), slot(2, 29, busy=False)]) == {
        7: 1,
        8: 0,
    }


@pytest.mark.parametrize(
    ("requests", "slots"),
    [
        ([running(7), running(8)], [slot(0, 1)]),  # one of them waits inside the engine, or has ended
        ([running(7)], [slot(0, 1), slot(1, 2)]),  # somebody asks the engine himself
        ([running(7, started=11.0)], [slot(0, 1)]),  # it came after the slots were asked for
        ([running(7, instance="old")], [slot(0, 1)]),
        ([running(7), running(8)], [slot(0, None), slot(1, None)]),
        ([], []),
    ],
)
def test_where_it_is_not_certain_which_slot_is_whose_nothing_is_said(
    requests: list[Underway], slots: list[Slot]
) -> None:
    assert matched(requests, slots) == {}


class WallClock:
    """Tells a moment by its number."""

    def rfc3339(self, moment: float) -> str:
        return f"moment {moment:g}"


def test_a_row_has_each_field_of_the_request_under_its_name() -> None:
    finished = Finished(
        id=7, route="/completion", outcome="complete", started=9.0, held_s=0.2504, first_token_s=0.50004, total_s=3.0,
        instance="s.1", profile="demo", engine="upstream", build="b1", status=200, replays=1, prompt_tokens=2,
        prompt_ms=3.0, output_tokens=4, output_ms=5.5, draft_tokens=6, draft_accepted=5, depth_tokens=9,
        client="laptop", request_id="r-1",
    )  # fmt: skip
    row = row_of(finished, cast(Clock, WallClock()))
    assert list(row) == list(RequestRow.__annotations__)
    assert row == {
        "id": 7, "started": "moment 9", "profile": "demo", "engine": "upstream", "build": "b1", "route": "/completion",
        "outcome": "complete", "status": 200, "prompt_tokens": 2, "output_tokens": 4, "first_token_s": 0.5,
        "prompt_tok_s": 666.67, "decode_tok_s": 545.45, "draft_tokens": 6, "draft_accepted": 5, "held_s": 0.25,
        "total_s": 3.0, "request_id": "r-1", "client": "laptop", "energy_j": None,
    }  # fmt: skip


def test_the_row_of_a_request_that_runs_has_no_status_and_the_slots_tokens() -> None:
    clock = cast(Clock, WallClock())
    row = underway_row(running(7), clock, Slot(0, True, 4096, 1, decoded=11), asked_s=6.1)
    assert (row["outcome"], row["status"], row["prompt_tokens"], row["prompt_tok_s"]) == ("running", None, None, None)
    assert (row["output_tokens"], row["decode_tok_s"], row["started"]) == (11, 2.0, "moment 1")
    assert underway_row(running(8, waits=True), clock, None, asked_s=6.1)["outcome"] == "held"


def test_each_device_tells_whose_memory_it_is_in_the_order_of_the_residents() -> None:
    gpus = [cast(GpuFigures, {"index": index}) for index in (0, 1)]
    rows = [cast(InstanceStatus, {"profile": name}) for name in ("chat", "embed")]
    shown = with_shares(gpus, {0: {"embed": 30, "chat": 400, "gone": 5}}, rows)
    assert [each["shares"] for each in shown] == [
        [{"profile": "chat", "mib": 400}, {"profile": "embed", "mib": 30}],
        [],
    ]
