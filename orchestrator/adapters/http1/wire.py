"""The parts that both ends of an HTTP/1.1 connection share: limits, header lists, the writing of message heads."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass
from email.utils import formatdate
from http import HTTPStatus

Headers = list[tuple[bytes, bytes]]
"""Field lines in order, names in lower case."""

HOP_BY_HOP = frozenset(
    (
        b"connection", b"keep-alive", b"proxy-authenticate", b"proxy-authorization", b"proxy-connection", b"te",
        b"trailer", b"transfer-encoding", b"upgrade", b"http2-settings",
    )
)  # fmt: skip
"""Fields that are about one connection and are never forwarded (RFC 9110, 7.6.1)."""

STATUS_LINES = {status.value: f"HTTP/1.1 {status.value} {status.phrase}".encode() for status in HTTPStatus}


@dataclass(frozen=True, slots=True)
class HttpLimits:
    """The limits of one connection.

    :param header_timeout_s: from the first byte of a head to its end
    :param body_timeout_s: grace for a request body; each `body_rate` bytes that arrive buy one more second
    :param bodies_bytes: of all bodies together; at least one of the largest fits
    :param unsent_bytes: of all answers together that clients have not taken; beyond it the largest are cut
    :param write_timeout_s: longest time that a client with a full buffer may take to read 256 KiB of it
    :param idle_timeout_s: longest time between two requests
    :param pipelined: requests that may wait behind the one being answered; more closes the connection
    """

    head_bytes: int = 16384
    headers: int = 100
    uri_bytes: int = 8192
    body_bytes: int = 64 * 1024 * 1024
    bodies_bytes: int = 256 * 1024 * 1024
    unsent_bytes: int = 256 * 1024 * 1024
    connections: int = 2048
    pipelined: int = 8
    header_timeout_s: float = 15.0
    body_timeout_s: float = 20.0
    body_rate: int = 1024
    idle_timeout_s: float = 75.0
    write_timeout_s: float = 10.0
    linger_s: float = 2.0


def first(headers: Headers, name: bytes) -> bytes | None:
    """Return the first value of a header; `name` in lower case."""
    for key, value in headers:
        if key == name:
            return value

    return None


def encode_head(start_line: bytes, headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    """Return a message head.

    :raises ValueError: when a part holds CR, LF or NUL, which would let its rest pass for another field
    """
    lines = [start_line]
    lines.extend([name + b": " + value for name, value in headers])
    lines.append(b"\r\n")
    head = b"\r\n".join(lines)
    if head.count(b"\n") != len(lines) or head.count(b"\r") != len(lines) or b"\0" in head:
        raise ValueError("a header holds CR, LF or NUL")

    return head


def connection_options(headers: Headers) -> frozenset[bytes]:
    """Return the field names that `Connection` declares to be about this connection."""
    options: set[bytes] = set()
    for name, value in headers:
        if name == b"connection":
            options.update(part.strip().lower() for part in value.split(b","))

    return frozenset(options)


class DateHeader:
    """The `Date` field, formatted once a second."""

    def __init__(self) -> None:
        self._second = 0
        self._value = b""

    def value(self) -> bytes:
        second = int(time.time())
        if second != self._second:
            self._second = second
            self._value = formatdate(second, usegmt=True).encode()

        return self._value
