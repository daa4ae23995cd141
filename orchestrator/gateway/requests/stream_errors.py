"""Finds the failure in which an engine's stream ended, with a 200 at its head. Pure.

Upstream ends such a stream with `data: {"error":{...}}`, and on Anthropic's route with `event: error` and the error
itself as data; older servers, the fork among them, with a line `error: {...}`; OpenAI's responses with
`response.failed`. A stream that has neither an error nor its API's end was cut short, or ended in an error too long to
be kept. Generated text can fake none of it: inside a JSON string the quotes and line ends are escaped.
"""

from __future__ import annotations

import re

import msgspec

from orchestrator.gateway.errors import Family
from orchestrator.gateway.timings import TAIL_BYTES

_MARKS = (b'"error"', b"error:", b": error", b":error", b'"response.failed"')
"""One of these is in each error event; where none is, nothing need be parsed."""

_DONE = rb"^data: ?\[DONE\]|\"finish_reason\": ?\""
_ENDS: dict[Family, re.Pattern[bytes]] = {
    "openai": re.compile(_DONE, re.MULTILINE),
    # The engines' own last event repeats the prompt, which may be longer than the tail: what follows it counts too.
    "completion": re.compile(_DONE + rb"|\"stop\": ?true|\"(?:stop_type|stopped_eos)\":", re.MULTILINE),
    "anthropic": re.compile(rb"\"type\": ?\"message_stop\""),
}
"""What a whole stream has near its end; of the other families, none is judged by it."""

_LAST_BYTES = 1024
"""The end is nearly always in these: looking there first spares a look at all of the tail."""

_SERVER_ERROR = 500


def error_status(tail: bytes, family: Family) -> int | None:
    """Return the status that an error event near the end of a stream names; 500 where it names none, or was cut short.

    :param tail: the last bytes of the stream, as `BodyTail` keeps them
    :return: None when the stream is whole
    """
    status = _named_status(tail)
    end = _ENDS.get(family)
    if status is not None or end is None:
        return status

    return None if end.search(tail, max(len(tail) - _LAST_BYTES, 0)) or end.search(tail) else _SERVER_ERROR


def _named_status(tail: bytes) -> int | None:
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
