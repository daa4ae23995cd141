"""One state of the lifecycle in few words: its name, its failure, its process, and a line for those who wait."""

from __future__ import annotations

from typing import Literal

from orchestrator.core.fleet.lifecycle_states import (
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

StateName = Literal["stopped", "preparing", "starting", "ready", "draining", "stopping", "backoff", "failed"]


def name_of(state: State) -> StateName:
    """Return the name under which people and programs know the state."""
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
    """Return the record of the start that the state belongs to; of what ran last when nothing runs."""
    return state.last if isinstance(state, Stopped) else state.start_record


def failure_of(state: State) -> Failure | None:
    """Return the failure that led to the state; None when none did."""
    match state:
        case Backoff() | Failed():
            return state.failure
        case Stopping():
            return state.failure
        case _:
            return None


def waits_for_files(state: State) -> bool:
    """Return whether nothing but another file, or a person, can help here: what waits for a time helps itself.

    A failure is for good because the same start would meet it again. A start is made of its profile, its model's files
    and its engine's program: once one of them is another, it is not the same start any more, whatever the failure was.
    An editor that truncates before it writes, a build that is under way and a disk that was away for a moment all end
    so.
    """
    return isinstance(state, Failed) and state.until is None


def pid_of(state: State) -> int | None:
    """Return the process id of the engine; None in states without a process that serves or starts."""
    match state:
        case Starting() | Ready() | Draining():
            return state.pid
        case _:
            return None


def progress_of(state: State, loading: str = "") -> str:
    """Return one line for those who wait for the state to change.

    :param loading: how far a load is, such as `40 % read`; empty when unknown
    """
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
