"""Why an engine ended, from its exit status and its own log.

`diagnose` gathers the facts of the log (`facts.py`), then asks the rules below in their order: the first that has an
answer is right. Text alone never decides against evidence that the process went on.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from orchestrator.core.engine_log.events import LogRecord
from orchestrator.core.engine_log.signatures import Action, FailureClass, Phase
from orchestrator.core.failure.advice import describe
from orchestrator.core.failure.causes import hint_for, kind_of
from orchestrator.core.failure.facts import Facts, Hit, gather
from orchestrator.core.failure.reactions import action_for, default_action

SIGINT, SIGILL, SIGABRT, SIGBUS, SIGFPE, SIGKILL, SIGSEGV, SIGTERM = 2, 4, 6, 7, 8, 9, 11, 15
_SIGHUP, _SIGTRAP, _SIGBUS_MACOS, _SIGSYS = 1, 5, 10, 31
_CRASHES = frozenset({SIGABRT, SIGFPE, SIGSEGV, _SIGTRAP, _SIGSYS})
_STOPS = frozenset({_SIGHUP, SIGINT, SIGTERM})

_WINDOWS_SIGNALS = {
    0xC0000005: SIGSEGV,  # access violation
    0xC000001D: SIGILL,
    0xC0000094: SIGFPE,  # integer division by zero
    0xC00000FD: SIGSEGV,  # stack overflow
    0xC0000374: SIGABRT,  # heap corruption
    0xC0000409: SIGABRT,  # fail fast
}
_WINDOWS_LOADER = frozenset({0xC0000135, 0xC0000138, 0xC0000139, 0xC0000142})
"""NTSTATUS: DLL not found, ordinal not found, entry point not found, DLL initialisation failed."""

MAX_COMPUTE_MIB = 98_304
"""A compute buffer above 96 GiB, the largest workstation card, comes from the settings: no margin makes room for it."""

_TIGHT = re.compile(r"an unsupported value or parameter was passed|CUBLAS_STATUS_INVALID_VALUE")
"""cuBLAS at its first use, right after a fit: it has too little memory to work in, at every start."""

REASON_LINES = 40
"""So many lines before a generic last line its reason is looked for."""

OCCUPIED_SHARE = 0.3
"""Less of the device free than this before anything was loaded: another process has it, and a margin cannot help."""


@dataclass(frozen=True, slots=True)
class ExitStatus:
    """The end of a process: by itself with a code, or by a signal."""

    code: int | None = None
    signal: int | None = None

    @classmethod
    def of(cls, value: int) -> ExitStatus:
        """Read `Popen.returncode` (-9), a shell's 128+n (137), and Windows' NTSTATUS."""
        ntstatus = value & 0xFFFFFFFF
        if ntstatus in _WINDOWS_SIGNALS:
            return cls(code=value, signal=_WINDOWS_SIGNALS[ntstatus])

        if -64 <= value < 0:
            return cls(signal=-value)

        if 128 < value <= 128 + 64:
            return cls(code=value, signal=value - 128)

        return cls(code=value)

    @property
    def failed(self) -> bool:
        return self.signal is not None or self.code not in (0, None)

    def __str__(self) -> str:
        return f"signal {self.signal}" if self.signal is not None else f"exit code {self.code}"


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """Why one start of an engine failed, or that it did not.

    :param device: as the engine names it (`CUDA0`), where a line does
    :param requested_mib: size of the allocation that failed, MiB
    :param evidence: the line that decided; empty when it was the exit status, or when nothing failed
    :param message: one sentence for people
    :param hint: what the user can do; None when there is nothing to do
    """

    failure_class: FailureClass
    phase: Phase
    device: str | None
    requested_mib: float | None
    evidence: str
    action: Action
    message: str
    hint: str | None


@dataclass(frozen=True, slots=True)
class _Case:
    facts: Facts
    exit: ExitStatus | None
    alive: bool | None


@dataclass(frozen=True, slots=True)
class _Verdict:
    failure_class: FailureClass
    phase: Phase
    action: Action
    hit: Hit | None = None


def diagnose(records: Sequence[LogRecord], exit: ExitStatus | int | None, *, alive: bool | None = None) -> Diagnosis:
    """Classify one start.

    :param records: of this start's own output
    :param exit: None when it is not known, or when the process still runs
    :param alive: whether the process went on after the last line; None when nobody looked
    """
    facts = gather(records)
    status = ExitStatus.of(exit) if isinstance(exit, int) else exit
    if status is None and alive is not True:
        status = _reported_exit(facts)

    case = _Case(facts, status, alive)
    verdict = next(found for found in (rule(case) for rule in _RULES) if found is not None)
    memory = verdict.failure_class in ("device_oom", "host_oom")
    device = facts.device if memory else None
    requested_mib = facts.requested_mib if memory else None
    line = _reason_line(verdict, facts)
    evidence = line.text.strip()[:500] if line is not None else ""
    message, hint = describe(
        verdict.failure_class,
        verdict.phase,
        verdict.action,
        device=device,
        requested_mib=requested_mib,
        ended=str(status) if status is not None and status.failed else None,
    )
    if verdict.action != "continue":
        kind = kind_of([record.text for record in records])
        hint = hint_for(verdict.failure_class, evidence, kind) or hint

    return Diagnosis(
        verdict.failure_class, verdict.phase, device, requested_mib, evidence, verdict.action, message, hint
    )


def _reason_line(verdict: _Verdict, facts: Facts) -> LogRecord | None:
    """Return the line that is quoted: before a generic last line, the reason that the engine gave in its own words."""
    hit = verdict.hit
    if hit is not None and hit.signature.strength != "weak":
        return hit.record

    if hit is None and verdict.failure_class not in ("engine_bug", "bad_model"):
        return None

    end = facts.unknown[-1].number + 1 if hit is None and facts.unknown else hit.record.number if hit is not None else 0
    before = [record for record in facts.unknown if end - REASON_LINES <= record.number < end]
    return before[-1] if before else hit.record if hit is not None else None


def _reported_exit(facts: Facts) -> ExitStatus | None:
    """The exit as a shell, systemd or a supervisor printed it, for where nobody else knows it."""
    if facts.reported_signal is not None:
        return ExitStatus(signal=facts.reported_signal)

    return None if facts.reported_code is None else ExitStatus.of(facts.reported_code)


def _kept_running(case: _Case) -> _Verdict | None:
    """A process that lives, or that stopped cleanly after it had served, failed only in what it says of requests."""
    stopped_well = (
        case.exit is not None and not case.exit.failed and (case.facts.served or case.facts.stopped_cleanly)
    ) and not case.facts.causes
    if case.alive is not True and not stopped_well:
        return None

    return _serving(case) or _notice(case) or _Verdict("ok", "none", "continue")


def _illegal_instruction(case: _Case) -> _Verdict | None:
    hit = case.facts.first("illegal_instruction")
    if hit is None and (case.exit is None or case.exit.signal != SIGILL):
        return None

    phase: Phase = "runtime" if case.facts.phase_at_end in ("compute", "runtime") else "none"
    return _Verdict("illegal_instruction", phase, "give_up", hit)


def _named_cause(case: _Case) -> _Verdict | None:
    """The first failure that names its cause, and from which nothing later recovered; crashes after it are its wake."""
    hit = next((hit for hit in case.facts.causes if hit.signature.failure_class != "engine_bug"), None)
    if hit is None:
        return None

    failure_class = hit.signature.failure_class
    if failure_class == "device_oom":
        return _device_memory(case, hit)

    if failure_class == "killed":
        return _killed(case, hit)

    phase = case.facts.stage_of(hit)
    return _Verdict(failure_class, phase, hit.signature.action or default_action(failure_class, phase), hit)


def _device_memory(case: _Case, hit: Hit) -> _Verdict:
    facts = case.facts
    phase = facts.stage_of(hit)
    if facts.requested_mib == 0:
        # Nothing was asked for and even that was refused: the device does not work, whatever memory it has.
        return _Verdict("driver", "load", "give_up", hit)

    other = any(each.signature.action == "retry_other" for each in facts.causes)
    oversized = phase == "compute" and facts.requested_mib is not None and facts.requested_mib > MAX_COMPUTE_MIB
    occupied = facts.free_share is not None and facts.free_share < OCCUPIED_SHARE
    cannot_help = other or oversized or occupied or facts.placed_by_hand
    return _Verdict("device_oom", phase, action_for("device_oom", "margin_cannot_help" if cannot_help else ""), hit)


def _killed(case: _Case, hit: Hit | None) -> _Verdict:
    """A kill without words is mostly the kernel's, for host memory; where device and host share it, margin helps."""
    told = hit.signature.action if hit is not None else None
    action = told or action_for("killed", "shared_memory" if case.facts.metal else "")

    phase = case.facts.phase_at_end
    return _Verdict("killed", phase, action, hit)


