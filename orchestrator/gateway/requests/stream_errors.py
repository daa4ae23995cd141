"""Finds the error event in which an engine's stream ended, with a 200 at its head. Pure.

Upstream ends such a stream with `data: {"error":{...}}`, and on Anthropic's route with `event: error` and the error
itself as data; older servers, the fork among them, with a line `error: {...}`; OpenAI's responses with
`response.failed`. Generated text cannot fake one: inside a JSON string the quotes and line ends are escaped.
"""

from __future__ import annotations

import msgspec

from orchestrator.gateway.timings import TAIL_BYTES

_MARKS = (b'"error"', b"error:", b": error", b":error", b'"response.failed"')
"""One of these is in each error event; where none is, nothing need be parsed."""

_SERVER_ERROR = 500


def error_status(tail: bytes) -> int | None:
    """Return the status that an error event near the end of a stream names; 500 where it names none.

    :param tail: the last bytes of the stream, as `BodyTail` keeps them
    :return: None when there is no such event
    """
    if len(tail) >= TAIL_BYTES:
        tail = tail.partition(b"\n")[2]  # it begins in the middle of a line, which may be text

    if not any(mark in tail for mark in _MARKS):
        return None

    event = ""
    for line in tail.splitlines():
        name, _, value = line.partition(b":")
        value = value.strip()
        match name:
            case b"event":
                event = value.decode("utf-8", "replace")
            case b"error":
                return _status(_object(value))
            case b"data":
                found = _object(value)
                if event == "error" or _is_error(found):
                    return _status(found)
            case b"":
                if not line:  # the end of an event
                    event = ""

    return None


def _object(data: bytes) -> dict[str, object]:
    try:
        found = msgspec.json.decode(data)
    except (ValueError, RecursionError):
        return {}

    return found if isinstance(found, dict) else {}


def _is_error(found: dict[str, object]) -> bool:
    return bool(found.get("error")) or found.get("type") in ("error", "response.failed")


def _status(found: dict[str, object]) -> int:
    """Return the status in an error, or in the member that holds it."""
    response = found.get("response")
    holders = [found, found.get("error"), response.get("error") if isinstance(response, dict) else None]
    for each in holders:
        code = each.get("code") if isinstance(each, dict) else None
        if isinstance(code, int) and not isinstance(code, bool) and 400 <= code <= 599:
            return code

    return _SERVER_ERROR
