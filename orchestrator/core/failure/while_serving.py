"""Device memory that ran out under an engine that lives on.

Upstream catches a failed decode: every request under way ends with an error, /health stays good, and the back end may
be of no use from then on. The engine's own log is the only place that says why.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from orchestrator.core.engine_log.events import LogRecord, RequestAnswered
from orchestrator.core.engine_log.signatures import Phase
from orchestrator.core.failure.advice import describe
from orchestrator.core.failure.diagnosis import Diagnosis, diagnose


def memory_ran_out(records: Sequence[LogRecord], first: int) -> Diagnosis | None:
    """The first failure for want of device memory after which no request was answered.

    :param records: of the engine's log so far
    :param first: the number of the first line that was printed since the last call, while the engine served
    """
    failed: Diagnosis | None = None
    for index, record in enumerate(records):
        if record.number < first:
            continue

        if RequestAnswered() in record.events:
            failed = None
        elif failed is None and record.failure is not None:
            failed = _out_of_memory(records[: index + 1], "runtime")

    return failed


def memory_ran_out_before_serving(records: Sequence[LogRecord]) -> Diagnosis | None:
    """The first failure for want of device memory before the first answer, after which the engine went on all the same.

    Upstream goes on without MTP where the memory for its context is missing (llama.cpp issue 24758).

    :param records: of the engine's log so far
    """
    for index, record in enumerate(records):
        if RequestAnswered() in record.events:
            return None

        found = _out_of_memory(records[: index + 1], "compute") if record.failure is not None else None
        if found is not None:
            return found

    return None


def _out_of_memory(records: Sequence[LogRecord], phase: Phase) -> Diagnosis | None:
    """The failure of the last record, where it is one of device memory.

    The earlier ones tell whether a margin can help.
    """
    found = diagnose(records[-1:], None)
    if found.failure_class != "device_oom":
        return None

    whole = diagnose(records, None)
    action = whole.action if whole.failure_class == "device_oom" else found.action
    message, hint = describe(
        "device_oom", phase, action, device=found.device, requested_mib=found.requested_mib, ended=None
    )
    return replace(found, phase=phase, action=action, message=message, hint=hint)


def last_failed(records: Sequence[LogRecord], first: int) -> LogRecord | None:
    """Return the newest line that says that a request could not be computed, where none went well after it.

    :param first: the number of the first line that was printed while the engine served
    """
    for record in reversed(records):
        if record.number < first or RequestAnswered() in record.events:
            return None

        failure = record.failure
        if failure is not None and failure.signature.strength in ("serving", "cause", "fatal"):
            return record

    return None
