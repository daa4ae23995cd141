"""Performs what the machine asks for, beside the owner, and posts what came of it.

Holds the live processes by instance. Each effect runs as a task of its own; none of them touches the state.
"""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Callable
from dataclasses import dataclass, field

import anyio
from anyio.abc import TaskGroup

from orchestrator.adapters.http import EngineProbe
from orchestrator.adapters.log_store import InstanceLog
from orchestrator.adapters.ports import owned_by
from orchestrator.adapters.process import Child, Exit, LaunchSpec, SpawnError, spawn
from orchestrator.adapters.process_guard import Guard
from orchestrator.core.errors import OrchError, UsageError
from orchestrator.core.failures import diagnose
from orchestrator.core.states import (
    AwaitDrain,
    CanaryPassed,
    CheckFailed,
    Drained,
    Effect,
    Event,
    Exited,
    Failure,
    Loaded,
    NotStarted,
    Prepare,
    Prepared,
    SendCanary,
    Spawn,
    Spawned,
    StopProcess,
    Survived,
    WakeAt,
    WatchLoading,
)
from orchestrator.daemon.loading import Ended, send_canary, watch_loading
from orchestrator.daemon.preparing import BrokenModelError, Launch, MissingModelError, Preparer
from orchestrator.gateway.contract import Endpoint

_log = logging.getLogger(__name__)

DIAGNOSED_LINES = 2000
"""The end of an attempt's log that its failure is read from."""

_SPAWN_CLASSES = {"not_found": "missing_file", "not_executable": "missing_file", "exec_format": "illegal_instruction"}


@dataclass(frozen=True, slots=True)
class Limits:
    """Times in seconds: of stopping, draining and of loading without progress."""

    stop_grace_s: float = 15.0
    drain_s: float = 120.0
    load_stall_s: float = 120.0


@dataclass(slots=True)
class Run:
    """One process and what belongs to it. `spawned` is set once it is known whether there is a process."""

    launch: Launch
    log_start: int
    child: Child | None = None
    spawned: anyio.Event = field(default_factory=anyio.Event)
    checks: anyio.CancelScope | None = None

    def owns(self, port: int) -> bool | None:
        child = self.child
        return owned_by(port, child.tree()) if child is not None else None

    def work_done(self) -> int:
        child = self.child
        return child.work_done() if child is not None else 0


class EnginePerformer:
    """The performer of the real thing.

    :param tasks: the daemon's task group; effects end with it
    :param post: gives an event to the owner
    :param drain: waits until nothing is in flight on an instance, at most so many seconds
    :param on_progress: called when a loading engine has moved
    """

    def __init__(
        self,
        tasks: TaskGroup,
        post: Callable[[Event], None],
        preparer: Preparer,
        log: InstanceLog,
        guard: Guard,
        limits: Limits,
        daemon_id: str,
        drain: Callable[[str, float], object],
        on_progress: Callable[[], None],
    ) -> None:
        self._tasks = tasks
        self._post = post
        self._preparer = preparer
        self._log = log
        self._guard = guard
        self._limits = limits
        self._daemon_id = daemon_id
        self._drain = drain
        self._on_progress = on_progress
        self._runs: dict[str, Run] = {}
