"""A file of a repository brought onto the disk: continued where an earlier try ended, checked before it gets its name.

The client's own downloads are not used: ADR 12 says why. Blocks.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable
from time import sleep
from typing import Literal, NamedTuple

import httpx2
from huggingface_hub import get_session

from orchestrator.adapters.hub.address import file_url, request_headers
from orchestrator.adapters.hub.failures import TRANSPORT_ERRORS, hub_failure, status_failure
from orchestrator.adapters.hub.listing import TIMEOUT_S
from orchestrator.adapters.hub.partial import READ_BYTES, drop_other_versions, give_name, is_whole, open_partial
from orchestrator.adapters.hub.ranges import RemoteFile
from orchestrator.core.errors import OrchError
from orchestrator.core.plan.repository import RepositoryFile
from orchestrator.core.setup.pulls import IDENTITY_LENGTH, partial_name, size_words

WINDOW_BYTES = 8 << 30
"""Of one request: the networks before the hub serve at most 50 GB in one answer."""

PAUSES_S = (0.0, 1.0, 2.0, 4.0, 8.0, 16.0)
"""Before the next connection when one has brought nothing, or was refused; after the last it is given up."""

MOST_PAUSE_S = 120.0
"""A server may ask for a longer one; nobody waits that long at a terminal."""

_CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+)")
_SHA256 = re.compile(r"[0-9a-f]{64}")

Step = Literal["checking", "receiving", "broken", "waiting"]
"""What happens to a file: what is on the disk is read, bytes come, a connection broke, another process fetches it."""

Watch = Callable[[Step, int], None]
"""Called with each step and the bytes of the file that are there."""


class ChangedError(OrchError):
    """Raised when a file is not the one that the listing told of: it is to be listed again, and begun anew."""


class Version(NamedTuple):
    """One version of a file, as it is to be on the disk.

    :param identity: hexadecimal digits that another version of it does not have
    :param tag: of the server, by which versions are told apart where no checksum is known
    """

    file: RepositoryFile
    size: int
    identity: str
    tag: str | None = None


def version_of(repository: str, file: RepositoryFile) -> Version:
    """Return which version a repository has now; where the listing lacks size or checksum, by asking for a byte of it.

    :raises OrchError: when the hub does not tell
    """
    if file.size_bytes is not None and file.sha256 is not None:
        return Version(file, file.size_bytes, file.sha256[:IDENTITY_LENGTH])

    remote = RemoteFile(repository, file.path, 1)
    said = file.sha256 or hashlib.sha256(f"{remote.tag} {remote.size}".encode()).hexdigest()
    return Version(file, remote.size, said[:IDENTITY_LENGTH], remote.tag)


def download(repository: str, version: Version, target: str, watch: Watch) -> int:
    """Bring a file to `target`, unless it is there whole; return the bytes that came over the network.

    What has arrived stays when this fails or is interrupted, and the next call goes on from there.

    :raises ChangedError: when the hub has another version than this, or sent other bytes; nothing of them is kept
    :raises OrchError: when it cannot be fetched, or not be written
    """
    size, sha256 = version.size, version.file.sha256
    if is_whole(target, size, sha256, lambda read: watch("checking", read)):
        return 0

    with open_partial(target, size, version.identity, lambda: watch("waiting", 0)) as fd:
        if is_whole(target, size, sha256, lambda read: watch("checking", read)):  # another process has fetched it
            return 0

        drop_other_versions(target, size, version.identity)
        transfer = _Transfer(repository, version, fd, watch)
        try:
            transfer.run()
        except OSError as error:
            words = f"{target}: {error.strerror or error}"
            raise OrchError("a model cannot be written", details=(words,), hint="what has arrived is kept") from error

        if sha256 is not None and transfer.checksum() != sha256:
            os.unlink(partial_name(target, size, version.identity))
            raise ChangedError(
                f"hf:{repository}/{version.file.path}: what arrived is not what the hub names",
                details=(f"SHA-256 {transfer.checksum()}, expected {sha256}",),
                hint="run this again: it is begun anew; if that does not help, HF_ENDPOINT names another mirror",
            )

        give_name(fd, target, size, version.identity, sha256)
        return transfer.received


class _RefusedError(Exception):
    """Raised when the server answers that it cannot just now."""

    def __init__(self, status: int, pause_s: float) -> None:
        super().__init__(status)
        self.status = status
        self.pause_s = pause_s


class _Transfer:
    """The bytes of one file on their way into an open one."""

    def __init__(self, repository: str, version: Version, fd: int, watch: Watch) -> None:
        self.received = 0
        self._name = f"hf:{repository}/{version.file.path}"
        self._url = file_url(repository, version.file.path)
        self._headers = request_headers()
        self._version = version
        self._fd = fd
        self._watch = watch
        self._digest = hashlib.sha256()
        self._at = 0

    def run(self) -> None:
        """Receive what is missing, over as many connections as it takes.

        :raises OrchError: when several in a row bring nothing
        """
        self._read_kept()
        failures = 0
        while self._at < self._version.size:
            before, pause_s = self._at, 0.0
            error: Exception | None = None
            try:
                self._receive()
            except _RefusedError as refusal:
                error, pause_s = refusal, refusal.pause_s
            except (httpx2.NetworkError, httpx2.RemoteProtocolError, httpx2.TimeoutException) as broken:
                if isinstance(broken, httpx2.ConnectError) and not self.received:  # there is no network at all
                    raise hub_failure(broken, self._name, self._url) from broken

                error = broken
            except TRANSPORT_ERRORS as failure:
                raise hub_failure(failure, self._name, self._url) from failure

            # A connection that ended early without an error counts as one that broke.
            failures = 0 if self._at > before else failures + 1
            if failures >= len(PAUSES_S):
                raise self._given_up(error)

            if self._at < self._version.size and (error is not None or failures):
                self._watch("broken", self._at)
                sleep(max(PAUSES_S[failures], pause_s))

    def checksum(self) -> str:
        """Return the SHA-256 of all that is there."""
        return self._digest.hexdigest()

    def _read_kept(self) -> None:
        """Take what an earlier try has left for the file's beginning: the checksum covers it too."""
        if os.fstat(self._fd).st_size > self._version.size:
            os.ftruncate(self._fd, 0)

        while piece := os.pread(self._fd, READ_BYTES, self._at):
            self._digest.update(piece)
            self._at += len(piece)
            self._watch("checking", self._at)

    def _receive(self) -> None:
        last = min(self._at + WINDOW_BYTES, self._version.size) - 1
        headers = {**self._headers, "range": f"bytes={self._at}-{last}"}
        with get_session().stream("GET", self._url, headers=headers, timeout=TIMEOUT_S) as response:
            self._check(response)
            for piece in response.iter_raw():
                self._write(piece[: self._version.size - self._at])
                self._watch("receiving", self._at)
                if self._at >= self._version.size:
                    return

    def _check(self, response: httpx2.Response) -> None:
        """Check that an answer continues the file, and is of the version that is wanted."""
        status = response.status_code
        for answer in (*response.history, response):
            linked = answer.headers.get("x-linked-etag", "").strip('W/"')
            if _SHA256.fullmatch(linked) and self._version.file.sha256 not in (None, linked):
                raise self._changed("its checksum is another one")

        if status == 416:
            raise self._changed(f"it ends before byte {self._at}")

        if status == 429 or status >= 500:
            asked = response.headers.get("retry-after", "")
            raise _RefusedError(status, min(float(asked), MOST_PAUSE_S) if asked.isascii() and asked.isdigit() else 0.0)

        if status not in (200, 206):
            gated = response.headers.get("x-error-code") == "GatedRepo"
            raise status_failure(status, self._name, self._url, gated=gated)

        if response.headers.get("content-encoding", "identity") != "identity":
            raise self._useless("the server compresses what is to be sent as it is")

        if self._version.tag is not None and response.headers.get("etag") != self._version.tag:
            raise self._changed("its ETag is another one")

        if status == 200:
            self._begin_anew(response.headers.get("content-length", ""))
            return

        found = response.headers.get("content-range", "")
        match = _CONTENT_RANGE.fullmatch(found)
        if match is not None and int(match[3]) != self._version.size:
            raise self._changed(f"its size is {match[3]} bytes, and was {self._version.size}")

        if match is None or int(match[1]) != self._at:
            raise self._useless(f"a range from byte {self._at} is answered with {found[:80] or 'nothing'}")

    def _begin_anew(self, length: str) -> None:
        """Take a whole file, from a server that serves no ranges."""
        if length.isascii() and length.isdigit() and int(length) != self._version.size:
            raise self._changed(f"its size is {length} bytes, and was {self._version.size}")

        os.ftruncate(self._fd, 0)
        self._digest, self._at = hashlib.sha256(), 0

    def _write(self, piece: bytes) -> None:
        view = memoryview(piece)
        while view:
            written = os.pwrite(self._fd, view, self._at)
            self._digest.update(view[:written])
            self._at += written
            self.received += written
            view = view[written:]

    def _given_up(self, error: Exception | None) -> OrchError:
        kept = f"{size_words(self._at)} of {size_words(self._version.size)} are kept"
        if isinstance(error, _RefusedError):
            failure = status_failure(error.status, self._name, self._url)
        elif error is not None:
            failure = hub_failure(error, self._name, self._url)
        else:
            failure = OrchError(f"{self._name}: the server ends the connection early", details=(self._url,))

        hint = f"{failure.hint}; it goes on from there" if failure.hint else "run this again: it goes on from there"
        return OrchError(failure.message, details=(*failure.details, kept), hint=hint)

    def _changed(self, detail: str) -> ChangedError:
        return ChangedError(
            f"{self._name} was changed while it was fetched", details=(self._url, detail), hint="run this again"
        )

    def _useless(self, detail: str) -> OrchError:
        return OrchError(f"{self._name} cannot be fetched", details=(self._url, detail), hint="take another mirror")
