"""The parts of a server connection: the states of its two machines, the head that comes, the request at work."""

from __future__ import annotations

import asyncio
from enum import Enum

from orchestrator.adapters.http1.exchange import Request, Response
from orchestrator.adapters.http1.wire import Headers


class ConnectionState(Enum):
    """The life of a connection."""

    OPEN = "requests are read and answered"
    DRAINING = "input is dropped; the requests that came whole before are still answered"
    CLOSING = "nothing more is answered; the connection is cut at a deadline"
    LOST = "the transport is gone"


class InputState(Enum):
    """The part of a request that the next byte belongs to."""

    IDLE = "none: it begins one"
    HEAD = "its head"
    BODY = "its body"


class RequestHead:
    """The head of a request, as far as it has come.

    :ivar received_bytes: of all reads since its first byte
    :ivar framing_bytes: of the last reads of its body that brought nothing of it: heads of chunks, trailers
    """

    __slots__ = ("framing_bytes", "headers", "received_bytes", "url")

    def __init__(self) -> None:
        self.url = b""
        self.headers: Headers = []
        self.received_bytes = 0
        self.framing_bytes = 0


class ServedRequest:
    """The request that is being answered."""

    __slots__ = ("request", "response", "task")

    def __init__(self, request: Request, response: Response, task: asyncio.Task[None]) -> None:
        self.request = request
        self.response = response
        self.task = task
