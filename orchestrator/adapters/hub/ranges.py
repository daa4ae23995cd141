"""A file of a repository as a source of bytes: what is asked for comes by HTTP ranges, and never the whole file."""

from __future__ import annotations

import re
from time import monotonic
from typing import NamedTuple

import httpx2
from huggingface_hub import get_session

from orchestrator.adapters.hub.address import file_url, request_headers
from orchestrator.adapters.hub.failures import TRANSPORT_ERRORS, hub_failure, status_failure
from orchestrator.adapters.hub.listing import TIMEOUT_S
from orchestrator.core.errors import OrchError

FIRST_WINDOW_BYTES = 1 << 20
"""Before the vocabulary comes what is worth knowing; most later parts of a split model end in it."""

WINDOW_S = 60.0
"""Of one window, however it comes: a server that sends a byte now and then would hold us for ever."""

ATTEMPTS = 3
"""Connections for one window. What arrived before one broke is kept."""

_CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+)")


class _Version(NamedTuple):
    """Which file it was: another one has another tag, or another size."""

    tag: str | None
    size: int


class RemoteFile:
    """One file of a repository. Each window is half of what was read so far, so little is read in vain.

    :param first_window: bytes of the first request
    :raises OrchError: when the file is not there, or the server does not serve ranges
    """

    def __init__(self, repository: str, path: str, first_window: int = FIRST_WINDOW_BYTES) -> None:
        self.name = f"hf:{repository}/{path}"
        self.transferred = 0
        self._url = file_url(repository, path)
        self._headers = request_headers()
        self._version: _Version | None = None
        self._least_window = first_window
        self._first = self._fetch(0, first_window)

    @property
    def size(self) -> int:
        """Bytes of the whole file."""
        return self._version.size if self._version is not None else 0

    @property
    def tag(self) -> str | None:
        """The server's mark of this version of the file."""
        return self._version.tag if self._version is not None else None

    def read(self, offset: int, least: int) -> bytes:
        """Return at least so many bytes from an offset on; fewer only at the file's end."""
        if offset + least <= len(self._first):
            return self._first[offset:]

        window = max(least, self._least_window // 4, self.transferred // 2)
        return self._fetch(offset, min(window, max(self.size - offset, least)))

    def _fetch(self, offset: int, count: int) -> bytes:
        got = bytearray()
        for attempt in range(1, ATTEMPTS + 1):
            try:
                self._receive(got, offset, count)
                return bytes(got)
            except (httpx2.NetworkError, httpx2.RemoteProtocolError) as error:
                # A connection that broke: the rest may come on the next one. Who was never there is not asked again.
                if attempt == ATTEMPTS or isinstance(error, httpx2.ConnectError):
                    raise hub_failure(error, self.name, self._url) from error
            except TRANSPORT_ERRORS as error:
                raise hub_failure(error, self.name, self._url) from error

        raise AssertionError("unreachable")

    def _receive(self, got: bytearray, offset: int, count: int) -> None:
        """Add what one request brings to what has arrived of a window."""
        first = offset + len(got)
        headers = {**self._headers, "range": f"bytes={first}-{offset + count - 1}"}
        deadline = monotonic() + WINDOW_S
        with get_session().stream("GET", self._url, headers=headers, timeout=TIMEOUT_S) as response:
            self._check(response, first)
            for piece in response.iter_raw():
                got += piece[: count - len(got)]
                self.transferred += len(piece)
                if len(got) >= count:
                    return

                if monotonic() > deadline:
                    late = f"the server sent {len(got)} of {count} bytes in {WINDOW_S:.0f} s"
                    raise self._error(late, "try again later")

    def _check(self, response: httpx2.Response, first: int) -> None:
        """Check that an answer is the range that was asked for, of the same file as before."""
        status = response.status_code
        if status == 416:
            raise self._error(f"it ends before byte {first}: it is empty, or was changed meanwhile", "run this again")

        if status == 200:
            raise self._error(
                "the server sends whole files and no ranges (HTTP 200, expected 206)",
                "take the hub itself or another mirror (HF_ENDPOINT), or download the file and name its path",
            )

        if status != 206:
            gated = response.headers.get("x-error-code") == "GatedRepo"
            raise status_failure(status, self.name, self._url, gated=gated)

        match = _CONTENT_RANGE.fullmatch(response.headers.get("content-range", ""))
        if (
            match is None
            or int(match[1]) != first
            or response.headers.get("content-encoding", "identity") != "identity"
        ):
            found = response.headers.get("content-range", "nothing")
            raise self._error(f"the server answers a range from byte {first} with {found[:80]}", "take another mirror")

        version = _Version(response.headers.get("etag"), int(match[3]))
        if self._version is not None and version != self._version:
            raise self._error("it was changed while it was read: another ETag or size", "run this again")

        self._version = version

    def _error(self, detail: str, hint: str) -> OrchError:
        return OrchError(f"{self.name} cannot be read", details=(self._url, detail), hint=hint)
