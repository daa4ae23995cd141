"""Frames with the log lines that came between them."""

from __future__ import annotations

from typing import Any

import pytest

from tests.tui.recorded import Recording, frame
from tui.feed import LOG_LINES, Feed


def logged(first: int, *texts: str) -> list[dict[str, Any]]:
    return [{"seq": number, "text": text} for number, text in enumerate(texts, first)]


@pytest.mark.asyncio
async def test_the_log_is_fetched_only_while_it_is_shown() -> None:
    recording = Recording(frame("serving"))
    update = await Feed(recording).fetch(with_log=False)
    assert (update.frame, update.log, update.log_restarted) == (frame("serving"), [], False)
    assert recording.asked == []


@pytest.mark.asyncio
async def test_each_line_comes_once() -> None:
    recording = Recording(frame("serving"))
    feed = Feed(recording)
    recording.answers["/v1/logs"] = logged(3, "a", "b")
    first = await feed.fetch(with_log=True)
    recording.answers["/v1/logs"] = logged(5, "c")
    second = await feed.fetch(with_log=True)

    assert (first.log, first.log_restarted) == (["a", "b"], True)
    assert (second.log, second.log_restarted) == (["c"], False)
    assert [target for target, _ in recording.asked] == [
        f"/v1/logs?lines={LOG_LINES}", f"/v1/logs?lines={LOG_LINES}&after=4",
    ]  # fmt: skip


@pytest.mark.asyncio
async def test_lines_that_were_missed_are_counted() -> None:
    recording = Recording(frame("serving"))
    feed = Feed(recording)
    recording.answers["/v1/logs"] = logged(0, "a")
    await feed.fetch(with_log=True)
    recording.answers["/v1/logs"] = logged(8, "b")
    assert (await feed.fetch(with_log=True)).log == [
        "[7 lines came too quickly to be shown; they are in the file]", "b",
    ]  # fmt: skip


@pytest.mark.asyncio
async def test_another_daemon_counts_its_lines_from_the_beginning() -> None:
    recording = Recording(frame("serving"))
    feed = Feed(recording)
    recording.answers["/v1/logs"] = logged(40, "old")
    await feed.fetch(with_log=True)

    other = frame("serving")
    other["status"]["daemon_pid"] += 1
    recording.answers |= {"/v1/frame": other, "/v1/logs": logged(0, "new")}
    update = await feed.fetch(with_log=True)
    assert (update.log, update.log_restarted) == (["new"], True)
    assert recording.asked[-1][0] == f"/v1/logs?lines={LOG_LINES}"
