"""The name of a request: what its client calls it (`X-Request-Id`), or one that is made. Pure but for chance."""

from __future__ import annotations

import random
import re

from orchestrator.adapters.http1 import Headers, first

REQUEST_ID = b"x-request-id"
MAX_ID = 64
"""Characters; a UUID has 36. An id is a column of the history, and a word of a path and of the log."""

MADE = "req-"
"""Ids that were made begin so."""

_ID = re.compile(rb"[A-Za-z0-9][A-Za-z0-9._:~-]{0,%d}" % (MAX_ID - 1))


def own_headers(headers: Headers) -> Headers:
    """Return what each answer to a request with these fields has: the request's id, and nothing else."""
    return [(REQUEST_ID, request_id(first(headers, REQUEST_ID)).encode("ascii"))]


def id_of(own: Headers) -> str:
    """Return the id that `own_headers` has found or made."""
    return own[0][1].decode("ascii")


def request_id(asked: bytes | None) -> str:
    """Return the id that a client gave, or a new one where it gave none, or one that is too long or has characters
    that do not belong into paths, logs and terminals.
    """
    if asked is not None and _ID.fullmatch(asked):
        return asked.decode("ascii")

    return f"{MADE}{random.getrandbits(64):016x}"
