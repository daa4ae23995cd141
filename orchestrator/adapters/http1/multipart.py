"""One field of a form with a file (`multipart/form-data`), read as strictly as it can be said. Pure.

The engine reads the form too. What the two could read differently is refused: a preamble, a delimiter that is cut, a
field that comes twice with two values.
"""

from __future__ import annotations

import re

MAX_PARTS = 128
"""More parts than any client's form has; each costs a look."""

_MAX_PART_HEAD_BYTES = 8192
_BOUNDARY = re.compile(rb';\s*boundary=(?:"([^"\r\n]{1,70})"|([^\s;",]{1,70}))\s*(?:;|$)', re.IGNORECASE)
_DISPOSITION = re.compile(rb"content-disposition\s*:\s*form-data\s*(;.*)", re.IGNORECASE)
_NAME = re.compile(rb';\s*name\s*=\s*(?:"([^"]*)"|([^\s;"]+))\s*(?=;|$)', re.IGNORECASE)


def form_field(content_type: bytes, body: bytes, name: bytes) -> str | None:
    """Return the value of a field; None when the form has none, or an empty one.

    :param name: in lower case
    :raises ValueError: when the form cannot be read without a guess; the message says where
    """
    if content_type.partition(b";")[0].strip().lower() != b"multipart/form-data":
        raise ValueError(f"the content type is not multipart/form-data: found {content_type[:60].decode('latin-1')!r}")

    match = _BOUNDARY.search(content_type)
    if match is None or len(re.findall(rb"boundary", content_type, re.IGNORECASE)) != 1:
        raise ValueError("its content type names no boundary, or two")

    delimiter = b"--" + (match[1] or match[2])
    if not body.startswith(delimiter + b"\r\n"):
        raise ValueError("it does not begin with its boundary (byte 0)")

    values: set[bytes] = set()
    at = len(delimiter) + 2
    for _ in range(MAX_PARTS):
        head_end = body.find(b"\r\n\r\n", at, at + _MAX_PART_HEAD_BYTES)
        if head_end < 0:
            raise ValueError(f"the head of a part has no end within {_MAX_PART_HEAD_BYTES} bytes (byte {at})")

        end = body.find(b"\r\n" + delimiter, head_end + 4)
        if end < 0:
            raise ValueError(f"a part is not ended by the boundary (byte {at})")

        if _field_name(body[at:head_end], at).lower() == name:
            values.add(body[head_end + 4 : min(end, head_end + 4 + _MAX_PART_HEAD_BYTES)])

        at = end + 2 + len(delimiter)
        follows = body[at : at + 2]
        at += 2
        if follows == b"--":
            return _one(name, values)

        if follows != b"\r\n":
            raise ValueError(f"a boundary is followed by neither a line's end nor two hyphens (byte {at - 2})")

    raise ValueError(f"it has more than {MAX_PARTS} parts")


def _field_name(head: bytes, at: int) -> bytes:
    names = []
    for line in head.split(b"\r\n"):
        disposition = _DISPOSITION.fullmatch(line)
        if disposition is not None:
            names += [quoted or bare for quoted, bare in _NAME.findall(disposition[1])]

    if len(names) != 1:
        raise ValueError(f"a part has {len(names)} names, allowed one (byte {at})")

    return bytes(names[0])


def _one(name: bytes, values: set[bytes]) -> str | None:
    if len(values) > 1:
        raise ValueError(f"it has two values for `{name.decode()}`")

    try:
        return next(iter(values), b"").decode() or None
    except UnicodeDecodeError as error:
        raise ValueError(f"its `{name.decode()}` is not UTF-8: {error.reason}") from None
