"""The decision on a request that failed: sent again, answered with an error, or ended where it is. Pure.

What was written to the client decides. While that is nothing of an answer, the death of an engine need not be the
client's: the request takes its old place in the queue and is sent to the next instance, once, and as often as no
instance got it. Afterwards the status is no longer the gateway's to choose: a stream ends with the error event of its
API family, anything else is cut. Never a `[DONE]` that the engine did not send.

| failure | nothing written | only comments | events of a stream | a part of a body |
|---|---|---|---|---|
| the client left | nothing | nothing | nothing | nothing |
| no instance got it, another one is coming | send again | send again | end the stream | cut |
| its engine died, body kept, first time | send again | send again | end the stream | cut |
| its engine died, else | answer `not_replayed` | end with `not_replayed` | end the stream | cut |
| anything else | answer the error | end the stream | end the stream | cut |
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Written(Enum):
    """The part of an answer that was written to the client."""

    NOTHING = "not a byte"
    COMMENTS = "the head of an event stream, and at most comments"
    EVENTS = "a part of an event stream"
    BODY = "the head of a whole answer, or more of it"


class FailureKind(Enum):
    """The ways in which a request fails."""

    CLIENT_LEFT = "the client closed its connection"
    CANCELLED = "somebody else had it ended"
    SHUTDOWN = "the gateway stops"
    REFUSED = "the gateway refuses it, with an error of its own"
    MALFORMED = "the engine did not speak HTTP"
    UNSENT = "no instance got it, and the daemon has turned away from the one that was asked"
    UNREACHABLE = "no instance got it, and the one that was asked is still the one to ask"
    ENGINE_DIED = "it broke off or answered an error, and the daemon has turned away from the instance"
    CONNECTION_LOST = "its connection broke, and that is all that is known"


class Step(Enum):
    """The ways in which a failed request goes on."""

    SEND_AGAIN = "back to its old place in the queue"
    ANSWER_ERROR = "an error with a status of its own"
    END_STREAM = "the error event of its API family, after the event that was cut"
    CUT = "the connection is dropped: the only honest end of a body that broke"
    NOTHING = "nobody is there to be told"


@dataclass(frozen=True, slots=True)
class Consequence:
    """The way in which a failed request goes on.

    :param code: of the error that the client is told (`errors.CODES`); None: the failure brought an error of its own
    :param replay: an engine has read the request before, so sending it again counts
    """

    step: Step
    code: str | None = None
    replay: bool = False


MAX_REPLAYS = 1

_ENDINGS = {
    Written.NOTHING: Step.ANSWER_ERROR,
    Written.COMMENTS: Step.END_STREAM,
    Written.EVENTS: Step.END_STREAM,
    Written.BODY: Step.CUT,
}

_CODES = {
    FailureKind.CLIENT_LEFT: None,
    FailureKind.CANCELLED: "cancelled",
    FailureKind.SHUTDOWN: "shutting_down",
    FailureKind.REFUSED: None,
    FailureKind.MALFORMED: "engine_protocol",
    FailureKind.UNSENT: "engine_unreachable",
    FailureKind.UNREACHABLE: "engine_unreachable",
    FailureKind.ENGINE_DIED: "engine_died",
    FailureKind.CONNECTION_LOST: "engine_died",
}


def after_failure(kind: FailureKind, written: Written, replays: int, *, body_kept: bool) -> Consequence:
    """Return what follows. Total: each combination has an answer, those that cannot occur included.

    :param replays: the number of times that the request was sent again after an engine's death
    :param body_kept: the body is small enough to be sent again
    """
    if kind is FailureKind.CLIENT_LEFT:
        return Consequence(Step.NOTHING)

    code = _CODES[kind]
    if written in (Written.NOTHING, Written.COMMENTS):
        if kind is FailureKind.UNSENT:
            return Consequence(Step.SEND_AGAIN)

        if kind is FailureKind.ENGINE_DIED:
            if replays < MAX_REPLAYS and body_kept:
                return Consequence(Step.SEND_AGAIN, replay=True)

            code = "not_replayed"

    return Consequence(_ENDINGS[written], code)
