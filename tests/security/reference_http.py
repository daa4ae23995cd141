"""A reader of HTTP/1.1 requests written from RFC 9112 alone, to hold against the parser that orch uses.

Slow and strict: it reads a sequence of requests, and stops at the first byte that is not one.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

# Two liberties that RFC 9112 allows (2.2 and 3) and llhttp takes, neither of which moves the end of a request: line
# ends of either kind ahead of it, and several spaces inside its first line.
_BEFORE = re.compile(rb"[\r\n]*")
_LINE = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+) +([!-~]+) +HTTP/(1\.[01])\r\n")
_FIELD = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([\t\x20-\x7e\x80-\xff]*?)[ \t]*\r\n")
_CHUNK = re.compile(rb"([0-9A-Fa-f]{1,15})[ \t]*(?:;[\t\x20-\x7e\x80-\xff]*)?\r\n")


@dataclass(frozen=True, slots=True)
class Seen:
    """One request.

    :param complete: False for the last one, when the data ended in its body
    """

    method: bytes
    target: bytes
    headers: tuple[tuple[bytes, bytes], ...]
    body: bytes
    complete: bool = True


def requests(data: bytes) -> Iterator[Seen]:
    """The requests at the beginning of `data`."""
    at = 0
    while at < len(data):
        before = _BEFORE.match(data, at)
        line = _LINE.match(data, before.end() if before else at)
        if line is None:
            return

        at = line.end()
        headers: list[tuple[bytes, bytes]] = []
        while field := _FIELD.match(data, at):
            headers.append((field[1].lower(), field[2]))
            at = field.end()

        if not data.startswith(b"\r\n", at):
            return

        found = _body(data, at + 2, headers, line[3])
        if found is None:
            return

        body, at = found
        yield Seen(line[1], line[2], tuple(headers), body, at >= 0)
        if at < 0:
            return


def _body(data: bytes, at: int, headers: list[tuple[bytes, bytes]], version: bytes) -> tuple[bytes, int] | None:
    """The body and where it ends, -1 when the data ends before it does; None when its framing is wrong."""
    lengths = [value for name, value in headers if name == b"content-length"]
    codings = [value for name, value in headers if name == b"transfer-encoding"]
    if codings:
        if lengths or version == b"1.0" or [value.lower() for value in codings] != [b"chunked"]:
            return None

        return _chunks(data, at)

    if not lengths:
        return b"", at

    if len(lengths) > 1 or re.fullmatch(rb"\d{1,18}", lengths[0]) is None:
        return None

    end = at + int(lengths[0])
    return data[at:end], end if end <= len(data) else -1


def _chunks(data: bytes, at: int) -> tuple[bytes, int] | None:
    parts: list[bytes] = []
    while at < len(data):
        size = _CHUNK.match(data, at)
        if size is None:
            return None

        count, at = int(size[1], 16), size.end()
        if count == 0:
            while field := _FIELD.match(data, at):
                at = field.end()

            return (b"".join(parts), at + 2) if data.startswith(b"\r\n", at) else None

        part = data[at : at + count]
        parts.append(part)
        at += count
        if len(part) == count and not data.startswith(b"\r\n", at) and at + 2 <= len(data):
            return None

        at += 2

    return b"".join(parts), -1
