"""What pages of other origins are told: permission (CORS) where `gateway.allowed_origins` names them, and else nothing.

Permission is for reading answers and for sending JSON. Never for credentials, which a browser would send by itself: a
page has to show the key like any other client. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from orchestrator.adapters.http1 import Headers, first
from orchestrator.core.config import ANY_ORIGIN

_METHODS = b"GET, HEAD, POST"
_MAX_AGE_S = 600
"""How long a browser need not ask again."""

_EXPOSED = b"x-request-id, retry-after, x-should-retry"
"""Fields that a page may read, beside those that each may."""

_FIELDS = frozenset(
    (
        b"accept", b"accept-language", b"api-key", b"authorization", b"cache-control", b"content-encoding",
        b"content-language", b"content-type", b"http-referer", b"idempotency-key", b"last-event-id", b"pragma",
        b"traceparent", b"tracestate", b"user-agent", b"x-api-key", b"x-request-id", b"x-requested-with", b"x-title",
    )
)  # fmt: skip
_FIELD_PREFIXES = (b"anthropic-", b"openai-", b"x-stainless-", b"x-client-")
"""What the SDKs of the two APIs send, and clients of routers such as OpenRouter."""

_NAME = re.compile(rb"[a-z0-9-]{1,64}")
_MOST_FIELDS = 64


_REQUESTED_METHOD, _REQUESTED_FIELDS = b"access-control-request-method", b"access-control-request-headers"


def is_preflight(method: str, asked: Headers) -> bool:
    """Return whether a browser asks if a page may send a request. It shows no key when it does."""
    return method == "OPTIONS" and None not in (first(asked, b"origin"), first(asked, _REQUESTED_METHOD))


class AllowedOrigins:
    """The origins that have permission.

    :param allowed: as written in the configuration; `*` is every one
    """

    def __init__(self, allowed: Iterable[str]) -> None:
        self._allowed = frozenset(each.encode() for each in allowed)
        self._any = ANY_ORIGIN.encode() in self._allowed

    def allows(self, origin: bytes | None) -> bool:
        """Return whether a request comes from a page of such an origin. One that names none comes from no page, or from
        one of our own.
        """
        return origin is not None and (self._any or origin in self._allowed)

    def headers(self, asked: Headers) -> Headers:
        """Return what each answer to a request with these fields has, whatever it is, an error or a refusal too."""
        if not self._allowed:
            return []

        origin = first(asked, b"origin")
        if origin is None or not self.allows(origin):
            return [(b"vary", b"Origin")]

        return [
            (b"access-control-allow-origin", ANY_ORIGIN.encode() if self._any else origin),
            (b"access-control-expose-headers", _EXPOSED),
            (b"vary", b"Origin"),
        ]

    def preflight(self, asked: Headers) -> Headers:
        """Return what such a question is answered with, beside `headers`."""
        names = [part.strip().lower() for part in (first(asked, _REQUESTED_FIELDS) or b"").split(b",")[:_MOST_FIELDS]]
        granted = [name for name in names if name in _FIELDS or _is_named_alike(name)]
        more: Headers = [(b"access-control-allow-headers", b", ".join(granted))] if granted else []
        if first(asked, b"access-control-request-private-network") == b"true":
            more.append((b"access-control-allow-private-network", b"true"))

        return [
            (b"access-control-allow-methods", _METHODS),
            (b"access-control-max-age", b"%d" % _MAX_AGE_S),
            *more,
        ]


def _is_named_alike(name: bytes) -> bool:
    return name.startswith(_FIELD_PREFIXES) and _NAME.fullmatch(name) is not None
