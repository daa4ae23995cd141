"""The one reader of a running engine's log: nothing twice, nothing left out, whoever asks."""

from __future__ import annotations

import anyio
import pytest

from orchestrator.adapters.log.store import InstanceLog
from orchestrator.daemon.fleet.log_cursor import LINES_AT_ONCE, LogCursor

DRAFTS = "draft acceptance rate = 0.50000 (   10 accepted /    20 generated)"
BUFFER = "ggml_gallocr_reserve_n: failed to allocate CUDA1 buffer of size 104857600"

pytestmark = pytest.mark.anyio


def test_each_line_is_read_once() -> None:
    log = InstanceLog()
    cursor = LogCursor(log)
    log.write([DRAFTS, "x"])
    cursor.catch_up_now()
    cursor.catch_up_now()
    assert (cursor.activity.drafts, cursor.next_line) == (20, 2)
    log.write([DRAFTS])
    cursor.catch_up_now()
    assert (cursor.activity.drafts, cursor.next_line) == (40, 3)


async def test_several_who_ask_at_once_read_each_line_once_and_in_order() -> None:
    log = InstanceLog()
    cursor = LogCursor(log)
    log.write([DRAFTS] * (5 * LINES_AT_ONCE + 7))
    async with anyio.create_task_group() as tasks:
        for _ in range(3):
            tasks.start_soon(cursor.catch_up)

        tasks.start_soon(anyio.lowlevel.checkpoint)
        log.write([DRAFTS])
        cursor.catch_up_now()

    assert cursor.activity.drafts == 20 * (5 * LINES_AT_ONCE + 8)
    numbers = [record.number for record in cursor.records]
    assert numbers == list(range(5 * LINES_AT_ONCE + 8))


def test_records_go_with_the_lines_that_the_log_keeps() -> None:
    log = InstanceLog(max_lines=3)
    cursor = LogCursor(log)
    log.write([BUFFER, "x"])
    cursor.catch_up_now()
    assert [record.text for record in cursor.records] == [BUFFER]
    log.write(["y", "z"])
    assert cursor.records == ()


def test_lines_that_were_gone_before_they_were_read_are_left_out() -> None:
    log = InstanceLog(max_lines=2)
    cursor = LogCursor(log)
    log.write([DRAFTS] * 5)
    cursor.catch_up_now()
    assert (cursor.activity.drafts, cursor.next_line) == (40, 5)