def _serving(case: _Case) -> _Verdict | None:
    """A request failed and no later one went well."""
    hits = case.facts.unserved
    hit = next((hit for hit in hits if hit.signature.failure_class == "device_oom"), hits[0] if hits else None)
    if hit is None:
        return None

    failure_class = hit.signature.failure_class
    return _Verdict(failure_class, "runtime", hit.signature.action or default_action(failure_class), hit)


def _bug(case: _Case) -> _Verdict | None:
    hit = next((hit for hit in case.facts.causes if hit.signature.failure_class == "engine_bug"), None)
    return None if hit is None else _crashed(case, hit)


def _crashed(case: _Case, hit: Hit | None) -> _Verdict:
    """The same start fails the same way, so a crash before the first request is worth one only where it can vary."""
    phase: Phase = (hit.signature.phase if hit is not None else None) or case.facts.traced or case.facts.phase_at_end
    if phase == "none":
        phase = "runtime"

    action = hit.signature.action if hit is not None else None
    if hit is not None and not case.facts.served and _TIGHT.search(hit.record.text):
        action = action_for("engine_bug", "tight_margin")
    elif action is None:
        action = default_action("engine_bug", phase)

    return _Verdict("engine_bug", phase, action, hit)


def _weak_evidence(case: _Case) -> _Verdict | None:
    """Lines that say that something failed, not why; read with what the log shows of the machine."""
    hits = (hit for hit in case.facts.weak if hit.signature.failure_class != "engine_bug")
    hit = next((hit for hit in hits if hit.phase_before == "none" or hit.signature.phase != "none"), None)
    if hit is None:
        return None

    failure_class = hit.signature.failure_class
    if failure_class == "device_oom":
        return _device_memory(case, hit)

    quiet = failure_class == "bad_model" and case.facts.device_seen and case.facts.notice is None
    if quiet:
        # Every other reason is printed even by tools that print little: a device refused, in silence.
        return _Verdict("device_oom", case.facts.stage_of(hit), action_for("device_oom", ""), hit)

    if failure_class == "bad_model" and case.facts.notice is not None:
        return _Verdict("driver", "load", "give_up", case.facts.notice)

    return _Verdict(failure_class, hit.signature.phase or "none", default_action(failure_class, "none"), hit)


