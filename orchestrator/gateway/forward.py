"""The parts of a request that go to the engine, and of its answer that come back. Pure."""

from __future__ import annotations

from typing import Any

import msgspec

from orchestrator.adapters.http1 import HOP_BY_HOP, Headers, connection_options, first, form_field
from orchestrator.gateway.errors import GatewayError

_NOT_SENT = HOP_BY_HOP | frozenset(
    (
        b"host", b"content-length", b"content-encoding", b"expect",
        # The client's secrets are for us, and cookies for nobody.
        b"authorization", b"x-api-key", b"api-key", b"cookie", b"forwarded", b"x-real-ip",
        # The engine must see no page: it answers any Origin with permission.
        b"origin", b"referer",
        # A compressed stream is held back by its compressor.
        b"accept-encoding",
        # llama-server would go on generating after the client has left.
        b"x-conversation-id",
        # The request's own id is sent, which may be another one.
        b"x-request-id",
    )
)  # fmt: skip
_NOT_SENT_PREFIXES = (b"x-forwarded-", b"sec-", b"access-control-")

_NOT_RETURNED = HOP_BY_HOP | frozenset(
    (
        b"content-length", b"date", b"server", b"set-cookie", b"x-powered-by", b"process-start-time-unix", b"via",
        b"x-request-id",
    )
)  # fmt: skip
_NOT_RETURNED_PREFIXES = (b"access-control-",)


class Peek(msgspec.Struct):
    """The two fields of a body that matter here; msgspec skips the rest without building it."""

    model: Any = None
    stream: Any = None


_decoder = msgspec.json.Decoder(Peek)


_BOM = b"\xef\xbb\xbf"


def peek(body: bytes) -> tuple[str | None, bool]:
    """Return the model that a JSON body names, and whether it asks for a stream.

    As the engine's parser reads it: a byte order mark before it is skipped, and of a key that comes twice the last
    counts. What is no JSON object is refused: by another reading of it the engine would answer as another model.

    :raises GatewayError: `invalid_json`, with the place
    """
    try:
        if not body.isascii():
            str(body, "utf-8")  # the decoder skips strings without a look into them

        found = _decoder.decode(body.removeprefix(_BOM))
    except msgspec.ValidationError as error:
        raise GatewayError("invalid_json", f"the body is no JSON object: {error}") from None
    except ValueError as error:
        raise GatewayError("invalid_json", f"the body is no valid JSON: {_reason(error)}") from None
    except RecursionError:
        raise GatewayError("invalid_json", "the body is nested too deeply") from None

    if found.model is not None and not isinstance(found.model, str):
        kind = _JSON_TYPES.get(type(found.model), "a number")
        raise GatewayError("invalid_json", f"`model`: expected a string, found {kind}", param="model")

    return found.model, found.stream is True


def form_model(content_type: bytes, body: bytes) -> str | None:
    """Return the model that a form with a file names.

    :raises GatewayError: `invalid_form`, with the place
    """
    try:
        return form_field(content_type, body, b"model")
    except ValueError as error:
        raise GatewayError("invalid_form", f"the form cannot be read: {error}") from None


_JSON_TYPES: dict[type, str] = {bool: "a boolean", list: "a list", dict: "an object"}


def _reason(error: ValueError) -> str:
    if isinstance(error, UnicodeDecodeError):
        return f"not UTF-8 (byte {error.start})"

    return str(error).removeprefix("JSON is malformed: ")


def request_headers(headers: Headers, api_key: str | None) -> Headers:
    """Return the end-to-end fields of a request, with the engine's key instead of the client's."""
    named = connection_options(headers)
    sent = [
        field
        for field in headers
        if field[0] not in _NOT_SENT and not field[0].startswith(_NOT_SENT_PREFIXES) and field[0] not in named
    ]
    if api_key is not None:
        sent.append((b"authorization", b"Bearer " + api_key.encode()))

    return sent


def response_headers(headers: Headers) -> Headers:
    """Return the end-to-end fields of an answer. Permissions for web pages are ours to give, and we give none."""
    named = connection_options(headers)
    returned = [
        field
        for field in headers
        if field[0] not in _NOT_RETURNED and not field[0].startswith(_NOT_RETURNED_PREFIXES) and field[0] not in named
    ]
    if is_event_stream(headers) and not any(name == b"x-accel-buffering" for name, _ in returned):
        returned.append((b"x-accel-buffering", b"no"))

    return returned


def is_event_stream(headers: Headers) -> bool:
    """Return whether the head of an answer announces server-sent events."""
    return (first(headers, b"content-type") or b"").startswith(b"text/event-stream")


def is_json(headers: Headers) -> bool:
    """Return whether the head of an answer announces JSON."""
    return (first(headers, b"content-type") or b"").startswith(b"application/json")


def error_message(body: bytes, status: int) -> str:
    """Return the message of an engine's error body."""
    try:
        decoded = msgspec.json.decode(body)
        message = decoded["error"]["message"]
    except (ValueError, KeyError, TypeError, RecursionError):
        message = None

    return message if isinstance(message, str) else f"the engine answered {status}"
