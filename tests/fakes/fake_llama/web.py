"""A small HTTP/1.1 server: a thread for each connection, and nothing that takes time to import."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass

REASONS = {200: "OK", 400: "Bad Request", 401: "Unauthorized", 404: "Not Found", 500: "Internal Server Error"}


class ClientGone(Exception):
    """The connection was closed while it was being answered."""


@dataclass
class Request:
    """One request, and the connection to answer it on.

    :param headers: names in lower case
    :param extra: header lines that every answer carries
    """

    connection: socket.socket
    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    extra: bytes
    streamed: bool = False

    @property
    def id(self) -> str:
        """What the client calls it; empty for the supervisor's own questions."""
        return self.headers.get("x-request-id", "")

    def reply(self, status: int, body: bytes, kind: str = "application/json") -> None:
        self._send(self._head(status, kind) + b"Content-Length: %d\r\n\r\n" % len(body) + body)

    def begin(self, kind: str = "text/event-stream") -> None:
        self._send(self._head(200, kind) + b"Transfer-Encoding: chunked\r\n\r\n")

    def chunk(self, data: bytes) -> None:
        self._send(b"%x\r\n%b\r\n" % (len(data), data))

    def end(self) -> None:
        self.streamed = True
        self._send(b"0\r\n\r\n")

    def check(self) -> None:
        """
        :raises ClientGone: when the other side has closed
        """
        try:
            if not self.connection.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT):
                raise ClientGone
        except BlockingIOError:
            return
        except OSError as error:
            raise ClientGone from error

    def _head(self, status: int, kind: str) -> bytes:
        return f"HTTP/1.1 {status} {REASONS.get(status, 'Error')}\r\nContent-Type: {kind}\r\n".encode() + self.extra

    def _send(self, data: bytes) -> None:
        self.check()
        try:
            self.connection.sendall(data)
        except OSError as error:
            raise ClientGone from error


def accept_for_ever(listener: socket.socket, handle: Callable[[Request], None], extra: bytes) -> None:
    while True:
        connection, _ = listener.accept()
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        threading.Thread(target=_converse, args=(connection, handle, extra), daemon=True).start()


def _converse(connection: socket.socket, handle: Callable[[Request], None], extra: bytes) -> None:
    with connection:
        try:
            while (request := _read(connection, extra)) is not None:
                handle(request)
                if request.streamed:
                    # llama-server closes a connection a moment after a stream, whatever the head says. Here the moment
                    # lasts: whoever asks again on it always loses the request, not once in a hundred times.
                    connection.recv(1)
                    return
        except (ClientGone, OSError):
            return


def _read(connection: socket.socket, extra: bytes) -> Request | None:
    data = b""
    while b"\r\n\r\n" not in data:
        part = connection.recv(65536)
        if not part:
            return None

        data += part

    head, _, body = data.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    length = int(headers.get("content-length", "0"))
    while len(body) < length:
        part = connection.recv(65536)
        if not part:
            return None

        body += part

    method, target, _ = first.split(" ")
    return Request(connection, method, target.partition("?")[0], headers, body, extra)
