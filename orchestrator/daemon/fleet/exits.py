"""What is known of an engine that did not start, or that has ended, as the failure that the machine decides on."""

from __future__ import annotations

from dataclasses import replace

import anyio.to_thread

from orchestrator.adapters.process.child import Exit
from orchestrator.adapters.process.spawning import SpawnError
from orchestrator.core.errors import OrchError
from orchestrator.core.failure.diagnosis import Diagnosis, ExitStatus, diagnose
from orchestrator.core.failure.exit_evidence import OomKills, judge_kill
from orchestrator.core.fleet.lifecycle_states import Failure
from orchestrator.daemon.fleet.preparing import BrokenModelError, MissingModelError

_SPAWN_CLASSES = {
    "not_found": "missing_file",
    "missing_interpreter": "missing_library",
    "not_executable": "missing_file",
    "exec_format": "illegal_instruction",
    "no_memory": "host_oom",
}


def preparation_failure(error: OrchError) -> Failure:
    """A mistake that was found before anything ran: the same start would meet it again."""
    match error:
        case MissingModelError():
            name = "missing_file"
        case BrokenModelError():
            name = "bad_model"
        case _:
            name = "bad_flag"

    evidence = error.details[0] if error.details else None
    return Failure(name, error.message, evidence, action="give_up", hint=error.hint)


def spawn_failure(error: SpawnError) -> Failure:
    name = _SPAWN_CLASSES.get(error.kind, "engine_bug")
    return replace(preparation_failure(error), failure_class=name, action="restart" if error.retryable else "give_up")


async def exit_failure(lines: list[str], exit: Exit, kills: OomKills) -> Failure:
    """Read from the exit status, the process's own lines and the kernel's count of kills.

    :param lines: the end of its log
    """
    found = await anyio.to_thread.run_sync(lambda: diagnose(lines, exit.returncode, alive=False))
    if exit.returncode is not None:
        found = judge_kill(found, ExitStatus.of(exit.returncode), exit.killed_after_grace, kills)

    failure = diagnosed_failure(found)
    # The port was free when it was chosen, so somebody was quicker; the next start gets another one.
    return replace(failure, action="restart") if found.failure_class == "port_in_use" else failure


def diagnosed_failure(found: Diagnosis) -> Failure:
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
