"""Bodies that their client has compressed (`Content-Encoding`): which codings are known, and undone in small steps.

A body of few bytes may hold any number of them: what comes out is counted as it comes, and no step takes long.
"""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Callable
from functools import cache
from importlib import import_module
from types import ModuleType
from typing import Literal, Protocol

from orchestrator.adapters.http1.wire import Headers

STEP_BYTES = 256 * 1024
"""What one step takes in or gives out at most: about a millisecond."""

_SLICE_BYTES = 64 * 1024
_ZSTD_WINDOW_LOG = 23
"""8 MiB, as RFC 9659 says for this use: a frame may ask for more, and would have it beside all that is counted here."""

_GZIP_WBITS = 31

ContentProblem = Literal["unknown_coding", "broken", "too_large", "no_room"]


class ContentError(Exception):
    """A body that cannot be had without its coding."""

    def __init__(self, problem: ContentProblem, reason: str) -> None:
        super().__init__(reason)
        self.problem = problem
        self.reason = reason


class _Decompressor(Protocol):
    """As `compression.zstd` has it."""

    @property
    def eof(self) -> bool: ...

    @property
    def needs_input(self) -> bool: ...

    @property
    def unused_data(self) -> bytes: ...

    def decompress(self, data: bytes, max_length: int) -> bytes: ...


def accepted_codings() -> str:
    """Return the codings of request bodies that can be undone here, for `Accept-Encoding`."""
    return "gzip, zstd" if _zstd_module() is not None else "gzip"


def content_coding(headers: Headers) -> str | None:
    """Return the coding of a body; None where it has none.

    :raises ContentError: for one that is not known here, and for several
    """
    values = [value for name, value in headers if name == b"content-encoding"]
    if not values:
        return None

    codings = [part.strip().lower() for part in b",".join(values).decode("latin-1").split(",")]
    codings = [part.removeprefix("x-") for part in codings if part and part != "identity"]
    if not codings:
        return None

    if len(codings) > 1:
        raise ContentError("unknown_coding", f"the body has {len(codings)} content codings; one is read: {_one_of()}")

    if codings[0] == "gzip" or (codings[0] == "zstd" and _zstd_module() is not None):
        return codings[0]

    more = "; for zstd install the package backports.zstd" if codings[0] == "zstd" else ""
    raise ContentError("unknown_coding", f"the content coding of the body is not known here: send {_one_of()}{more}")


async def decode(data: bytes, coding: str, limit_bytes: int, grow: Callable[[int], bool]) -> bytes:
    """Return a body without its coding.

    :param grow: counts bytes that are held from now on, and says whether there is room for them
    :raises ContentError: as soon as there are too many
    """
    decoder = BodyDecoder(data, coding)
    parts: list[bytes] = []
    size = 0
    while not decoder.ended:
        # Mostly one step is all. The others hold up nobody: both libraries work without the interpreter's lock.
        part = await asyncio.to_thread(decoder.step) if parts else decoder.step()
        size += len(part)
        if size > limit_bytes:
            raise ContentError("too_large", f"the body is larger than {limit_bytes} bytes without its {coding}")

        if not grow(len(part)):
            raise ContentError("no_room", "the bodies of all requests together would take too much; try again later")

        parts.append(part)

    if len(parts) == 1:
        return parts[0]

    return await asyncio.to_thread(b"".join, parts)  # for many, this too is without the lock


class BodyDecoder:
    """Undoes one coding step by step.

    :ivar ended: all of it was given out
    """

    def __init__(self, data: bytes, coding: str) -> None:
        self.ended = False
        self._data = data
        self._at = 0
        self._coding = coding
        self._decompressor, self._error = _gzip() if coding == "gzip" else _zstd()

    def step(self) -> bytes:
        """Return the next part, which may be empty.

        :raises ContentError: `broken`
        """
        decompressor, stop = self._decompressor, self._at + STEP_BYTES
        parts: list[bytes] = []
        room = STEP_BYTES
        while room and self._at < stop and not self.ended:
            data = b""
            if decompressor.needs_input:
                data = self._data[self._at : self._at + _SLICE_BYTES]
                self._at += len(data)
                if not data:
                    raise self._broken("it is cut off")

            try:
                part = decompressor.decompress(data, room)
            except self._error as error:
                raise self._broken(str(error)) from None

            parts.append(part)
            room -= len(part)
            self.ended = decompressor.eof

        if self.ended and (decompressor.unused_data or self._at < len(self._data)):
            raise self._broken("something follows its end")

        return b"".join(parts)

    def _broken(self, reason: str) -> ContentError:
        return ContentError("broken", f"the body cannot be read as {self._coding}: {reason}")


class _GzipDecompressor:
    """zlib's, with what zstd's says of itself."""

    def __init__(self) -> None:
        self._inflate = zlib.decompressobj(_GZIP_WBITS)
        self._has_more = False

    @property
    def eof(self) -> bool:
        return self._inflate.eof

    @property
    def needs_input(self) -> bool:
        return not self._has_more

    @property
    def unused_data(self) -> bytes:
        return self._inflate.unused_data

    def decompress(self, data: bytes, max_length: int) -> bytes:
        part = self._inflate.decompress(self._inflate.unconsumed_tail + data, max_length)
        # A full part may have left some inside, though no input is left.
        self._has_more = bool(self._inflate.unconsumed_tail) or len(part) == max_length
        return part


@cache
def _zstd_module() -> ModuleType | None:
    for name in ("compression.zstd", "backports.zstd"):  # the one is Python's own, from 3.14 on
        try:
            return import_module(name)
        except ImportError:
            continue

    return None


def _gzip() -> tuple[_Decompressor, type[Exception]]:
    return _GzipDecompressor(), zlib.error


def _zstd() -> tuple[_Decompressor, type[Exception]]:
    module = _zstd_module()
    assert module is not None
    options = {module.DecompressionParameter.window_log_max: _ZSTD_WINDOW_LOG}
    return module.ZstdDecompressor(options=options), module.ZstdError


def _one_of() -> str:
    return accepted_codings().replace(", ", " or ")
