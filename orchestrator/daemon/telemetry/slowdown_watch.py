"""Notices engines that have become slow: what `core/health/slowdown.py` decides is said here.

Devices are looked at only while a request is in flight.

A spill is never a reason to end an engine (docs/adr/0005-silent-spill.md): it is said, and the next start keeps more
memory free, unless it was another program that took the memory.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from time import monotonic

import anyio
import anyio.to_thread

from orchestrator.adapters.hardware.gpu import GpuReading
from orchestrator.adapters.hardware.host_cpu import read_cpu
from orchestrator.core.errors import OrchError
from orchestrator.core.fleet.ladder import Rung, next_rung
from orchestrator.core.fleet.lifecycle_states import Draining, Ready
from orchestrator.core.health.overlap import OverlapTracker, add_request
from orchestrator.core.health.slowdown import Kind, SlowdownHistory, SlowdownPolicy, SlowdownVerdict, assess, resume
from orchestrator.core.profile.speculation import speculates
from orchestrator.daemon.fleet.engine_run import EngineRun, EngineRuns
from orchestrator.daemon.fleet.owner import Owner
from orchestrator.daemon.fleet.serving_runs import serving_runs
from orchestrator.daemon.telemetry.pace import sleep_until_tick
from orchestrator.daemon.telemetry.speed_book import SpeedBook
from orchestrator.daemon.telemetry.speed_mark_book import SpeedMarkBook
from orchestrator.daemon.telemetry.step_times import MachineSamples, request_of
from orchestrator.gateway.contract import Finished, Traffic

_log = logging.getLogger(__name__)

LOOK_S = 1.0
GAP_S = 5.0
"""So much later than it was due, a look says that nobody was there to take it."""

_EVENTS: dict[Kind, str] = {"ok": "recovered", "slow": "slowed", "throttled": "throttled", "spilled": "spilled"}


@dataclass(slots=True)
class WatchedInstance:
    """The history of one instance as far as its speed goes.

    :ivar ended: when its last request ended, monotonic
    :ivar counts_drafts: whether its answers ever told of drafts
    :ivar plan: what follows from a spill, for people
    """

    overlap: OverlapTracker = field(default_factory=OverlapTracker)
    history: SlowdownHistory = field(default_factory=SlowdownHistory)
    looks: MachineSamples = field(default_factory=MachineSamples)
    ended: float = float("-inf")
    counts_drafts: bool = False
    plan: str = ""


class SlowdownWatch:
    """Learns what is normal for each instance from its answers, and says when it no longer is.

    :param readings: the devices; may block, and is asked in a thread
    :param record: notes an event for people: its kind, and a sentence
    :param on_notice: called when what `notice` says has changed
    :param speeds: takes the answers that had an engine to themselves
    :param marks: takes them too, for what a profile's speed was on other days
    :param learn: has the next start begin no lower than on this rung; raises OrchError or OSError when it cannot
    :param look_s: time between two looks at the devices
    """

    def __init__(
        self,
        owner: Owner,
        runs: EngineRuns,
        traffic: Traffic,
        readings: Callable[[], tuple[GpuReading, ...]],
        record: Callable[[str, str], None],
        on_notice: Callable[[], None],
        learn: Callable[[EngineRun, Rung], Awaitable[object]],
        speeds: SpeedBook,
        marks: SpeedMarkBook,
        look_s: float = LOOK_S,
        policy: SlowdownPolicy | None = None,
    ) -> None:
        self._owner = owner
        self._runs = runs
        self._traffic = traffic
        self._readings = readings
        self._record = record
        self._on_notice = on_notice
        self._learn_rung = learn
        self._speeds = speeds
        self._marks = marks
        self._look_s = look_s
        self._policy = policy or SlowdownPolicy()
        self._subjects: dict[str, WatchedInstance] = {}
        self._spilled: list[str] = []

    async def run(self) -> None:
        """Sample CPUs and devices beside the instances that serve, for ever."""
        due = monotonic()
        while True:
            await sleep_until_tick(self._look_s)
            slept = monotonic() - due > self._look_s + GAP_S
            serving = serving_runs(self._owner, self._runs)
            for instance in self._subjects.keys() - serving.keys():
                del self._subjects[instance]

            for instance, run in serving.items():
                subject = self._subjects.setdefault(instance, WatchedInstance())
                look_at_cpu(subject.looks, run)
                if slept or run.stopped():
                    subject.history = resume(subject.history, monotonic())

            busy = {instance: run for instance, run in serving.items() if self._traffic.in_flight(instance)}
            if busy:
                readings = await anyio.to_thread.run_sync(self._readings)
                for instance, run in busy.items():
                    own = (
                        run.child.tree()
                        if run.child is not None and any(each.processes for each in readings)
                        else set()
                    )
                    self._subjects[instance].looks.at_devices(monotonic(), readings, own)

            while self._spilled:
                await self._learn(self._spilled.pop())

            await self._speeds.save_due(serving)
            await self._marks.save_due(serving)

            due = monotonic()

    def finished(self, record: Finished) -> None:
        """Judge the speed of a request that has ended."""
        instance = record.instance
        run = self._runs.get(instance) if instance is not None else None
        if instance is None or run is None:
            return

        subject = self._subjects.setdefault(instance, WatchedInstance())
        look_at_cpu(subject.looks, run)
        subject.ended = now = monotonic()
        subject.counts_drafts = subject.counts_drafts or record.draft_tokens is not None
        request = request_of(record, now, counts_drafts=subject.counts_drafts or not _speculates(run))
        subject.overlap, known = add_request(subject.overlap, request, self._traffic.in_flight(instance))
        for each, streams in known:
            sample = subject.looks.sample(each, streams)
            if sample is not None and not self._is_beside_another(instance, each.decode_from):
                self._speeds.note(run, sample)
                before = subject.history.kind
                subject.history, verdict = assess(subject.history, sample, now, self._policy)
                self._tell(instance, run, subject, verdict)
                if verdict.kind == "ok":
                    self._marks.note(run, sample)

                if verdict.kind != before:
                    self._on_notice()

    def _is_beside_another(self, instance: str, since: float) -> bool:
        """Return whether another engine worked on this machine since then: steps that shared it tell nothing of one."""
        others = ((name, each) for name, each in self._subjects.items() if name != instance)
        return any(each.ended > since or self._traffic.in_flight(name) for name, each in others)

    def notice(self, instance: str | None) -> str | None:
        """Return a sentence for people on an instance that works, but not as it should; None when all is well."""
        slower = self._marks.notice(self._runs.get(instance))
        subject = self._subjects.get(instance or "")
        if subject is None:
            return slower

        parts = [slower, subject.history.reason, subject.plan if subject.history.kind == "spilled" else ""]
        return "; ".join(filter(None, parts)) or None

    def _tell(self, instance: str, run: EngineRun, subject: WatchedInstance, verdict: SlowdownVerdict) -> None:
        if verdict.kind == "spilled" and not subject.plan:
            if verdict.taken_mib:
                subject.plan = "a larger margin is not learned from that"
            else:
                self._spilled.append(instance)

        if verdict.news:
            message = f"{run.launch.target}: {verdict.reason or 'it decodes as fast as before'}"
            _log.warning("%s", message)
            self._record(_EVENTS[verdict.kind], message)

    async def _learn(self, instance: str) -> None:
        """Let the next start keep more memory free, if the profile names a larger margin; once an instance."""
        run, subject = self._runs.get(instance), self._subjects.get(instance)
        states = self._owner.fleet.slots.values()
        start_record = next(
            (each.start_record for each in states if isinstance(each, Ready | Draining) and each.instance == instance),
            None,
        )
        if run is None or subject is None or start_record is None or start_record.rung is None or subject.plan:
            return

        rung = next_rung(start_record.rung, start_record.recovery, margin_helps=True, requested_mib=None)
        if rung is None or rung.margins is None or rung.margins == start_record.rung.margins:
            subject.plan = "the profile names no larger margin: raise memory.fit_margin, or lower context.size"
        else:
            try:
                await self._learn_rung(run, rung)
            except (OSError, OrchError) as error:
                subject.plan = f"the larger margin could not be kept: {error}"
            else:
                subject.plan = f"it serves on, and the next start begins with {rung}"

        self._record("margin_planned", f"{run.launch.target}: {subject.plan}")
        self._on_notice()


def _speculates(run: EngineRun) -> bool:
    return speculates(run.launch.profile.settings)


def look_at_cpu(looks: MachineSamples, run: EngineRun) -> None:
    times = read_cpu(run.child.pid) if run.child is not None else None
    if times is not None:
        looks.at_cpu(monotonic(), times)
