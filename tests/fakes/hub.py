"""A hub of models like the real one: a listing, and files that it redirects to another host, which serves ranges.

Counts what is sent, remembers what was asked, and fails as told. The files lie on disk; most of one may be a hole.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import re
import socket
import struct
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Literal, NamedTuple
from urllib.parse import parse_qs, quote, unquote, urlsplit

Fault = Literal[
    "whole", "break", "reset", "stall", "rotten", "hang", "loop", "changing", "drip", "elsewhere", "gone",
    "unavailable", "gzip",
]  # fmt: skip

_RANGE = re.compile(r"bytes=(\d+)-(\d+)")
_MODEL = re.compile(r"/api/models/([^/]+/[^/]+)(/tree/main)?")
_RESOLVE = re.compile(r"/([^/]+/[^/]+)/resolve/main/(.+)")
_PIECE = 1 << 16
_LARGE = 64 << 20


class HubRequest(NamedTuple):
    """One request that came: to the hub or to the host of its files."""

    host: Literal["hub", "cdn"]
    method: str
    path: str
    range: str | None
    authorization: str | None


@dataclass
class StubHub:
    """What the stub serves and how.

    :param repositories: name to the files in it, path to a file on disk
    :param faults: path in a repository to what goes wrong with it
    :param gated: repositories that want `token`
    :param moved: old names of repositories to new ones
    :param break_after: bytes of a body before its connection breaks, with the faults `break` and `reset`, or before it
        sends nothing more until `released`, with `stall`
    :param break_anywhere: takes the place of `break_after`, for each connection another one
    :param refusals: so many requests for files are answered with 503 first
    :param checksums: the listing has them, as the real hub's; a mirror's need not
    :param tree_only: a mirror that has no `/api/models/NAME`
    :param listing: what is answered to every question for a listing, in place of one
    """

    repositories: Mapping[str, Mapping[str, str]]
    faults: dict[str, Fault] = field(default_factory=dict)
    gated: set[str] = field(default_factory=set)
    token: str = "hf_right"
    moved: dict[str, str] = field(default_factory=dict)
    break_after: int = 300_000
    break_anywhere: random.Random | None = None
    breaks_left: int = 1_000_000
    refusals: int = 0
    checksums: bool = False
    tree_only: bool = False
    listing: bytes | None = None
    endpoint: str = ""
    files_at: str = ""
    sent: int = 0
    requests: list[HubRequest] = field(default_factory=list)
    ended: threading.Event = field(default_factory=threading.Event)
    released: threading.Event = field(default_factory=threading.Event)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def file(self, repository: str, path: str) -> str | None:
        return self.repositories.get(repository, {}).get(path)


class QuietServer(ThreadingHTTPServer):
    """Says nothing of clients that went away."""

    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        pass


@contextmanager
def serving(hub: StubHub) -> Iterator[StubHub]:
    """Serve the hub, and its files under another name of this machine; both end with the block."""
    servers = [QuietServer(("127.0.0.1", 0), _handler(hub, host)) for host in ("hub", "cdn")]
    hub.endpoint = f"http://127.0.0.1:{servers[0].server_address[1]}"
    hub.files_at = f"http://localhost:{servers[1].server_address[1]}"
    threads = [threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}) for server in servers]
    for thread in threads:
        thread.start()

    try:
        yield hub
    finally:
        hub.ended.set()
        hub.released.set()
        for server, thread in zip(servers, threads, strict=True):
            server.shutdown()
            thread.join()
            server.server_close()


def _handler(hub: StubHub, host: Literal["hub", "cdn"]) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            asked = self.headers
            request = HubRequest(host, self.command, self.path, asked.get("Range"), asked.get("Authorization"))
            with hub.lock:
                hub.requests.append(request)

            try:
                _answer(hub, request, self)
            except (BrokenPipeError, ConnectionResetError):  # the client has what it wanted
                self.close_connection = True

        do_HEAD = do_GET

        def log_message(self, format: str, *args: object) -> None:
            pass

    return Handler


def _answer(hub: StubHub, request: HubRequest, to: BaseHTTPRequestHandler) -> None:
    path = unquote(urlsplit(request.path).path)
    if request.host == "cdn":
        query = parse_qs(urlsplit(request.path).query)
        _send_file(hub, query["repo"][0], path[1:], to)
        return

    if hub.listing is not None and path.startswith("/api/"):
        _say(to, 200, {"Content-Type": "application/json"}, hub.listing)
        return

    match = _MODEL.fullmatch(path) or _RESOLVE.fullmatch(path)
    if match is None:
        _say(to, 404)
        return

    repository, rest = match[1], match[2]
    if repository in hub.moved:
        there = request.path.replace(repository, hub.moved[repository])
        _say(to, 307, {"Location": there})
    elif repository in hub.gated and request.authorization != f"Bearer {hub.token}":
        _say(to, 401 if request.authorization is None else 403, {"X-Error-Code": "GatedRepo"})
    elif repository not in hub.repositories:
        _say(to, 401 if request.authorization is None else 404, {"X-Error-Code": "RepoNotFound"})
    elif path.startswith("/api/"):
        _send_listing(hub, repository, tree=rest is not None, to=to)
    else:
        _redirect(hub, repository, rest, to)


def _send_listing(hub: StubHub, repository: str, *, tree: bool, to: BaseHTTPRequestHandler) -> None:
    files = hub.repositories[repository]
    sizes = {path: os.path.getsize(where) for path, where in files.items()}
    if hub.tree_only and not tree:
        _say(to, 404)
        return

    sums = {path: checksum(where) for path, where in files.items()} if hub.checksums else {}
    listed: object
    if tree:
        listed = [
            {"type": "file", "path": path, "size": size, "oid": "0" * 40, **_lfs(size, "oid", sums.get(path))}
            for path, size in sizes.items()
        ]
    else:
        siblings = [
            {"rfilename": path, "size": size, "blobId": "0" * 40, **_lfs(size, "sha256", sums.get(path))}
            for path, size in sizes.items()
        ]
        listed = {"id": repository, "sha": "1" * 40, "private": False, "gated": False, "siblings": siblings}

    _say(to, 200, {"Content-Type": "application/json"}, json.dumps(listed).encode())


def checksum(where: str) -> str:
    """Return a file's SHA-256; of one that is mostly a hole, and is not to be fetched, any other text like it."""
    if os.path.getsize(where) > _LARGE:
        return hashlib.sha256(where.encode()).hexdigest()

    with open(where, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _lfs(size: int, name: str, sha256: str | None) -> dict[str, object]:
    return {} if sha256 is None else {"lfs": {"size": size, name: sha256, "pointerSize": 134}}


def _redirect(hub: StubHub, repository: str, path: str, to: BaseHTTPRequestHandler) -> None:
    where, fault = hub.file(repository, path), hub.faults.get(path)
    if where is None or fault == "gone":
        _say(to, 404, {"X-Error-Code": "EntryNotFound"})
        return

    if fault == "unavailable":
        _say(to, 503)
        return

    if hub.refusals:
        hub.refusals -= 1
        _say(to, 503, {"Retry-After": "0"})
        return

    there = f"{hub.files_at}/{quote(path)}?repo={quote(repository, safe='')}&signature=s"
    if fault == "loop":
        there = f"/{repository}/resolve/main/{quote(path)}"

    size = str(os.path.getsize(where))
    linked = checksum(where) if hub.checksums else "linked"
    _say(to, 302, {"Location": there, "X-Linked-Size": size, "X-Linked-Etag": f'"{linked}"', "X-Repo-Commit": "1" * 40})


def _send_file(hub: StubHub, repository: str, path: str, to: BaseHTTPRequestHandler) -> None:
    where, fault = hub.file(repository, path), hub.faults.get(path)
    if where is None:
        _say(to, 404)
        return

    if fault == "hang":
        hub.ended.wait(60)
        to.close_connection = True
        return

    size = os.path.getsize(where)
    asked = _RANGE.fullmatch(to.headers.get("Range", ""))
    first, last = (int(asked[1]), min(int(asked[2]), size - 1)) if asked and fault != "whole" else (0, size - 1)
    if first >= size:
        _say(to, 416, {"Content-Range": f"bytes */{size}"})
        return

    to.send_response(206 if asked and fault != "whole" else 200)
    tag = len(hub.requests) if fault == "changing" else hash(where)
    to.send_header("ETag", f'"{tag}"')
    to.send_header("Content-Length", str(last - first + 1))
    if fault == "gzip":
        to.send_header("Content-Encoding", "gzip")

    if asked and fault != "whole":
        shift = 7 if fault == "elsewhere" else 0
        to.send_header("Content-Range", f"bytes {first + shift}-{last + shift}/{size}")

    to.end_headers()
    if to.command != "HEAD":
        _send_body(hub, where, first, last + 1, fault, to)


def _send_body(hub: StubHub, where: str, first: int, end: int, fault: Fault | None, to: BaseHTTPRequestHandler) -> None:
    breaks, whole = False, end
    after = hub.break_anywhere.randrange(1, 2 * hub.break_after) if hub.break_anywhere else hub.break_after
    if fault in ("break", "reset", "stall") and end - first > after and hub.breaks_left:
        hub.breaks_left -= 1
        end, breaks = first + after, True

    with open(where, "rb") as file:
        while first < end:
            piece = os.pread(file.fileno(), 1 if fault == "drip" else min(_PIECE, end - first), first)
            to.wfile.write(bytes(len(piece)) if fault == "rotten" else piece)
            first += len(piece)
            with hub.lock:
                hub.sent += len(piece)

            if fault == "drip" and hub.ended.wait(0.05):
                break

    if breaks and fault == "stall":
        hub.released.wait(60)
        _send_body(hub, where, end, whole, None, to)
        return

    if breaks and fault == "reset":  # the client gets an error in place of an end
        to.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    if breaks or fault == "drip":
        to.wfile.flush()
        to.close_connection = True
        to.connection.close()


def _say(to: BaseHTTPRequestHandler, status: int, headers: Mapping[str, str] | None = None, body: bytes = b"") -> None:
    to.send_response(status)
    for name, value in (headers or {}).items():
        to.send_header(name, value)

    to.send_header("Content-Length", str(len(body)))
    to.end_headers()
    if to.command != "HEAD":
        to.wfile.write(body)
