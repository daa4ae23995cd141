"""Errors as clients see them: one table of codes, and the three envelopes (OpenAI, Responses, Anthropic)."""

from __future__ import annotations

import json
import time
from typing import Literal

from orchestrator.adapters.http1 import ContentError, Headers, accepted_codings
from orchestrator.core.errors import OrchError

Family = Literal["openai", "completion", "responses", "anthropic", "plain"]
"""The dialect of a route: how a stream is told that it failed. `completion` is llama-server's own, as OpenAI's here."""

MAX_RETRY_AFTER_S = 120
"""OpenAI's client ignores a longer wait, and then does not retry at all."""

CODES: dict[str, tuple[int, str]] = {
    "host_not_allowed": (403, "permission_error"),
    "cross_site": (403, "permission_error"),
    "invalid_api_key": (401, "authentication_error"),
    "unsupported_media_type": (415, "invalid_request_error"),
    "invalid_content_coding": (400, "invalid_request_error"),
    "body_too_large": (413, "invalid_request_error"),
    "bodies_too_large": (503, "unavailable_error"),
    "invalid_json": (400, "invalid_request_error"),
    "invalid_form": (400, "invalid_request_error"),
    "not_found": (404, "not_found_error"),
    "no_engine_ui": (404, "not_found_error"),
    "model_not_found": (404, "not_found_error"),
    "method_not_allowed": (405, "invalid_request_error"),
    "ambiguous_model": (400, "invalid_request_error"),
    "model_unloaded": (503, "unavailable_error"),
    "request_not_found": (404, "not_found_error"),
    "already_loaded": (400, "invalid_request_error"),
    "not_loaded": (400, "invalid_request_error"),
    "loading_not_allowed": (403, "permission_error"),
    "cancelled": (409, "cancelled_error"),
    "too_many_requests": (429, "rate_limit_error"),
    "model_not_loaded": (409, "invalid_request_error"),
    "queue_full": (503, "overloaded_error"),
    "hold_timeout": (503, "unavailable_error"),
    "loading": (503, "unavailable_error"),
    "shutting_down": (503, "unavailable_error"),
    "engine_unreachable": (502, "server_error"),
    "engine_died": (502, "server_error"),
    "engine_protocol": (502, "server_error"),
    "engine_refused": (502, "server_error"),
    "request_quarantined": (502, "server_error"),
    "not_replayed": (503, "unavailable_error"),
}
"""`error.code` to the HTTP status and `error.type`. A refusal of the daemon has codes of its own: 503."""

_PERMANENT = (424, "invalid_request_error")
"""Of a model that can never start: clients' libraries repeat 408, 409, 429 and 5xx by themselves, not this."""

_REFUSED = (503, "unavailable_error")
_ANTHROPIC_TYPES = {
    400: "invalid_request_error", 401: "authentication_error", 403: "permission_error", 404: "not_found_error",
    413: "request_too_large", 429: "rate_limit_error", 503: "overloaded_error",
}  # fmt: skip


class GatewayError(OrchError):
    """A request that the gateway answers itself.

    :param code: a key of `CODES`, or a code that the daemon gave
    :param retry_after_s: when another try makes sense; None where none does
    :param permanent: nothing that a client does or waits for changes it
    """

    def __init__(
        self, code: str, message: str, *, retry_after_s: int | None = None, param: str | None = None,
        headers: Headers | None = None, permanent: bool = False,
    ) -> None:  # fmt: skip
        super().__init__(message)
        self.code = code
        self.param = param
        self.permanent = permanent
        self.status, self.type = _PERMANENT if permanent else CODES.get(code, _REFUSED)
        self.retry_after_s = (
            None if retry_after_s is None or permanent else max(1, min(retry_after_s, MAX_RETRY_AFTER_S))
        )
        self.headers: Headers = headers or []


_CONTENT_CODES = {
    "unknown_coding": "unsupported_media_type", "broken": "invalid_content_coding", "too_large": "body_too_large",
    "no_room": "bodies_too_large",
}  # fmt: skip


def content_error(error: ContentError) -> GatewayError:
    """Return the error for a body that cannot be had without its content coding."""
    # RFC 9110, 15.5.16: with a 415 this field says what would have been taken.
    headers = [(b"accept-encoding", accepted_codings().encode())] if error.problem == "unknown_coding" else None
    wait_s = 5 if error.problem == "no_room" else None
    return GatewayError(_CONTENT_CODES[error.problem], error.reason, headers=headers, retry_after_s=wait_s)


def family_of(path: str) -> Family:
    """Return the dialect in which a request that has no route is told so."""
    return "anthropic" if path.endswith("/messages") or "/messages/" in path else "openai"


def render(family: Family, error: GatewayError) -> tuple[int, Headers, bytes]:
    """Return status, headers and body for a request that has had no byte of an answer yet."""
    headers: Headers = [(b"content-type", b"application/json"), *error.headers]
    if error.retry_after_s is not None:
        headers.append((b"retry-after", b"%d" % error.retry_after_s))
    elif error.permanent or error.status in (409, 503):
        # OpenAI's clients repeat these by themselves, in vain where nothing will change.
        headers.append((b"x-should-retry", b"false"))

    if family == "anthropic":
        return error.status, headers, _json(_anthropic(error))

    return error.status, headers, _json({"src": "orch", "error": _openai(error)})


def sse_event(family: Family, error: GatewayError) -> bytes:
    """Return the event that ends a stream which has begun. Never followed by `[DONE]`: the answer is not complete."""
    if family == "anthropic":
        return b"event: error\ndata: " + _json(_anthropic(error)) + b"\n\n"

    if family == "responses":
        failed = {
            "type": "response.failed",
            "sequence_number": 0,
            "response": {
                "id": "resp_orch_failed",
                "object": "response",
                "created_at": int(time.time()),
                "status": "failed",
                "error": {"code": "server_error", "message": error.message},
                "output": [],
            },
        }
        return b"event: response.failed\ndata: " + _json(failed) + b"\n\n"

    return b"data: " + _json({"error": _openai(error)}) + b"\n\n"


def _openai(error: GatewayError) -> dict[str, object]:
    return {"message": error.message, "type": error.type, "param": error.param, "code": error.code}


def _anthropic(error: GatewayError) -> dict[str, object]:
    kind = _ANTHROPIC_TYPES.get(error.status, "api_error" if error.status >= 500 else "invalid_request_error")
    return {"type": "error", "error": {"type": kind, "message": error.message}}


def _json(value: object) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")
