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

    :param prompt_tokens: of the prompt that were computed
    :param cached_tokens: of the prompt that were in the cache: upstream tells them (`cache_n`), the fork where its
        context ended (`n_past`)
    :param depth_tokens: of context at the end, those that were in the cache included
    """

    prompt_tokens: int | None = None
    prompt_ms: float | None = None
    output_tokens: int | None = None
    output_ms: float | None = None
    draft_tokens: int | None = None
    draft_accepted: int | None = None
    depth_tokens: int | None = None
    cached_tokens: int | None = None


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
            cached_tokens=_cached(found),
        )

    found = _object_after(tail, _USAGE)
    if found is not None:
        computed, cached = _prompt_of_usage(found)
        return EngineFigures(
            prompt_tokens=computed,
            output_tokens=_whole(found, "completion_tokens", "output_tokens"),
            cached_tokens=cached,
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


def _cached(timings: dict[str, object]) -> int | None:
    told, depth = _whole(timings, "cache_n"), _whole(timings, "n_past")
    computed, output = _whole(timings, "prompt_n"), _whole(timings, "predicted_n")
    if told is not None or depth is None or computed is None or output is None:
        return told

    return max(depth - computed - output, 0)


def _prompt_of_usage(usage: dict[str, object]) -> tuple[int | None, int | None]:
    """Return the tokens of the prompt that were computed, and those that were in the cache.

    Anthropic's counts leave those in the cache out (`cache_read_input_tokens`), OpenAI's have them in the whole prompt,
    with their number beside it (`prompt_tokens_details`, in the Responses API `input_tokens_details`). Where a build
    does not tell it, all count as computed.
    """
    prompt, apart = _whole(usage, "prompt_tokens", "input_tokens"), _whole(usage, "cache_read_input_tokens")
    details = usage.get("prompt_tokens_details", usage.get("input_tokens_details"))
    within = _whole(details, "cached_tokens") if isinstance(details, dict) else None
    if prompt is None or apart is not None or within is None:
        return prompt, apart

    return max(prompt - within, 0), within


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
