"""Has the daemon start profiles and waits until they answer, for `orch up` and `orch init`."""

from __future__ import annotations

from typing import Any, NamedTuple

from orchestrator.adapters.paths import Paths
from orchestrator.api import client
from orchestrator.api.types import InstanceStatus, Status
from orchestrator.api.wording import rollback_text
from orchestrator.cli import waiting
from orchestrator.cli.start_options import HINT
from orchestrator.core.errors import OrchError


class NotSwitchedError(OrchError):
    """Raised when what was to take the place of what runs did not start."""


class Started(NamedTuple):
    """How a start has ended.

    :param rows: of the profiles that were loaded beside it
    """

    status: Status
    rows: list[InstanceStatus]


def request_start(paths: Paths, body: dict[str, object]) -> dict[str, Any]:
    """Ask for a start, with a daemon that is started for it if none runs; return its answer.

    :param body: of `/v1/up`
    :raises OrchError: when it is refused; a daemon that was started for it ends again
    """
    import json

    from orchestrator.cli.launching import ensure_daemon

    started = ensure_daemon(paths)
    try:
        answer: dict[str, Any] = json.loads(
            client.request(paths.control_socket, "/v1/up", json.dumps(body).encode(), timeout_s=120)
        )
        return answer
    except OrchError:
        if started:  # nothing was running, and nothing shall stay behind a mistake
            client.request(paths.control_socket, "/v1/down", b'{"all": true}')

        raise


def await_start(path: str, answer: dict[str, Any], timeout_s: float) -> Started:
    """Wait until what was asked for answers, or has failed.

    :raises NotSwitchedError: when what ran before serves on instead
    :raises TimedOutError: when that takes longer than `timeout_s`; the daemon goes on
    """
    if answer["operation"] is not None:  # it takes the place of what runs: its result says why, if it does not
        result = waiting.until_switched(path, answer["operation"], timeout_s)
        if not result["ok"]:
            rollback = rollback_text(result)
            raise NotSwitchedError(
                f"{answer['target']} did not start: {result['cause']}",
                details=(rollback,) if rollback else (),
                hint=HINT,
            )

    status = waiting.until_settled(path, answer["generation"], timeout_s=timeout_s)
    rows = [
        waiting.until_loaded(path, each["profile"], answer["generation"], timeout_s=timeout_s)
        for each in answer["beside"]
    ]
    return Started(client.status(path) if rows else status, rows)


def is_ready(answer: dict[str, Any], status: Status) -> bool:
    """Return whether what was asked for answers requests."""
    wanted = status["profile"] == answer["profile"] and status["engine"] == answer["engine"]
    return status["state"] == "ready" and wanted


def not_started(answer: dict[str, Any], status: Status) -> OrchError:
    """Return the error of a start that did not end well."""
    replaced = status["state"] == "ready"
    other = f"{status['profile']} on {status['engine']} is {status['state']}"
    cause = status["cause"] or ("it was unloaded again" if status["unloaded"] is not None else other)
    return OrchError(
        f"{answer['target']} was replaced: {cause}" if replaced else f"{answer['target']} did not start: {cause}",
        details=() if replaced else attempt_texts(status),
        hint="`orch events` shows what happened" if replaced else status["hint"] or HINT,
    )


def attempt_texts(status: Status) -> tuple[str, ...]:
    """Return one line for each attempt, with what ended it."""
    return tuple(
        f"attempt {attempt['number']}: {attempt['outcome']}: {attempt['evidence'] or attempt['cause'] or ''}"
        for attempt in status["attempts"]
    )
