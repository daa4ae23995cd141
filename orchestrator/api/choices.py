"""The choices of a dashboard: the answers of `GET /v1/targets` and `GET /v1/launch`.

As in `types`, fields may be added, not renamed.
"""

from __future__ import annotations

from typing import TypedDict


class TargetChoice(TypedDict):
    """A profile on an engine that could be started. `default` says that it is the profile's own engine."""

    profile: str
    engine: str
    build: str
    description: str
    default: bool
    running: bool


class Targets(TypedDict):
    """`left_out` says in a sentence each what is not offered, and why: no such engine here, no model file."""

    targets: list[TargetChoice]
    left_out: list[str]


class LaunchFacts(TypedDict):
    """The process that runs, or ran last.

    :ivar argv: the binary first; keys are in files, never in it
    :ivar drain_s: how long a stop waits for the requests that run
    :ivar daemon_ends: whether a stop ends the daemon as well
    """

    profile: str
    engine: str
    build: str
    pid: int | None
    binary: str
    argv: list[str]
    env: dict[str, str]
    directory: str
    log_file: str | None
    drain_s: float
    daemon_ends: bool
