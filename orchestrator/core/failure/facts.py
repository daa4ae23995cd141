"""What one log says: which failures it shows, how far the start came, and what a later line took back."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import pairwise

from orchestrator.core.failure import signatures as table
from orchestrator.core.failure.lines import EngineLine
from orchestrator.core.failure.signatures import FailureClass, Phase, Signature

_RANK: dict[Phase | None, int] = {"load": 1, "kv": 2, "compute": 3, "runtime": table.SERVING, None: 3, "none": 1}
"""The milestone that a start must reach after a failure in a phase for that failure to have been survived."""

_QUIET_LEVELS = frozenset("IDT")
"""The engine's own levels below warning: what fails is never told there, and client text is."""


@dataclass(frozen=True, slots=True)
class Hit:
    """One line that matched one signature.

    :param phase_before: how far the start had come when the line was printed
    :param serving: whether it listened by then
    """

    line: EngineLine
    signature: Signature
    match: re.Match[str]
    phase_before: Phase
    serving: bool


@dataclass(slots=True)
class Facts:
    """Everything that the rules look at.

    :param causes: failures that ended something and were not survived, in the order printed
    :param unserved: failed requests after which none went well
    :param weak: lines that tell a failure without its reason
    :param notice: the first driver warning that ends nothing
    :param traced: what the engine was doing by its stack trace
    :param free_share: the part of the device's memory that was free before anything was loaded
    """

    causes: list[Hit] = field(default_factory=list)
    unserved: list[Hit] = field(default_factory=list)
    weak: list[Hit] = field(default_factory=list)
    notice: Hit | None = None
    served: bool = False
    stopped_cleanly: bool = False
    phase_at_end: Phase = "none"
    traced: Phase | None = None
    device_seen: bool = False
    placed_by_hand: bool = False
    metal: bool = False
    told_signal: int | None = None
    told_code: int | None = None
    device: str | None = None
    requested_mib: float | None = None
    free_share: float | None = None

    def first(self, failure_class: FailureClass) -> Hit | None:
        return next((hit for hit in self.causes if hit.signature.failure_class == failure_class), None)

    def stage_of(self, hit: Hit) -> Phase:
        """The phase that the line names, else one that the same failure names later, else how far the start came."""
        if hit.signature.phase is not None:
            return hit.signature.phase

        chain = [each for each in (*self.causes, *self.weak) if each.line.number >= hit.line.number]
        memory = {"device_oom", "host_oom", "bad_model"}  # the loader's last words are the same whatever failed
        wake = memory if hit.signature.failure_class in memory else {hit.signature.failure_class}
        same = (each for each in chain if each.signature.failure_class in wake)
        named = next((each.signature.phase for each in same if each.signature.phase not in (None, "runtime")), None)
        if named == "kv" and hit.serving:
            return "runtime"  # the cache is made at the start; what is allocated later are checkpoints of it

        return named or self.traced or (hit.phase_before if hit.phase_before != "none" else "load")


def gather(lines: list[EngineLine]) -> Facts:
    """Read the last start in the log; the one before it only when the last says nothing."""
    beginning = _last_start(lines)
    facts = _gather(lines[beginning:])
    if beginning and not (facts.causes or facts.weak or facts.unserved or facts.served):
        return _gather(lines)

    return facts


def _last_start(lines: list[EngineLine]) -> int:
    """Where the newest start begins, if an earlier one had come to something before it."""
    starts = [index for index, line in enumerate(lines) if _matches(table.NEW_START, line)]
    for before, index in reversed(list(pairwise([0, *starts]))):
        came_to_something = ((_rank(line) or 0) >= table.LOADED or _failed(line) for line in lines[before:index])
        if any(came_to_something):
            return index

    return 0


def _failed(line: EngineLine) -> bool:
    found = _find(line)
    return found is not None and found[0].strength != "notice"


def _gather(lines: list[EngineLine]) -> Facts:
    facts = Facts()
    hits: list[Hit] = []
    milestones: list[tuple[int, int]] = []
    free: dict[str, int] = {}
    total: dict[str, int] = {}
    phase: Phase = "none"
    serving = False
    previous: EngineLine | None = None
    for line in lines:
        before, previous = previous, line
        if not line.texts:
            continue

        if hits and _matches(table.TRACE_LINE, line):
            frame = next((phase for pattern, phase in table.TRACE_PHASES if pattern.search(line.raw)), None)
            # A decode reserves graphs too: it is the outer call, and printed later.
            facts.traced = frame if frame == "runtime" else facts.traced or frame
            continue

        rank = _rank(line)
        if rank is not None:
            milestones.append((line.number, rank))
            serving = serving or rank >= table.SERVING
            if rank >= table.LOADED:
                facts.told_signal = facts.told_code = None  # that was told of another process

        signs = _matches(table.ANY_SIGN, line)
        if signs:
            _note(facts, line, free, total)

        if signs or rank is not None:
            phase = _later(phase, _phase_of(line, rank))

        if _suspicious(line):
            _note_exit(facts, line)

        if before and _matches(table.PINNED, before) and _matches(table.VULKAN_REASON, line):
            continue

        found = _find(line)
        if found is not None:
            hits.append(Hit(line, *found, phase, serving))

    facts.phase_at_end = phase
    facts.served = serving
    facts.free_share = _least_share(free, total)
    _sort(facts, hits, milestones)
    facts.device, facts.requested_mib = _allocation((*facts.causes, *facts.unserved, *facts.weak), lines)
    return facts


