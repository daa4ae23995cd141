from __future__ import annotations

import threading

import pytest

from orchestrator.adapters.writer_thread import WriterThread
from tests.support import PATIENCE_S


class Collector:
    """Moves what waits to what is written, one at a time; each takes as long as `pace` is not set."""

    def __init__(self) -> None:
        self.waiting: list[int] = []
        self.written: list[int] = []
        self.pace = threading.Event()
        self.pace.set()
        self.writer = WriterThread("collector", self.run)

    def add(self, number: int) -> bool:
        with self.writer.condition:
            started = self.writer.start()
            self.waiting.append(number)
            self.writer.condition.notify()
            return started

    def run(self) -> None:
        while True:
            with self.writer.condition:
                self.writer.condition.wait_for(lambda: self.waiting or self.writer.closing)
                if not self.waiting:
                    return

                number = self.waiting.pop(0)

            self.pace.wait(PATIENCE_S)
            self.written.append(number)


def test_there_is_no_thread_before_there_is_something_to_write() -> None:
    before = threading.active_count()
    collector = Collector()
    assert threading.active_count() == before
    assert collector.writer.close(0.0)


def test_all_that_waits_is_written_before_it_is_closed() -> None:
    collector = Collector()
    for number in range(100):
        assert collector.add(number)

    assert collector.writer.close(PATIENCE_S)
    assert collector.written == list(range(100))


def test_a_slow_disk_does_not_hold_up_who_closes() -> None:
    collector = Collector()
    collector.pace.clear()
    collector.add(1)
    assert not collector.writer.close(0.05)
    collector.pace.set()
    assert collector.writer.close(PATIENCE_S)
    assert collector.written == [1]


def test_a_thread_that_cannot_be_started_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    collector = Collector()
    with monkeypatch.context() as limited:
        limited.setattr(threading.Thread, "start", refuse)
        assert not collector.add(1)

    assert collector.writer.start_error == "can't start new thread"
    assert collector.add(2)
    assert collector.writer.close(PATIENCE_S)
    assert collector.written == [1, 2]
