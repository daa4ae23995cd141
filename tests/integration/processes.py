"""What the tests of the process layer share: a sink that keeps lines, and looks at real processes."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import Callable, Sequence

from orchestrator.adapters.process import linux
from orchestrator.adapters.process.child import LaunchSpec
from tests.busy import in_time
from tests.support import PATIENCE_S, ROOT

FAKES = ROOT / "tests" / "fakes"

INSTANCE = f"test-{os.getpid()}"
"""The tag of what is started here, told from that of another run of the tests."""

PATH = "/usr/local/bin:/usr/bin:/bin"


class Lines:
    def __init__(self) -> None:
        self.lines: list[str] = []

    def write(self, lines: Sequence[str]) -> None:
        self.lines += lines

    async def until(self, start: str, count: int = 1) -> list[str]:
        """The lines that begin so, as soon as there are enough of them."""
        await until(lambda: len(self.starting(start)) >= count, f"a line {start!r} in {self.lines}")
        return self.starting(start)

    def starting(self, start: str) -> list[str]:
        return [line for line in self.lines if line.startswith(start)]


def fake(name: str, *args: object, instance: str = INSTANCE) -> LaunchSpec:
    """One of the small programs in tests/fakes."""
    return LaunchSpec((sys.executable, "-S", str(FAKES / name), *map(str, args)), {"PATH": PATH}, "/", instance)


def shell(script: str, instance: str = INSTANCE) -> LaunchSpec:
    return LaunchSpec(("/bin/sh", "-c", script), {"PATH": PATH}, "/", instance)


async def until(condition: Callable[[], object], what: str, timeout_s: float = PATIENCE_S) -> None:
    began = time.monotonic()
    while not condition():
        assert in_time(time.monotonic() - began, timeout_s), f"not within {timeout_s:g} s: {what}"
        await asyncio.sleep(0.005)


def alive(pid: int) -> bool:
    stat = linux.stat_of(pid)
    return stat is not None and not stat.dead


def zombies() -> list[int]:
    """Dead children of this process that nobody has reaped."""
    stats = [linux.stat_of(pid) for pid in linux.children_of_self()]
    return [stat.pid for stat in stats if stat is not None and stat.dead]
