from __future__ import annotations

import asyncio
import json
from datetime import datetime
from pathlib import Path

import pytest

from orchestrator.daemon.control.event_log import KEPT, MAX_FILE_BYTES, EventLog


def messages(event_log: EventLog, after: int = 0) -> list[str]:
    return [event["message"] for event in event_log.after(after)]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "events.jsonl"


def test_events_are_numbered_and_can_be_read_from_a_point_on() -> None:
    event_log = EventLog(None)
    for message in ("one", "two", "three"):
        event_log.add("ready", message)

    assert [event["id"] for event in event_log.after(0)] == [1, 2, 3]
    assert messages(event_log, 1) == ["two", "three"]
    assert messages(event_log, 3) == []


def test_an_event_carries_its_kind_and_a_time_with_a_zone() -> None:
    event_log = EventLog(None)
    event_log.add("ready", "demo is ready")
    (event,) = event_log.after(0)
    assert (event["kind"], event["message"]) == ("ready", "demo is ready")
    assert datetime.fromisoformat(event["time"]).tzinfo is not None


def test_events_survive_and_their_numbers_go_on(path: Path) -> None:
    before = EventLog(str(path))
    before.add("ready", "one")
    before.add("exited", "zwölf\nlines")
    after = EventLog(str(path))
    assert after.after(0) == before.after(0)
    assert after.news.value == 2
    after.add("ready", "three")
    assert [event["id"] for event in after.after(0)] == [1, 2, 3]


def test_the_file_holds_one_event_a_line_for_its_owner_alone(path: Path) -> None:
    event_log = EventLog(str(path))
    event_log.add("exited", "two\nlines")
    event_log.add("ready", "one")
    assert [json.loads(line) for line in path.read_text().splitlines()] == event_log.after(0)
    assert path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("kept", range(1, 60, 7))
def test_a_last_line_that_a_crash_cut_short_costs_that_event_alone(path: Path, kept: int) -> None:
    event_log = EventLog(str(path))
    for message in ("one", "two ä"):
        event_log.add("ready", message)

    whole = path.read_bytes()
    path.write_bytes(whole[: whole.index(b"\n") + 1 + kept])
    again = EventLog(str(path))
    assert messages(again) == ["one"]
    again.add("ready", "three")
    again.add("ready", "four")
    assert messages(EventLog(str(path))) == ["one", "three", "four"]


@pytest.mark.parametrize("garbage", [b"\xff\xfe\n", b'{"id": "one"}\n', b"[]\n", b"\n", b'{"id":1}\n', b"\x00" * 50])
def test_lines_that_are_no_events_are_passed_over(path: Path, garbage: bytes) -> None:
    EventLog(str(path)).add("ready", "one")
    with path.open("ab") as file:
        file.write(garbage)

    again = EventLog(str(path))
    again.add("ready", "two")
    assert messages(EventLog(str(path))) == ["one", "two"]


def test_memory_keeps_the_last_events_only() -> None:
    event_log = EventLog(None)
    for number in range(KEPT + 5):
        event_log.add("ready", str(number))

    assert len(event_log.after(0)) == KEPT
    assert messages(event_log)[0] == "5"


def test_a_large_file_is_rotated_and_nothing_recent_is_lost(path: Path) -> None:
    event_log = EventLog(str(path))
    text = "x" * 5000
    while not path.with_name("events.jsonl.1").exists():
        event_log.add("ready", text)
        assert path.stat().st_size <= MAX_FILE_BYTES + 6000

    again = EventLog(str(path))
    assert again.after(0) == event_log.after(0)
    again.add("ready", "last")
    assert again.after(0)[-1]["id"] == event_log.after(0)[-1]["id"] + 1


def test_events_that_cannot_be_written_are_still_told(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path.mkdir()
    event_log = EventLog(str(path))
    event_log.add("ready", "one")
    assert messages(event_log) == ["one"]
    assert [record.getMessage()[:18] for record in caplog.records] == ["events not read: [", "event not recorded"]


@pytest.mark.asyncio
async def test_a_new_event_wakes_those_who_follow() -> None:
    event_log = EventLog(None)
    follower = asyncio.create_task(event_log.news.changed(event_log.news.generation))
    await asyncio.sleep(0)
    assert not follower.done()
    event_log.add("ready", "one")
    assert await follower == 1
    assert messages(event_log) == ["one"]
