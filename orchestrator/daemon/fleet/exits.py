"""Collects what is known of an engine that did not start, or has ended; `core/fleet/failures.py` judges it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

import anyio.to_thread

from orchestrator.adapters.process.child import Exit
from orchestrator.adapters.process.spawning import SpawnError
from orchestrator.core.engine_log.events import LogRecord
from orchestrator.core.engine_log.marks import mark_line
from orchestrator.core.errors import OrchError
from orchestrator.core.failure.diagnosis import ExitStatus, diagnose
from orchestrator.core.failure.exit_evidence import OomKills
from orchestrator.core.fleet import failures
from orchestrator.core.fleet.lifecycle_states import Failure
from orchestrator.daemon.fleet.preparing import UnexpectedError
from orchestrator.engines.model_check import BrokenModelError, MissingModelError, UnfitModelError


def preparation_failure(error: OrchError) -> Failure:
    """Return the failure of a start whose profile, engine or model was found wrong before anything ran."""
    if isinstance(error, UnexpectedError) or failures.passes(error):
        return failures.passing_failure(error.message, tuple(error.details), error.hint)

    match error:
        case MissingModelError():
            name = "missing_file"
        case BrokenModelError() | UnfitModelError():
            name = "bad_model"
        case _:
            name = "bad_flag"

    return failures.mistake(name, error.message, tuple(error.details), error.hint)


def spawn_failure(error: SpawnError) -> Failure:
    """Return the failure of a process that could not be spawned."""
    return failures.spawn_failure(error.kind, error.retryable, error.message, tuple(error.details), error.hint)


def exit_mark(instance: str, exit: Exit) -> str:
    """Return the line of orch's own that says in `engine.log` how a process ended."""
    status = "unknown" if exit.returncode is None else str(ExitStatus.of(exit.returncode))
    return mark_line("exited", instance=instance, status=status, time=datetime.now(UTC).isoformat(timespec="seconds"))


async def exit_failure(records: Sequence[LogRecord], exit: Exit, kills: OomKills) -> Failure:
    """Return the failure of a process that has ended.

    :param records: of the end of its log
    """
    found = await anyio.to_thread.run_sync(lambda: diagnose(records, exit.returncode, alive=False))
    return failures.exit_failure(found, exit.returncode, exit.killed_after_grace, kills)
