"""Builds the answer of `orch status` from what the parts of the daemon know."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Mapping, Sequence

import anyio
import anyio.to_thread

from orchestrator.adapters.hardware.gpu import GpuProvider, GpuReading
from orchestrator.api.types import (
    AttemptStatus,
    GatewayStatus,
    GpuStatus,
    LeaseStatus,
    PageCacheStatus,
    Status,
    UnloadedStatus,
)
from orchestrator.api.wording import counted
from orchestrator.core.errors import OrchError, TimedOutError
from orchestrator.core.fleet.lifecycle_states import Attempt, Draining, StartRecord, Stopped, describe, instance_of
from orchestrator.core.fleet.resident_states import StoppingOld
from orchestrator.core.fleet.state_summary import failure_of, name_of, pid_of, start_record_of
from orchestrator.daemon.control.clock import Clock
from orchestrator.daemon.control.residents import ResidentRows, memory_status
from orchestrator.daemon.fleet.engine_run import EngineRuns
from orchestrator.daemon.fleet.owner import Owner
from orchestrator.daemon.fleet.preparing import Preparer, read_files
from orchestrator.daemon.fleet.router import Router
from orchestrator.daemon.telemetry.ledger import RequestLedger
from orchestrator.gateway.contract import Traffic

COMPARE_S = 2.0
"""For the profile to be read: nobody waits longer for a status, whatever its disk does."""


async def _no_page_cache(instance: str | None) -> PageCacheStatus | None:
    return None


class StatusBuilder:
    """Builds the status.

    :param notice_of: what is worth knowing of an instance that works; None when nothing is
    :param abandoned: how many slots of the engine work for clients that are gone
    :param waiting: how many requests wait for a profile, and since when, by profile
    :param idle_s: seconds since the last request of a profile; None where it had none
    :param page_cache: how much of an instance's model is in the page cache; may take a second
    :param lease: who tries other targets, or was interrupted while he did
    :ivar gateway_url: where clients reach the gateway
    :ivar residents: builds the rows of `instances`
    """

    def __init__(
        self,
        owner: Owner,
        runs: EngineRuns,
        router: Router,
        traffic: Traffic,
        ledger: RequestLedger,
        preparer: Preparer,
        gpus: GpuProvider,
        notice_of: Callable[[str | None], str | None],
        gateway_url: str,
        clock: Clock,
        abandoned: Callable[[], int] = lambda: 0,
        waiting: Callable[[], Mapping[str, tuple[int, float]]] = dict,
        idle_s: Callable[[str], float | None] = lambda profile: None,
        lease: Callable[[], LeaseStatus | None] = lambda: None,
        page_cache: Callable[[str | None], Awaitable[PageCacheStatus | None]] = _no_page_cache,
    ) -> None:
        self._owner = owner
        self._runs = runs
        self._router = router
        self._traffic = traffic
        self._ledger = ledger
        self._preparer = preparer
        self._gpus = gpus
        self._notice_of = notice_of
        self.gateway_url = gateway_url
        self.clock = clock
        self._abandoned = abandoned
        self._lease = lease
        self._page_cache = page_cache
        self.residents = ResidentRows(owner, runs, traffic, waiting, clock, idle_s)
        self._comparing = False

    def status(self) -> Status:
        """Return the status without the devices, the page cache, and what has changed in the profile's text."""
        published = self._owner.published.value
        fleet = published.fleet
        state = fleet.state
        start_record = start_record_of(state)
        shown = start_record if not isinstance(state, Stopped) else None
        instance = instance_of(state)
        failure = failure_of(state)
        last = start_record.attempts[-1].failure if start_record and start_record.attempts else None
        return Status(
            version=1,
            state=name_of(state),
            profile=shown.target.profile if shown else None,
            engine=shown.target.engine if shown else None,
            build=self._runs.build(instance),
            pid=pid_of(state),
            margin_mib=shown.rung.margin_mib if shown and shown.rung else None,
            attempts=attempts_of(start_record, self.clock),
            gateway=GatewayStatus(
                url=self.gateway_url,
                queued=self._traffic.queued,
                in_flight=self._traffic.active - self._traffic.queued,
                abandoned=self._abandoned(),
            ),
            speed=self._ledger.speed(instance),
            gpus=[],
            since=self.clock.rfc3339(published.since),
            cause=describe(failure) if failure else None,
            hint=failure.hint if failure else (last.hint if last else None),
            stale=[],
            switching=self._router.switching or bool(fleet.moves),
            progress=self.progress(),
            daemon_pid=os.getpid(),
            generation=self._router.views.generation,
            notice=self._notice_of(instance),
            memory=memory_status(self._runs.memory(instance)),
            unloaded=UnloadedStatus(
                profile=fleet.asleep.profile, engine=fleet.asleep.engine, since=self.clock.rfc3339(published.since)
            )
            if fleet.asleep is not None
            else None,
            instances=self.residents.rows(),
            lease=self._lease(),
            page_cache=None,
        )

    def progress(self) -> str:
        """Return one line on what is under way, with the requests that a switch waits for."""
        fleet = self._owner.fleet
        for move in fleet.moves.values():  # what is in focus meanwhile is no news
            return self.residents.progress_towards(move.seat)

        text = self._router.progress()
        start = fleet.waiting.get(instance_of(fleet.state) or "")
        if start is not None and start.why:
            text = f"{text}: {start.why}"

        if not isinstance(fleet.switch, StoppingOld):
            return text

        waits = [
            f"{counted(count, 'request')} of {state.start_record.target}"
            for state in fleet.slots.values()
            if isinstance(state, Draining) and (count := self._traffic.in_flight(state.instance))
        ]
        return f"{text}; waiting for {' and '.join(waits)} (`orch switch --now` cuts them)" if waits else text

    async def full_status(self) -> Status:
        """Return the status with the devices and the page cache, and with what has changed in the profile's text.

        All three are asked for at once: a disk that does not answer is not waited for twice.
        """
        status = self.status()
        instance = instance_of(self._owner.fleet.state)

        async def add_page_cache() -> None:
            status["page_cache"] = await self._page_cache(instance)

        async def add_stale() -> None:
            status["stale"] = list(await self.stale(instance))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(add_page_cache)
            tasks.start_soon(add_stale)
            readings = await anyio.to_thread.run_sync(self._gpus.read)

        status["gpus"] = gpu_status(readings)
        await anyio.to_thread.run_sync(self.residents.add_held, status["instances"], readings)
        return status

    async def stale(self, instance: str | None = None) -> tuple[str, ...]:
        """Return what an instance's profile says differently by now; a wrong text counts as unchanged.

        :param instance: None for the one in focus
        """
        launch = self._runs.launch(instance or instance_of(self._owner.fleet.state))
        if launch is None or self._comparing:  # an earlier look has no answer yet: its disk hangs
            return ()

        def compare() -> tuple[str, ...]:
            try:
                return self._preparer.changes(launch)
            finally:
                self._comparing = False

        self._comparing = True
        try:
            return await read_files(compare, f"profile `{launch.target.profile}`", COMPARE_S)
        except OrchError as error:
            self._comparing = isinstance(error, TimedOutError)
            return ()


def gpu_status(readings: Sequence[GpuReading]) -> list[GpuStatus]:
    """Return the devices as `orch status` shows them."""
    return [
        GpuStatus(index=each.index, name=each.name, used_mib=each.used_mib, total_mib=each.total_mib)
        for each in readings
    ]


def attempts_of(start_record: StartRecord | None, clock: Clock) -> list[AttemptStatus]:
    """Return the attempts of a start, oldest first; none without a start."""
    return [_attempt(attempt, clock) for attempt in start_record.attempts] if start_record else []


def _attempt(attempt: Attempt, clock: Clock) -> AttemptStatus:
    failure = attempt.failure
    return AttemptStatus(
        number=attempt.number,
        started=clock.rfc3339(attempt.started),
        margin_mib=attempt.rung.margin_mib,
        steps=list(attempt.rung.steps),
        outcome=attempt.outcome,
        cause=failure.message if failure else None,
        evidence=failure.evidence if failure else None,
        next=attempt.next,
    )
