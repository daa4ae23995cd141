"""The facts of one log: the failures it shows, how far the start came, and what a later line took back."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from orchestrator.core.engine_log.events import (
    BackendSeen,
    ContextBegan,
    CurrentDevice,
    Degraded,
    DeviceFree,
    DeviceSeen,
    DeviceTotal,
    ExitReported,
    FailureLine,
    LoadBegan,
    LogRecord,
    PlacedByHand,
    ProcessBegan,
    StackFrame,
    Stage,
    StageReached,
    StoppedCleanly,
    UnknownError,
)
from orchestrator.core.engine_log.signatures import FailureClass, Phase, Signature

_SURVIVED_AT: dict[Phase | None, Stage] = {
    "load": Stage.WEIGHTS,
    "kv": Stage.KV_CACHE,
    "compute": Stage.COMPUTE_BUFFERS,
    "runtime": Stage.LISTENING,
    None: Stage.COMPUTE_BUFFERS,
    "none": Stage.WEIGHTS,
}
"""The stage that a start must reach after a failure in a phase for that failure to have been survived."""

_PHASE_AFTER: dict[Stage, Phase] = {Stage.WEIGHTS: "load", Stage.KV_CACHE: "compute"}
"""The phase of a start that has reached a stage; "runtime" for the later ones."""

_PHASES: tuple[Phase, ...] = ("none", "load", "kv", "compute", "runtime")

_ABOUT_DEVICES: tuple[FailureClass, ...] = ("device_oom", "host_oom", "driver")
"""Failures whose lines name a device and a size."""


@dataclass(frozen=True, slots=True)
class Hit:
    """One line that matched one signature.

    :param phase_before: the phase of the start when the line was printed
    :param serving: it listened by then
    """

    record: LogRecord
    line: FailureLine
    phase_before: Phase
    serving: bool

    @property
    def signature(self) -> Signature:
        return self.line.signature


@dataclass(slots=True)
class Facts:
    """Everything that the rules look at.

    :param causes: failures that ended something and were not survived, in the order printed
    :param unserved: failed requests after which none went well
    :param weak: lines that tell a failure without its reason
    :param unknown: lines that the engine calls an error, and no signature knows
    :param notice: the first driver warning that ends nothing
    :param traced: the phase that the functions of the stack trace belong to
    :param reported_signal: how the process ended, as somebody printed it; `reported_code` likewise
    :param free_share: the part of the device's memory that was free before anything was loaded
    """

    causes: list[Hit] = field(default_factory=list)
    unserved: list[Hit] = field(default_factory=list)
    weak: list[Hit] = field(default_factory=list)
    unknown: list[LogRecord] = field(default_factory=list)
    notice: Hit | None = None
    served: bool = False
    stopped_cleanly: bool = False
    phase_at_end: Phase = "none"
    traced: Phase | None = None
    device_seen: bool = False
    placed_by_hand: bool = False
    metal: bool = False
    reported_signal: int | None = None
    reported_code: int | None = None
    device: str | None = None
    requested_mib: float | None = None
    free_share: float | None = None

    def first(self, failure_class: FailureClass) -> Hit | None:
        return next((hit for hit in self.causes if hit.signature.failure_class == failure_class), None)

    def stage_of(self, hit: Hit) -> Phase:
        """The phase that the line names, else one that the same failure names later, else how far the start came."""
        if hit.signature.phase is not None:
            return hit.signature.phase

        chain = [each for each in (*self.causes, *self.weak) if each.record.number >= hit.record.number]
        memory = {"device_oom", "host_oom", "bad_model"}  # the loader's last words are the same whatever failed
        wake = memory if hit.signature.failure_class in memory else {hit.signature.failure_class}
        same = (each for each in chain if each.signature.failure_class in wake)
        named = next((each.signature.phase for each in same if each.signature.phase not in (None, "runtime")), None)
        if named == "kv" and hit.serving:
            return "runtime"  # the cache is made at the start; what is allocated later are checkpoints of it

        return named or self.traced or (hit.phase_before if hit.phase_before != "none" else "load")


def gather(records: Sequence[LogRecord]) -> Facts:
    """Read the last start in the log; the one before it only when the last says nothing."""
    telling = [record for record in records if record.events]
    beginning = _last_start(telling)
    facts = _gather(telling[beginning:])
    if beginning and not (facts.causes or facts.weak or facts.unserved or facts.served):
        return _gather(telling)

    return facts


def newest_start(records: Sequence[LogRecord]) -> list[LogRecord]:
    """Return the records of the newest start that say something."""
    telling = [record for record in records if record.events]
    return telling[_last_start(telling) :]


def _last_start(records: list[LogRecord]) -> int:
    """The index at which the newest start begins; 0 unless an earlier one had come to something before it."""
    starts = [index for index, record in enumerate(records) if ProcessBegan() in record.events]
    for before, index in reversed(list(pairwise([0, *starts]))):
        if any(_came_to_something(record) for record in records[before:index]):
            while index > before and _before_the_build(records[index - 1]):
                index -= 1

            return index

    return 0


def _before_the_build(record: LogRecord) -> bool:
    """Return whether the line is of those about devices that a process prints before it names its build."""
    return any(isinstance(event, DeviceSeen | Degraded) for event in record.events) and record.stage is None


def _came_to_something(record: LogRecord) -> bool:
    failure = record.failure
    return (record.stage or 0) >= Stage.LOADED or (failure is not None and failure.signature.strength != "notice")


def _gather(records: list[LogRecord]) -> Facts:
    facts = Facts()
    hits: list[Hit] = []
    stages: list[tuple[int, Stage]] = []
    free_mib: dict[str, int] = {}
    total_mib: dict[str, int] = {}
    for record in records:
        if hits and (frame := _frame_of(record)):
            # A decode reserves graphs too: it is the outer call, and printed later.
            facts.traced = "runtime" if frame.phase == "runtime" else facts.traced or frame.phase
            continue

        for event in record.events:
            match event:
                case StageReached(stage):
                    stages.append((record.number, stage))
                    facts.served = facts.served or stage >= Stage.LISTENING
                    facts.phase_at_end = _later(facts.phase_at_end, _PHASE_AFTER.get(stage, "runtime"))
                    if stage >= Stage.LOADED:
                        facts.reported_signal = facts.reported_code = None  # that was of another process
                case ContextBegan() if record.stage is None:
                    facts.phase_at_end = _later(facts.phase_at_end, "kv")
                case LoadBegan() if record.stage is None:
                    facts.phase_at_end = _later(facts.phase_at_end, "load")
                case StoppedCleanly():
                    facts.stopped_cleanly = True
                case PlacedByHand():
                    facts.placed_by_hand = True
                case ExitReported(code, signal):
                    facts.reported_code = code or facts.reported_code
                    facts.reported_signal = signal or facts.reported_signal
                case FailureLine():
                    hits.append(Hit(record, event, facts.phase_at_end, facts.served))
                case UnknownError():
                    facts.unknown.append(record)
                case DeviceSeen():
                    facts.device_seen = True
                case DeviceFree(_, free, index) if index is not None:
                    free_mib[index] = free
                case DeviceTotal(index, total):
                    total_mib[index] = total
                case BackendSeen("metal"):
                    facts.metal = True
                case _:
                    pass

    facts.free_share = min(
        (free / total_mib[index] for index, free in free_mib.items() if total_mib.get(index)), default=None
    )
    _sort(facts, hits, stages)
    facts.device, facts.requested_mib = _allocation((*facts.causes, *facts.unserved, *facts.weak), records)
    return facts


def _frame_of(record: LogRecord) -> StackFrame | None:
    return next((event for event in record.events if isinstance(event, StackFrame)), None)


def _later(one: Phase, other: Phase) -> Phase:
    return max(one, other, key=_PHASES.index)


def _sort(facts: Facts, hits: list[Hit], stages: list[tuple[int, Stage]]) -> None:
    for hit in hits:
        number, strength = hit.record.number, hit.signature.strength
        later = [stage for at, stage in stages if at > number]
        if strength == "notice":
            facts.notice = facts.notice or hit
        elif strength == "serving":
            if Stage.ANSWERED not in later:
                facts.unserved.append(hit)
        elif not _survived(hit, later):
            (facts.weak if strength == "weak" else facts.causes).append(hit)


def _survived(hit: Hit, later: Iterable[Stage]) -> bool:
    """A later stage, of the same phase or beyond, shows that the process went on.

    A line about loading on a server that already serves is no engine's line: it was printed for a client.
    """
    phase = hit.signature.phase or hit.phase_before
    if hit.phase_before == "runtime" and hit.record.level == "E" and hit.signature.strength == "cause":
        # The engine's own word about a request: the next one being taken up says nothing, its answer does.
        return Stage.ANSWERED in later

    if hit.signature.strength == "fatal":
        return any(stage >= Stage.LOADED for stage in later)

    return any(stage >= _SURVIVED_AT[phase] for stage in later)


def _allocation(hits: Iterable[Hit], records: Sequence[LogRecord]) -> tuple[str | None, float | None]:
    """The device and the size, MiB, of the first failed allocation: a buffer's name says more than an index."""
    lines = [hit.line for hit in hits if hit.signature.failure_class in _ABOUT_DEVICES]
    device = next((line.device for line in lines if line.device), None)
    requested_mib = next((line.requested_mib for line in lines if line.requested_mib is not None), None)
    if device is None and lines:
        events = [event for record in records for event in record.events]
        current = (event.index for event in events if isinstance(event, CurrentDevice))
        index = next((line.index for line in lines if line.index), None) or next(current, None)
        if index is not None:
            device = f"{'ROCm' if BackendSeen('rocm') in events else 'CUDA'}{index}"

    return device, requested_mib
