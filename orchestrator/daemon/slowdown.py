"""Notices engines that have become slow, and MTP that has stopped: what `core/slowdown.py` decides is said here.

Devices and CPUs are looked at only while a request is in flight. An answer's share of what was seen is what was seen
while its tokens were made: its prompt moves weights over PCIe where experts are kept in host memory.

A spill is never a reason to end an engine (docs/adr/0005-silent-spill.md): it is said, and the next start keeps more
memory free, unless it was another program that took the memory.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from time import monotonic
from typing import Protocol

import anyio
import anyio.to_thread

from orchestrator.adapters.gpu import GpuReading
from orchestrator.adapters.host_cpu import CpuTimes, others_share, read_cpu
from orchestrator.core.company import Company, Request, add
from orchestrator.core.drafting import Drafting, count
from orchestrator.core.errors import OrchError
from orchestrator.core.ladder import next_rung
from orchestrator.core.slowdown import (
    DeviceLook,
    History,
    Kind,
    Sample,
    SlowdownPolicy,
    Verdict,
    assess,
    resumed,
)
from orchestrator.core.states import Draining, Ready
from orchestrator.daemon.owner import Owner
from orchestrator.daemon.performing import EnginePerformer, Run, drafts_counted
from orchestrator.gateway.contract import Finished

_log = logging.getLogger(__name__)

LOOK_S = 1.0
KEPT_LOOKS = 600
PCIE_HELD_S = 6.0
"""A counter of PCIe traffic may be shown for so long before it is measured again (`gpu_nvml.SLOW_S`)."""

GAP_S = 5.0
"""So much later than it was due, a look says that nobody was there to take it."""

_EVENTS: dict[Kind, str] = {"ok": "recovered", "slow": "slowed", "throttled": "throttled", "spilled": "spilled"}


class Traffic(Protocol):
    """What clients do with an instance (`gateway/server.py`)."""

    def in_flight(self, instance: str) -> int: ...


@dataclass(frozen=True, slots=True)
class Look:
    """:param measured: indices of the devices whose PCIe traffic was measured since the look before"""

    taken: float
    devices: tuple[DeviceLook, ...]
    measured: frozenset[int]


@dataclass(slots=True)
class Subject:
    """One instance.

    :ivar cpu: what the CPUs had done at a moment (monotonic)
    :ivar counts_drafts: whether its answers ever told of drafts
    :ivar plan: what follows from a spill, for people
    """

    company: Company = field(default_factory=Company)
    history: History = field(default_factory=History)
    drafting: Drafting = field(default_factory=Drafting)
    looks: deque[Look] = field(default_factory=lambda: deque(maxlen=KEPT_LOOKS))
    cpu: deque[tuple[float, CpuTimes]] = field(default_factory=lambda: deque(maxlen=KEPT_LOOKS))
    counts_drafts: bool = False
    draft_lines: int = 0
    plan: str = ""


class SlowdownWatch:
    """Learns what is normal for each instance from its answers, and says when it no longer is.

    :param readings: the devices; may block, and is asked in a thread
    :param record: notes an event for people: its kind, and a sentence
    :param on_notice: called when what `notice` says has changed
    :param look_s: time between two looks at the devices
    """

    def __init__(
        self,
        owner: Owner,
        performer: EnginePerformer,
        traffic: Traffic,
        readings: Callable[[], tuple[GpuReading, ...]],
        record: Callable[[str, str], None],
        on_notice: Callable[[], None],
        look_s: float = LOOK_S,
        policy: SlowdownPolicy | None = None,
    ) -> None:
        self._owner = owner
        self._performer = performer
        self._traffic = traffic
        self._readings = readings
        self._record = record
        self._on_notice = on_notice
        self._look_s = look_s
        self._policy = policy or SlowdownPolicy()
        self._subjects: dict[str, Subject] = {}
        self._spilled: list[str] = []

    async def run(self) -> None:
        """Look at what serves. For ever."""
        due = monotonic()
        while True:
            await anyio.sleep(self._look_s)
            slept = monotonic() - due > self._look_s + GAP_S
            serving = self._serving()
            for instance in self._subjects.keys() - serving.keys():
                del self._subjects[instance]

            for instance, run in serving.items():
                subject = self._subjects.setdefault(instance, Subject())
                _look_at_cpu(subject, run)
                if slept or run.stopped():
                    subject.history = resumed(subject.history, monotonic())

            busy = {instance: run for instance, run in serving.items() if self._traffic.in_flight(instance)}
            if busy:
                readings = await anyio.to_thread.run_sync(self._readings)
                for instance, run in busy.items():
                    _look(self._subjects[instance], run, readings)

            while self._spilled:
                await self._learn(self._spilled.pop())

            due = monotonic()

    def finished(self, record: Finished) -> None:
        """One more request has ended."""
        instance = record.instance
        run = self._performer.run(instance) if instance is not None else None
        if instance is None or run is None:
            return

        subject = self._subjects.setdefault(instance, Subject())
        _look_at_cpu(subject, run)
        now = monotonic()
        subject.counts_drafts = subject.counts_drafts or record.draft_tokens is not None
        request = _request(record, now, counts=subject.counts_drafts or not _speculates(run))
        subject.company, known = add(subject.company, request, self._traffic.in_flight(instance))
        for each, streams in known:
            sample = _sample(each, streams, subject)
            if sample is not None:
                before = subject.history.kind
                subject.history, verdict = assess(subject.history, sample, now, self._policy)
                self._tell(instance, run, subject, verdict)
                if verdict.kind != before:
                    self._on_notice()

        if run.launch.mtp and record.predicted_tokens:
            self._count_drafts(run, subject, record)

    def notice(self, instance: str | None) -> str | None:
        """What is worth knowing of an instance that works; None when nothing is."""
        subject = self._subjects.get(instance or "")
        if subject is None:
            return None

        parts = [subject.history.reason, subject.plan if subject.history.kind == "spilled" else ""]
        if subject.drafting.lost:
            parts.append(_no_drafts(subject.drafting))

        return "; ".join(filter(None, parts)) or None

    def _serving(self) -> dict[str, Run]:
        found = {}
        for state in self._owner.world.slots.values():
            run = self._performer.run(state.instance) if isinstance(state, Ready | Draining) else None
            if run is not None:
                found[run.launch.instance] = run

        return found

    def _tell(self, instance: str, run: Run, subject: Subject, verdict: Verdict) -> None:
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
        """Have the next start keep more memory free, if the profile names a larger margin; once an instance."""
        run, subject = self._performer.run(instance), self._subjects.get(instance)
        states = self._owner.world.slots.values()
        course = next(
            (each.course for each in states if isinstance(each, Ready | Draining) and each.instance == instance), None
        )
        if run is None or subject is None or course is None or course.rung is None or subject.plan:
            return

        rung = next_rung(course.rung, course.recovery, margin_helps=True, requested_mib=None)
        if rung is None or rung.margins is None or rung.margins == course.rung.margins:
            subject.plan = "the profile names no larger margin: raise memory.fit_margin, or lower context.size"
        else:
            try:
                await self._performer.learn(run, rung)
            except (OSError, OrchError) as error:
                subject.plan = f"the larger margin could not be kept: {error}"
            else:
                subject.plan = f"it serves on, and the next start begins with {rung}"

        self._record("margin_planned", f"{run.launch.target}: {subject.plan}")
        self._on_notice()

    def _count_drafts(self, run: Run, subject: Subject, record: Finished) -> None:
        # Builds that do not count drafts in their answers print a line for each.
        new = run.log.since(subject.draft_lines)[1]
        subject.draft_lines = run.log.next_seq
        drafted = bool(record.draft_tokens) or drafts_counted([line.text for line in new]) > 0
        before = subject.drafting.lost
        subject.drafting, news = count(subject.drafting, record.predicted_tokens or 0, drafted=drafted)
        if news == "lost":
            self._record("drafts_stopped", f"{run.launch.target}: {_no_drafts(subject.drafting)}")
        elif news == "back":
            self._record("drafts_resumed", f"{run.launch.target}: drafts are counted again")

        if subject.drafting.lost != before:
            self._on_notice()


def _no_drafts(drafting: Drafting) -> str:
    return (
        f"the profile asks for MTP, and the last {drafting.requests} answers ({drafting.tokens} tokens) were made"
        " without a single draft: the engine has stopped drafting, or the clients turned it off"
    )


def _speculates(run: Run) -> bool:
    return run.launch.profile.settings.get("speculative.type", "none") != "none"


def _look_at_cpu(subject: Subject, run: Run) -> None:
    times = read_cpu(run.child.pid) if run.child is not None else None
    if times is not None:
        subject.cpu.append((monotonic(), times))


def _look(subject: Subject, run: Run, readings: Iterable[GpuReading]) -> None:
    readings = tuple(readings)
    own = run.child.tree() if run.child is not None and any(each.processes for each in readings) else set()
    devices = tuple(_device(each, own) for each in readings)
    last = {each.index: each.pcie_mib_s for each in subject.looks[-1].devices} if subject.looks else {}
    measured = frozenset(each.index for each in devices if each.index in last and each.pcie_mib_s != last[each.index])
    subject.looks.append(Look(monotonic(), devices, measured))


def _device(reading: GpuReading, own: set[int]) -> DeviceLook:
    directions = [each for each in (reading.pcie_rx_mib_s, reading.pcie_tx_mib_s) if each is not None]
    others = None
    if reading.processes is not None:
        others = sum(mib for pid, mib in reading.processes.items() if pid not in own)

    return DeviceLook(
        index=reading.index,
        name=reading.name,
        used_mib=reading.used_mib,
        total_mib=reading.total_mib,
        pcie_mib_s=sum(directions) if directions else None,
        others_mib=others,
        throttle=reading.throttle,
    )


def _request(record: Finished, now: float, *, counts: bool) -> Request:
    """:param counts: whether an answer without a count of drafts was made without drafts"""
    entered = now - record.total_s + record.held_s
    predicted, decode_ms = record.predicted_tokens, record.predicted_ms
    if not predicted or not decode_ms or record.replays:
        return Request(entered, now)

    # The first token is the prompt's; each step after that yields one, and the drafts that were right.
    steps = max(predicted - 1 - (record.draft_accepted or 0), 0)
    deep = record.depth_tokens
    return Request(
        entered=entered,
        ended=now,
        prompt_ms=record.prompt_ms or 0.0,
        decode_ms=decode_ms,
        steps=steps,
        depth=deep - predicted / 2 if deep is not None and counts else None,
        width=1 + (record.draft_tokens or 0) / steps if steps else 1.0,
    )


def _sample(request: Request, streams: float, subject: Subject) -> Sample | None:
    if not request.steps or request.decode_ms is None or request.depth is None:
        return None

    begin = request.decode_from
    during = [each for each in subject.looks if begin <= each.taken <= request.ended]
    return Sample(
        began=begin,
        steps=request.steps,
        step_ms=request.decode_ms / request.steps,
        depth=request.depth,
        width=request.width,
        streams=streams,
        looks=_summary(during, begin),
        other_cpu=_other_cpu(subject.cpu, begin, request.ended),
    )


def _other_cpu(looks: Iterable[tuple[float, CpuTimes]], begin: float, end: float) -> float | None:
    """From the last look before it to the last one within."""
    seen = [each for each in looks if each[0] <= end]
    before = [times for taken, times in seen if taken <= begin]
    return others_share((before or [seen[0][1]])[-1], seen[-1][1]) if seen else None


def _summary(looks: list[Look], begin: float) -> tuple[DeviceLook, ...]:
    """One look a device for all of them: the last, with the median of the traffic that was measured meanwhile, and the
    reasons for lower clocks that were there half of the time.
    """
    found = []
    for last in looks[-1].devices if looks else ():
        seen = [(look, each) for look in looks for each in look.devices if each.index == last.index]
        traffic = sorted(
            each.pcie_mib_s
            for look, each in seen
            if each.pcie_mib_s is not None and (last.index in look.measured or look.taken - begin > PCIE_HELD_S)
        )
        reasons = {reason for _, each in seen for reason in each.throttle}
        found.append(
            DeviceLook(
                index=last.index,
                name=last.name,
                used_mib=last.used_mib,
                total_mib=last.total_mib,
                pcie_mib_s=traffic[len(traffic) // 2] if traffic else None,
                others_mib=last.others_mib,
                throttle=tuple(
                    sorted(
                        each for each in reasons if 2 * sum(each in device.throttle for _, device in seen) >= len(seen)
                    )
                ),
            )
        )

    return tuple(found)
