"""What TERM, INT and HUP make the daemon do. Signals are sent to a process of its own."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import cast

import anyio
import pytest

from orchestrator.core.errors import UsageError
from orchestrator.daemon.control.event_log import EventLog
from orchestrator.daemon.process.manager_link import ManagerLink
from orchestrator.daemon.process.signals import Signals
from tests.unit.daemon.running_owner import until

HEEDS = """
import anyio, logging, sys
from orchestrator.daemon.control.event_log import EventLog
from orchestrator.daemon.process import signals

class Link:
    def reloading(self): print("reloading", flush=True)
    def reloaded(self, remark): print("reloaded", remark, flush=True)

async def reload(): print("reload", flush=True)

async def main():
    signals.has_terminal = lambda: TERMINAL
    heeded = signals.Signals()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(heeded.heed)
        tasks.start_soon(heeded.reload_when_told, reload, Link(), EventLog(None))
        await anyio.sleep(0.05)
        print("heeds", flush=True)
        await heeded.ending.wait()
        print("ending", flush=True)
        await heeded.forced.wait()
        print("forced", flush=True)
        tasks.cancel_scope.cancel()

anyio.run(main)
"""


@contextmanager
def heeding(*, terminal: bool) -> Iterator[subprocess.Popen[str]]:
    """A process that heeds signals as the daemon does, and prints what follows."""
    program = HEEDS.replace("TERMINAL", str(terminal))
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as process:
        try:
            assert next_line(process) == "heeds"
            yield process
        finally:
            process.kill()


def next_line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_first_signal_lets_requests_end_and_a_second_one_does_not_wait(number: signal.Signals) -> None:
    with heeding(terminal=False) as process:
        process.send_signal(number)
        assert next_line(process) == "ending"
        process.send_signal(number)
        assert next_line(process) == "forced"
        assert process.wait(30) == 0


def test_hup_reloads_and_tells_the_manager_before_and_after() -> None:
    with heeding(terminal=False) as process:
        for _ in range(2):
            process.send_signal(signal.SIGHUP)
            assert [next_line(process) for _ in range(3)] == ["reloading", "reload", "reloaded"]


def test_hup_of_a_terminal_ends_the_daemon() -> None:
    with heeding(terminal=True) as process:
        process.send_signal(signal.SIGHUP)
        assert next_line(process) == "ending"


class NotedLink:
    """What the service manager would be told."""

    def __init__(self) -> None:
        self.remarks: list[str] = []

    def reloading(self) -> None:
        pass

    def reloaded(self, remark: str) -> None:
        self.remarks.append(remark)


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("error", "remark"),
    [
        (None, ""),
        (UsageError("unknown key", details=("orch.toml:3",)), "unknown key; orch.toml:3"),
        (PermissionError(13, "Permission denied"), "[Errno 13] Permission denied"),
    ],
)
async def test_what_is_wrong_at_a_reload_is_said_and_the_next_one_is_heeded(
    error: Exception | None, remark: str
) -> None:
    signals, link, event_log = Signals(), NotedLink(), EventLog(None)

    async def reload() -> None:
        if error is not None:
            raise error

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(signals.reload_when_told, reload, cast(ManagerLink, link), event_log)
        for count in (1, 2):
            signals._hung_up.set()
            await until(lambda count=count: len(link.remarks) == count)  # type: ignore[misc]

        tasks.cancel_scope.cancel()

    said = f"reload failed, what was read before stays: {remark}" if remark else ""
    assert link.remarks == [said] * 2
    expected = ("reload_failed", said) if remark else ("reloaded", "the profiles were read anew")
    assert [(event["kind"], event["message"]) for event in event_log.after(0)] == [expected] * 2