def _last_error(case: _Case) -> Hit | None:
    return next((hit for hit in case.facts.weak if hit.signature.failure_class == "engine_bug"), None)


def _signalled(case: _Case) -> _Verdict | None:
    signal = case.exit.signal if case.exit is not None else None
    if signal is None:
        return None

    last_error = _last_error(case)
    if signal == SIGKILL:
        return _killed(case, None)

    if signal in _STOPS:
        return _Verdict("killed", case.facts.phase_at_end, action_for("killed", "ended"))

    if signal in (SIGBUS, _SIGBUS_MACOS):
        # The model is mapped from its file: the file was cut short, or its disk failed, under a running server.
        return _Verdict("bad_model", "runtime", "give_up", last_error)

    return _crashed(case, last_error) if signal in _CRASHES or signal > 0 else None


def _exit_code(case: _Case) -> _Verdict | None:
    code = case.exit.code if case.exit is not None else None
    if code is None or code == 0:
        return None

    if code == 127 or code & 0xFFFFFFFF in _WINDOWS_LOADER:
        return _Verdict("missing_library", "none", "give_up")

    if code == 126:
        return _Verdict("missing_file", "none", "give_up")

    if case.facts.notice is not None and not case.facts.served:
        return _Verdict("driver", "load", "give_up", case.facts.notice)

    if code == 1 and case.facts.phase_at_end == "load":
        # No crash but the engine's own decision, while it read the file; its log level hid the reason.
        return _Verdict("bad_model", "load", "give_up")

    return _crashed(case, None)


def _last_crash_line(case: _Case) -> _Verdict | None:
    hit = _last_error(case)
    return None if hit is None else _crashed(case, hit)


def _notice(case: _Case) -> _Verdict | None:
    hit = case.facts.notice
    return None if hit is None else _Verdict("driver", "none", "continue", hit)


def _nothing_failed(case: _Case) -> _Verdict:
    return _Verdict("ok", "none", "continue")


_RULES: tuple[Callable[[_Case], _Verdict | None], ...] = (
    _kept_running,
    _illegal_instruction,
    _named_cause,
    _serving,
    _bug,
    _weak_evidence,
    _signalled,
    _exit_code,
    _last_crash_line,
    _notice,
    _nothing_failed,
)
"""In order; each either decides or passes. The last always decides."""
