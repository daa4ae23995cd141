"""Puts the model's name that a client asked for into the engine's answer. Pure.

Engines answer with a name of their own: upstream with its alias, the fork with the asked name on OpenAI's routes and
the file's on Anthropic's. In a stream the engine's name is read once, from the first event that has one; from then on a
part is passed on as it is when the name is right, and else a search for `"model":"NAME"` replaces it. Generated text
cannot be hit: inside a JSON string the quotes are escaped, and what models write is in strings in every event of a
stream. A whole answer may hold what a model wrote as JSON (a tool's arguments), so there the field of the outermost
object alone is replaced.
"""

from __future__ import annotations

import msgspec

_KEY = b'"model":'
_LONGEST = 512
"""Bytes of a name that an engine may have."""

MAX_WHOLE_BYTES = 1 << 20
"""A larger answer that is whole is passed on as it is."""


def rename_whole(body: bytes, name: str) -> bytes:
    """Return a whole answer with this name in its outermost `model`; as it is where it has none."""
    if _KEY not in body and b'"model"' not in body:
        return body

    try:
        found = _whole.decode(body)
        if "model" not in found or msgspec.json.decode(found["model"]) == name:
            return body
    except (ValueError, RecursionError):
        return body

    found["model"] = msgspec.Raw(msgspec.json.encode(name))
    return msgspec.json.encode(found)


_whole = msgspec.json.Decoder(dict[str, msgspec.Raw])


class StreamRenamer:
    """Replaces the engine's name in the parts of a stream, which may be cut anywhere.

    :param name: as the client asked for the model
    """

    __slots__ = ("_asked", "_held", "_needle", "done")

    def __init__(self, name: str) -> None:
        self._asked = _KEY + msgspec.json.encode(name)
        self._needle = b""
        self._held = b""
        self.done = False

    def feed(self, data: bytes) -> bytes:
        """Return the next part with the name replaced; a name that is cut at the end comes with the part after it.

        `done` is set once the engine says the name that was asked for: what follows need not be fed.
        """
        if self._held:
            data, self._held = self._held + data, b""

        needle = self._needle
        if not needle:
            needle = self._needle = self._find(data)
            if not needle:
                return self._hold_back(data, _KEY, _LONGEST)

            if needle == self._asked:
                self.done = True
                return data

        data = data.replace(needle, self._asked)
        return data if data[-1:] == b"\n" else self._hold_back(data, needle, len(needle))

    def rest(self) -> bytes:
        """Return what was held back, at the end of the stream."""
        held, self._held = self._held, b""
        return held

    def _find(self, data: bytes) -> bytes:
        begin = data.find(_KEY)
        if begin < 0:
            return b""

        at = begin + len(_KEY)
        if at < len(data) and data[at : at + 1] != b'"':  # null, or another layout than both engines'
            return b""

        at += 1
        while 0 <= at < len(data) and (end := data.find(b'"', at)) >= 0:
            backslashes = end - len(data[:end].rstrip(b"\\"))
            if backslashes % 2 == 0:
                return data[begin : end + 1]

            at = end + 1

        return b""

    def _hold_back(self, data: bytes, needle: bytes, most: int) -> bytes:
        """Keep the end of a part that may be the beginning of the field."""
        if data[-1:] == b"\n":
            return data

        begin = data.rfind(_KEY, max(0, len(data) - most))
        if begin < 0 or (needle is not _KEY and data.startswith(self._asked, begin)):
            begin = next((len(data) - size for size in range(len(_KEY) - 1, 0, -1) if data.endswith(_KEY[:size])), -1)

        if begin < 0:
            return data

        self._held = data[begin:]
        return data[:begin]