def _rank(line: EngineLine) -> int | None:
    if not _matches(table.ANY_MILESTONE, line):
        return None

    return next(rank for pattern, rank in table.MILESTONES if _matches(pattern, line))


def _find(line: EngineLine) -> tuple[Signature, re.Match[str]] | None:
    if line.level in _QUIET_LEVELS or not _suspicious(line) or not _matches(table.ANY_SIGNATURE, line):
        return None

    if _matches(table.HARMLESS, line):
        return None

    for signature in table.SIGNATURES:
        for text in line.texts:
            match = signature.pattern.match(text)
            if match is not None:
                return signature, match

    return None


def _suspicious(line: EngineLine) -> bool:
    return bool(line.texts) and any(map(line.texts[0].lower().__contains__, table.BAD_WORDS))


def _matches(pattern: re.Pattern[str], line: EngineLine) -> bool:
    return any(map(pattern.match, line.texts))


_PHASES: tuple[Phase, ...] = ("none", "load", "kv", "compute", "runtime")


def _later(one: Phase, other: Phase) -> Phase:
    return max(one, other, key=_PHASES.index)


def _phase_of(line: EngineLine, rank: int | None) -> Phase:
    """What a start that printed this line is doing next."""
    if rank is None:
        if _matches(table.CONTEXT_BEGUN, line):
            return "kv"

        return "load" if _matches(table.LOAD_BEGUN, line) else "none"

    if rank >= 3:
        return "runtime"

    return "compute" if rank == 2 else "load"


def _note(facts: Facts, line: EngineLine, free: dict[str, int], total: dict[str, int]) -> None:
    facts.stopped_cleanly = facts.stopped_cleanly or _matches(table.CLEAN_STOP, line)
    facts.device_seen = facts.device_seen or _matches(table.DEVICE_SEEN, line)
    facts.placed_by_hand = facts.placed_by_hand or _matches(table.PLACED_BY_HAND, line)
    facts.metal = facts.metal or _matches(table.METAL_SEEN, line)
    for text in line.texts:
        if match := table.DEVICE_TOTAL.match(text):
            total[match["index"]] = int(match["total"])
        elif match := table.DEVICE_FREE.match(text):
            free[match["index"]] = int(match["free"])


def _note_exit(facts: Facts, line: EngineLine) -> None:
    if line.level is not None:
        told = next((found for found in map(table.ROUTER_TOLD.match, line.texts) if found), None)
        facts.told_code = facts.told_code if told is None else int(told["code"])
        return

    for text in line.texts:
        if signal := next((number for pattern, number in table.TOLD_SIGNALS if pattern.match(text)), None):
            facts.told_signal = signal

        if code := table.TOLD_CODE.match(text):
            told_code = int(code["code"], 16 if code["code"].startswith("0x") else 10)
            facts.told_code = told_code or facts.told_code


def _least_share(free: dict[str, int], total: dict[str, int]) -> float | None:
    return min((free[index] / total[index] for index in free if total.get(index)), default=None)


def _sort(facts: Facts, hits: list[Hit], milestones: list[tuple[int, int]]) -> None:
    for hit in hits:
        number, strength = hit.line.number, hit.signature.strength
        later = [rank for at, rank in milestones if at > number]
        if strength == "notice":
            facts.notice = facts.notice or hit
        elif strength == "serving":
            if table.ANSWERED not in later:
                facts.unserved.append(hit)
        elif not _survived(hit, later):
            (facts.weak if strength == "weak" else facts.causes).append(hit)


def _survived(hit: Hit, later: Iterable[int]) -> bool:
    """A later milestone of the same stage or beyond shows that the process went on.

    A line about loading on a server that already serves is no engine's line: it was printed for a client.
    """
    phase = hit.signature.phase or hit.phase_before
    if hit.phase_before == "runtime" and hit.line.level == "E" and hit.signature.strength == "cause":
        # The engine's own word about a request: the next one being taken up says nothing, its answer does.
        return table.ANSWERED in later

    if hit.signature.strength == "fatal":
        return any(rank >= table.LOADED for rank in later)

    return any(rank >= _RANK[phase] for rank in later)


def _allocation(hits: Iterable[Hit], lines: list[EngineLine]) -> tuple[str | None, float | None]:
    """The device and the size, MiB, of the first failed allocation: a buffer's name says more than an index."""
    device = indexed = None
    requested_mib: float | None = None
    memory = [hit for hit in hits if hit.signature.failure_class in ("device_oom", "host_oom", "driver")]
    for hit in memory:
        found = hit.match.groupdict()
        device = device or found.get("device")
        indexed = indexed or found.get("index")
        if requested_mib is None:
            if found.get("mib") or found.get("mib2"):
                requested_mib = float(found.get("mib") or found["mib2"])
            elif found.get("bytes"):
                requested_mib = round(int(found["bytes"]) / 2**20, 2)

    if device is None and memory:
        if indexed is None:
            current = (table.CURRENT_DEVICE.match(text) for line in lines for text in line.texts)
            indexed = next((match["index"] for match in current if match), None)

        if indexed is not None:
            rocm = any(_matches(table.ROCM_SEEN, line) for line in lines)
            device = f"{'ROCm' if rocm else 'CUDA'}{indexed}"

    return device, requested_mib
