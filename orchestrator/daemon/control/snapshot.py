"""What the state means to others: the gateway's view and the answer of `orch status`. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import UTC, datetime

from orchestrator.api.types import AttemptStatus as ApiAttempt
from orchestrator.api.types import StateName
from orchestrator.core.fleet.lifecycle_states import (
    Attempt,
    Backoff,
    Draining,
    Failed,
    Failure,
    Preparing,
    Ready,
    Starting,
    StartRecord,
    State,
    Stopped,
    Stopping,
    describe,
)
from orchestrator.gateway.contract import Refusal

MAX_RETRY_AFTER_S = 120
"""Clients such as the OpenAI SDK do not retry at all when told to wait longer."""


@dataclass(frozen=True, slots=True)
class Clock:
    """Turns monotonic times into wall-clock ones: `offset` is wall minus monotonic, seconds."""

    offset: float

    def rfc3339(self, monotonic: float) -> str:
        return datetime.fromtimestamp(monotonic + self.offset, UTC).isoformat(timespec="milliseconds")


def name_of(state: State) -> StateName:
    match state:
        case Stopped():
            return "stopped"
        case Preparing():
            return "preparing"
        case Starting():
            return "starting"
        case Ready():
            return "ready"
        case Draining():
            return "draining"
        case Stopping():
            return "stopping"
        case Backoff():
            return "backoff"
        case Failed():
            return "failed"


def start_record_of(state: State) -> StartRecord | None:
    return state.last if isinstance(state, Stopped) else state.start_record


def failure_of(state: State) -> Failure | None:
    """Why the state is what it is, where it is a failure's doing."""
    match state:
        case Backoff() | Failed():
            return state.failure
        case Stopping():
            return state.failure
        case _:
            return None


def pid_of(state: State) -> int | None:
    match state:
        case Starting() | Ready() | Draining():
            return state.pid
        case _:
            return None


def refusal_of(state: State, now: float) -> Refusal | None:
    """What a client is told when nothing is ready and nothing is on its way; None while something is."""
    match state:
        case Stopped():
            return Refusal("no model is running; start one with `orch up PROFILE`", "not_running", None)
        case Draining(then=None) | Stopping(then=None, failure=None):
            return Refusal("the model is being stopped", "stopping", None)
        case Failed(failure=failure, until=until):
            retry_s = None if until is None else min(max(math.ceil(until - now), 1), MAX_RETRY_AFTER_S)
            message = f"{state.start_record.target} failed: {describe(failure)}{_tried(state.start_record)}"
            return Refusal(message, failure.failure_class, retry_s, state.start_record.target.profile)
        case _:
            return None


def _tried(start_record: StartRecord) -> str:
    """What a client is told of the attempts, when there was more than one."""
    if len(start_record.attempts) < 2:
        return ""

    return "; tried: " + ", ".join(f"{each.number}. {each.rung}: {each.outcome}" for each in start_record.attempts)


def progress_of(state: State, loading: str = "") -> str:
    """One line for those who wait."""
    match state:
        case Stopped():
            return "stopped"
        case Draining(then=then) | Stopping(then=then) if then is not None:
            return f"switching to {then}"
        case Backoff():
            return f"{state.start_record.target} failed, it will be started again: {describe(state.failure)}"
        case Starting(loaded=True):
            return f"checking that {state.start_record.target} answers"
        case Starting():
            return f"loading {state.start_record.target}" + (f" ({loading})" if loading else "")
        case _:
            return f"{name_of(state)} {state.start_record.target}"


def attempts_of(start_record: StartRecord | None, clock: Clock) -> list[ApiAttempt]:
    return [_attempt(attempt, clock) for attempt in start_record.attempts] if start_record else []


def _attempt(attempt: Attempt, clock: Clock) -> ApiAttempt:
    failure = attempt.failure
    return ApiAttempt(
        number=attempt.number,
        started=clock.rfc3339(attempt.started),
        margin_mib=attempt.rung.margin_mib,
        steps=list(attempt.rung.steps),
        outcome=attempt.outcome,
        cause=failure.message if failure else None,
        evidence=failure.evidence if failure else None,
        next=attempt.next,
    )
