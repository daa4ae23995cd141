"""One engine process and what belongs to it: its launch, its lines, its port, and a way to ask it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import anyio

from orchestrator.adapters.engine_probe import EngineProbe
from orchestrator.adapters.log.store import InstanceLog
from orchestrator.adapters.process import linux
from orchestrator.adapters.process.child import Child
from orchestrator.adapters.process.ports import owned_by
from orchestrator.daemon.fleet.preparing import HOST, Launch

DIAGNOSED_LINES = 2000
"""The end of an attempt's log that its failure is read from."""


@dataclass(slots=True)
class EngineRun:
    """One process and what belongs to it.

    :ivar log: this process's lines alone
    :ivar decided: set once it is known whether there is a process
    :ivar checks: loading and canary; cancelled as soon as the process is to end
    :ivar requested: the owner asked for the process; a launch that it no longer wanted is forgotten
    :ivar drain: the wait for the last request; a later one takes its place
    :ivar alone: no other engine ran when it was started
    :ivar unreleased_mib: device memory that a dead engine still held when this one began; None until it is known
    """

    launch: Launch
    log: InstanceLog = field(default_factory=lambda: InstanceLog(max_lines=DIAGNOSED_LINES))
    child: Child | None = None
    decided: anyio.Event = field(default_factory=anyio.Event)
    checks: anyio.CancelScope = field(default_factory=anyio.CancelScope)
    requested: bool = False
    drain: anyio.CancelScope | None = None
    alone: bool = False
    unreleased_mib: int | None = None

    def lines(self) -> list[str]:
        """The newest of its lines that are kept."""
        return [line.text for line in self.log.tail(DIAGNOSED_LINES)]

    def owns(self, port: int) -> bool | None:
        return owned_by(port, self.child.tree()) if self.child is not None else None

    def stopped(self) -> bool:
        """Whether it is stopped by a signal or a debugger."""
        stat = linux.stat_of(self.child.pid) if self.child is not None else None
        return stat is not None and stat.state in "Tt"

    def work_done(self) -> int:
        if self.child is None:
            return 0

        return (self.child.read_bytes() or 0) + self.child.rss_bytes() + self.log.next_seq


class Tee:
    """A process's lines go to its own log, which its failure is read from, and to the one that people read."""

    def __init__(self, *logs: InstanceLog) -> None:
        self._logs = logs

    def write(self, lines: Sequence[str]) -> None:
        for log in self._logs:
            log.write(lines)


@asynccontextmanager
async def engine_probe(launch: Launch) -> AsyncIterator[EngineProbe]:
    probe = EngineProbe(HOST, launch.port, launch.api_key)
    try:
        yield probe
    finally:
        with anyio.CancelScope(shield=True):
            await probe.aclose()
