"""The engine's own figures, read from the end of a response without parsing what comes before. Pure."""

from __future__ import annotations

import json
from dataclasses import dataclass

TAIL_BYTES = 16 * 1024
"""Both engines write `timings` last, in the last object or the last event."""

MAX_COUNT = 2**53
"""Above it, and below zero, nothing was counted: what is added up and kept must not be spoilt by one answer."""

_TIMINGS = b'"timings":{'
_USAGE = b'"usage":{'
_decoder = json.JSONDecoder()


class BodyTail:
    """Keeps the last bytes of a body. Cheap to feed: it is cut to size once in many parts."""

    __slots__ = ("_parts", "_size")

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._size = 0

    def add(self, data: bytes) -> None:
        """Take the next part of the body."""
        self._parts.append(data)
        self._size += len(data)
        if self._size > 2 * TAIL_BYTES:
            self._parts = [self.value()]
            self._size = len(self._parts[0])

    def value(self) -> bytes:
        """Return the last bytes, at most `TAIL_BYTES`."""
        return b"".join(self._parts)[-TAIL_BYTES:]


@dataclass(frozen=True, slots=True)
class EngineFigures:
    """The engine's counts and times; None where it did not say.

    :param depth_tokens: of context at the end, those that were in the cache included: upstream tells what it took from
        there (`cache_n`), the fork where it ended (`n_past`)
    """

    prompt_tokens: int | None = None
    prompt_ms: float | None = None
    output_tokens: int | None = None
    output_ms: float | None = None
    draft_tokens: int | None = None
    draft_accepted: int | None = None
    depth_tokens: int | None = None


def figures(tail: bytes) -> EngineFigures:
    """Read llama-server's `timings`; from an answer that has none, the counts of `usage`.

    Generated text cannot fake either: inside a JSON string the quotes are escaped.
    """
    found = _object_after(tail, _TIMINGS)
    if found is not None:
        return EngineFigures(
            prompt_tokens=_whole(found, "prompt_n"),
            prompt_ms=_number(found, "prompt_ms"),
            output_tokens=_whole(found, "predicted_n"),
            output_ms=_number(found, "predicted_ms"),
            draft_tokens=_whole(found, "draft_n"),
            draft_accepted=_whole(found, "draft_n_accepted"),
            depth_tokens=_depth(found),
        )

    found = _object_after(tail, _USAGE)
    if found is not None:
        return EngineFigures(
            prompt_tokens=_whole(found, "prompt_tokens", "input_tokens"),
            output_tokens=_whole(found, "completion_tokens", "output_tokens"),
        )

    return EngineFigures()


def _object_after(tail: bytes, key: bytes) -> dict[str, object] | None:
    at = tail.rfind(key)
    if at < 0:
        return None

    try:
        value, _ = _decoder.raw_decode(tail[at + len(key) - 1 :].decode("utf-8", "replace"))
    except (ValueError, RecursionError):
        return None

    return value if isinstance(value, dict) else None


def _depth(timings: dict[str, object]) -> int | None:
    counts = [_whole(timings, name) for name in ("cache_n", "prompt_n", "predicted_n")]
    known = [each for each in counts if each is not None]
    return sum(known) if len(known) == len(counts) else _whole(timings, "n_past")


def _whole(found: dict[str, object], *names: str) -> int | None:
    for name in names:
        value = found.get(name)
        if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MAX_COUNT:
            return value

    return None


def _number(found: dict[str, object], name: str) -> float | None:
    value = found.get(name)
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value <= MAX_COUNT:
        return None  # not a number, or one that no engine could have counted

    return float(value)
