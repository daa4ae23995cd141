"""The requests that wait and run, as `GET /v1/requests` tells them. Pure.

Nothing of what was asked or answered is in it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import TypedDict

from orchestrator.gateway.contract import EngineProgress, Underway


class RequestEntry(TypedDict):
    """One request that has not ended.

    :ivar id: its `X-Request-Id`; `number` counts the requests of this daemon, and is unique
    :ivar client: the name of its key; None without one
    :ivar model: the name that the client asked for; `profile` is what that means
    :ivar state: as `Underway.state`; `since` is when it was entered (RFC 3339), `started` when the request arrived
    :ivar output_tokens: generated so far; `prompt_done` is the share of its prompt that was read, 0 to 1. None where
        the engine does not tell
    """

    id: str
    number: int
    client: str | None
    model: str | None
    profile: str | None
    route: str
    state: str
    since: str
    started: str
    output_tokens: int | None
    prompt_done: float | None
    engine: str | None
    instance: str | None


class CancelledEntry(TypedDict):
    """A request that was ended on demand; fields as of `RequestEntry`."""

    id: str
    number: int


def cancelled_entries(found: Sequence[Underway]) -> list[CancelledEntry]:
    """Return what is told of requests that were ended."""
    return [CancelledEntry(id=each.request_id or "", number=each.id) for each in found]


def request_entries(
    underway: Sequence[Underway], progress: Mapping[int, EngineProgress], wall_offset_s: float
) -> list[RequestEntry]:
    """Return the entries, in the order in which the requests came.

    :param progress: what is known of the engine's work, by the request's number
    :param wall_offset_s: Unix time minus monotonic time
    """
    return [_entry(each, progress.get(each.id, EngineProgress()), wall_offset_s) for each in underway]


def _entry(request: Underway, progress: EngineProgress, wall_offset_s: float) -> RequestEntry:
    return RequestEntry(
        id=request.request_id or "",
        number=request.id,
        client=request.client,
        model=request.model,
        profile=request.profile,
        route=request.route,
        state=request.state,
        since=_rfc3339(request.since + wall_offset_s),
        started=_rfc3339(request.started + wall_offset_s),
        output_tokens=progress.output_tokens,
        prompt_done=progress.prompt_done,
        engine=request.engine,
        instance=request.instance,
    )


def _rfc3339(unix_s: float) -> str:
    return datetime.fromtimestamp(unix_s, UTC).isoformat(timespec="milliseconds")
