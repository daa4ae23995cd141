"""From an engine that did not start, or has ended, to the failure that the lifecycle decides on. Pure."""

from __future__ import annotations

import errno
from dataclasses import replace

from orchestrator.core.errors import OrchError, TimedOutError
from orchestrator.core.failure.diagnosis import Diagnosis, ExitStatus
from orchestrator.core.failure.exit_evidence import OomKills, judge_kill
from orchestrator.core.fleet.lifecycle_states import Failure

_SPAWN_CLASSES = {
    "not_found": "missing_file",
    "missing_interpreter": "missing_library",
    "not_executable": "missing_file",
    "exec_format": "illegal_instruction",
    "no_memory": "host_oom",
}
"""Why a process could not be spawned, to the failure class; anything else is the engine's fault."""

_LOOK = "`orch logs --daemon` has the details"


def mistake(failure_class: str, message: str, details: tuple[str, ...], hint: str | None) -> Failure:
    """Return the failure of a start that was refused before anything ran: the same start would be refused again."""
    return Failure(failure_class, message, details[0] if details else None, action="give_up", hint=hint)


_PASSING = frozenset(
    getattr(errno, name)
    for name in (
        "EAGAIN", "EBUSY", "EDQUOT", "EHOSTDOWN", "EHOSTUNREACH", "EINTR", "EIO", "EMFILE", "ENFILE", "ENETDOWN",
        "ENETUNREACH", "ENOMEM", "ENOSPC", "ENOTCONN", "EREMOTEIO", "EROFS", "ESTALE", "ETIMEDOUT", "ETXTBSY",
    )
)  # fmt: skip
"""What a machine may get over without anybody changing a file."""


def passes(error: BaseException) -> bool:
    """Return whether what refused a start may pass by itself: a resource that ran out, a disk that did not answer.

    Anything that nobody expected counts as such: the restart budget bounds how often it is tried.
    """
    seen: BaseException | None = error
    while seen is not None:
        match seen:
            case TimedOutError() | MemoryError() | RuntimeError():  # the latter: "can't start new thread"
                return True
            case OSError():
                return seen.errno is None or seen.errno in _PASSING

        seen = seen.__cause__ or seen.__context__

    return not isinstance(error, OrchError)


def passing_failure(message: str, details: tuple[str, ...], hint: str | None) -> Failure:
    """Return the failure of a start that was refused by something that may pass: it is tried again."""
    return Failure("missing_file", message, details[0] if details else None, action="restart", hint=hint)


def unexpected_failure(what: str, error: BaseException) -> Failure:
    """Return the failure of an instance for which something failed in a way that nobody expected.

    :param what: what was being done
    """
    reason = str(error) or type(error).__name__
    return Failure("engine_bug", f"{what} failed: {reason}", type(error).__name__, action="restart", hint=_LOOK)


def spawn_failure(kind: str, retryable: bool, message: str, details: tuple[str, ...], hint: str | None) -> Failure:
    """Return the failure of a process that could not be spawned.

    :param retryable: whether the reason may pass, such as too many processes
    """
    failure = mistake(_SPAWN_CLASSES.get(kind, "engine_bug"), message, details, hint)
    return replace(failure, action="restart") if retryable else failure


def exit_failure(found: Diagnosis, returncode: int | None, killed_after_grace: bool, kills: OomKills) -> Failure:
    """Return the failure of a process that has ended.

    :param found: what its log says
    :param returncode: as Python gives it, -9 for SIGKILL; None when it could not be learned
    :param killed_after_grace: it was sent SIGKILL because it did not heed SIGTERM
    :param kills: the kernel's count of processes killed for want of memory, before and after
    """
    if returncode is not None:
        found = judge_kill(found, ExitStatus.of(returncode), killed_after_grace, kills)

    return diagnosed_failure(found)


def diagnosed_failure(found: Diagnosis) -> Failure:
    """Return the diagnosis as the lifecycle takes it."""
    return Failure(
        failure_class=found.failure_class,
        message=found.message,
        evidence=found.evidence,
        action=found.action,
        phase=found.phase,
        device=found.device,
        requested_mib=found.requested_mib,
        hint=found.hint,
    )
