"""What requests to the control API bring with them: bodies in JSON, and numbers in the query."""

from __future__ import annotations

import math
from typing import Annotated, Literal, TypeVar

import msgspec

from orchestrator.adapters.http1 import Request
from orchestrator.core.errors import UsageError
from orchestrator.core.fleet.resident_states import Strategy

B = TypeVar("B")


class UpBody(msgspec.Struct, forbid_unknown_fields=True):
    profile: str | None = None
    engine: str | None = None
    beside: list[str] = []
    unverified: bool = False
    force: bool = False


class SwitchBody(msgspec.Struct, forbid_unknown_fields=True):
    target: str
    strategy: Strategy | None = None
    dry_run: bool = False
    now: bool = False
    again: bool = False
    keep: bool = False
    unverified: bool = False
    force: bool = False
    lease: str | None = None


class EventBody(msgspec.Struct, forbid_unknown_fields=True):
    """What another command of orch did, for those who follow the daemon's events."""

    kind: Literal["engine_build"]
    message: Annotated[str, msgspec.Meta(max_length=2000)]


class LeaseBody(msgspec.Struct, forbid_unknown_fields=True):
    title: str
    resume: str = ""


class LeaseEndBody(msgspec.Struct, forbid_unknown_fields=True):
    lease: str


class LoadBody(msgspec.Struct, forbid_unknown_fields=True):
    profile: str
    engine: str | None = None
    unverified: bool = False
    force: bool = False


class UnloadBody(msgspec.Struct, forbid_unknown_fields=True):
    profile: str


class PinBody(msgspec.Struct, forbid_unknown_fields=True):
    profile: str
    pinned: bool = True


class RestartBody(msgspec.Struct, forbid_unknown_fields=True):
    profile: str | None = None


class CancelBody(msgspec.Struct, forbid_unknown_fields=True):
    id: str | int


class QuarantineBody(msgspec.Struct, forbid_unknown_fields=True):
    id: str | None = None


class DownBody(msgspec.Struct, forbid_unknown_fields=True):
    profiles: list[str] = []
    force: bool = False
    all: bool = False


def number(query: dict[str, list[str]], name: str, default: float) -> float:
    text = query.get(name, [str(default)])[-1]
    try:
        found = float(text)
    except ValueError:
        found = math.nan

    if not math.isfinite(found):
        raise UsageError(f"`{name}` must be a number, found `{text}`")

    return found


async def body_of(request: Request, kind: type[B]) -> B:
    try:
        return msgspec.json.decode(await request.body() or b"{}", type=kind)
    except msgspec.DecodeError as error:
        raise UsageError(f"the request's body is wrong: {error}") from None
