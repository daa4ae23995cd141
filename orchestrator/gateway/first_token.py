"""Finds the event of a stream that carries the first token. Pure.

Before it come comments (both engines and this gateway keep a waiting stream alive with them), the progress of the
prompt (`return_progress`), and each API's opening events (`message_start`, `response.created`, a role without text).
"""

from __future__ import annotations

import msgspec

MAX_EVENT_BYTES = 64 * 1024
"""No opening event is longer; a longer one is taken for an answer."""

_LINE_END = b"\n"
_DATA = b"data:"


class FirstToken:
    """Reads a stream until the first token is in it."""

    __slots__ = ("_rest",)

    def __init__(self) -> None:
        self._rest = b""

    def within(self, data: bytes) -> bool:
        """Return whether the first token came with this part of the stream; parts may be cut anywhere."""
        *lines, self._rest = (self._rest + data).split(_LINE_END)
        return len(self._rest) > MAX_EVENT_BYTES or any(map(_has_token, lines))


def only_comments(data: bytes) -> bool:
    """Return whether a part of a stream holds comments and nothing else."""
    return all(not line or line.startswith(b":") for line in data.splitlines())


def _has_token(line: bytes) -> bool:
    if not line.startswith(_DATA):
        return False

    try:
        event = msgspec.json.decode(line.removeprefix(_DATA).strip())
    except (ValueError, RecursionError):  # `[DONE]`, or not what either engine sends
        return False

    return isinstance(event, dict) and carries_token(event)


def carries_token(event: dict[str, object]) -> bool:
    """Return whether an event of llama-server's, OpenAI's or Anthropic's stream carries something generated."""
    kind = event.get("type")
    if isinstance(kind, str):  # Anthropic's messages, OpenAI's responses
        return kind.endswith(("_delta", ".delta")) and kind != "message_delta"

    choices = event.get("choices")
    if isinstance(choices, list):
        return any(isinstance(choice, dict) and _chosen(choice) for choice in choices)

    return bool(event.get("content") or event.get("tokens"))


def _chosen(choice: dict[str, object]) -> bool:
    delta = choice.get("delta")
    if isinstance(delta, dict):
        return any(value for name, value in delta.items() if name != "role")

    return bool(choice.get("text"))
