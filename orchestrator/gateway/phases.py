"""The phases of a request that an engine answers, each with the data that exists in it. Pure.

    ReadingBody --> Queued --> AwaitingHead --> Relaying --> Concluded
                      ^             |              |
                      |             +--- failed ---+
                      |                    |
                      +--- send again -- Recovering --> Concluded

The happy path is the first line. A request that fails recovers as `failure_policy` says. Every phase can be followed by
`Concluded`: the client may leave and the gateway may stop at any moment.
"""

from __future__ import annotations

from dataclasses import dataclass

from orchestrator.adapters.http1 import UpstreamResponse


@dataclass(frozen=True, slots=True)
class ReadingBody:
    """The body of the request is on its way."""


@dataclass(frozen=True, slots=True)
class Queued:
    """The request waits for an instance, be it for no time.

    :param since: monotonic time
    """

    since: float


@dataclass(frozen=True, slots=True)
class AwaitingHead:
    """An instance was asked; the head of its answer has not come."""


@dataclass(frozen=True, slots=True)
class Relaying:
    """The instance's answer is passed on to the client."""

    upstream: UpstreamResponse


@dataclass(frozen=True, slots=True)
class Recovering:
    """The instance failed; the daemon is asked whether it died, and another one is coming."""


@dataclass(frozen=True, slots=True)
class Concluded:
    """The client has its answer, an error or nothing any more."""

    failed: bool


READING_BODY = ReadingBody()
AWAITING_HEAD = AwaitingHead()
RECOVERING = Recovering()
ANSWERED, FAILED = Concluded(failed=False), Concluded(failed=True)

Phase = ReadingBody | Queued | AwaitingHead | Relaying | Recovering | Concluded

NEXT: dict[type[Phase], tuple[type[Phase], ...]] = {
    ReadingBody: (Queued, Concluded),
    Queued: (AwaitingHead, Concluded),
    AwaitingHead: (Relaying, Recovering, Concluded),
    Relaying: (Recovering, Concluded),
    Recovering: (Queued, Concluded),
    Concluded: (),
}
"""The phases that may follow each phase."""
