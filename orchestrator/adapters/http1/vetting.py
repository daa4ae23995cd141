"""The rules for a request head beyond llhttp's grammar. Pure.

llhttp in strict mode refuses bare LF, obs-fold, NUL, two lengths, a length beside a transfer coding, and bad chunks;
the rest of the smuggling vectors is refused here.
"""

from __future__ import annotations

import json

from orchestrator.adapters.http1.wire import Headers, encode_head

_FRAMING = frozenset((b"content-length", b"transfer-encoding", b"host", b"connection"))
_REFUSED_METHODS = frozenset(("TRACE", "CONNECT"))


class RejectedRequest(Exception):
    """A request that the server answers itself, and then closes the connection."""

    def __init__(self, status: int, reason: str, *, retry_after_s: int | None = None) -> None:
        super().__init__(reason)
        self.retry_after_s = retry_after_s
        self.status = status
        self.reason = reason


def vet(method: str, url: bytes, version: str, headers: Headers, *, upgrade: bool) -> tuple[str, int]:
    """Check a head, and return the target in origin form and the announced length (0 when there is none).

    :param upgrade: the client offers to go on in another protocol
    :raises RejectedRequest: with the status to answer
    """
    if version not in ("1.1", "1.0"):
        raise RejectedRequest(505, f"HTTP/{version} is not supported")

    if method in _REFUSED_METHODS:
        raise RejectedRequest(405, f"{method} is not supported")

    if upgrade and any(name == b"upgrade" and b"websocket" in value.lower() for name, value in headers):
        raise RejectedRequest(400, "there is no WebSocket here: answers are streamed as server-sent events")

    host: bytes | None = None
    length = 0
    coded = False
    for name, value in headers:
        if name == b"host":
            if host is not None:
                raise RejectedRequest(400, "the request has two Host headers")

            host = value.strip()
        elif name == b"content-length":
            length = _length(value)
        elif name == b"transfer-encoding":
            if coded or version == "1.0" or value.strip().lower() != b"chunked":
                raise RejectedRequest(400, "the Transfer-Encoding is not supported")

            coded = True
        elif b"_" in name and name.replace(b"_", b"-") in _FRAMING:
            raise RejectedRequest(400, "a framing header is spelt with an underscore")

    if host is None and version == "1.1":
        raise RejectedRequest(400, "the request has no Host header")

    return _origin_form(url, host), length


_OFFER = frozenset((b"upgrade", b"http2-settings"))


def without_offer(method: bytes, url: bytes, version: str, headers: Headers) -> bytes:
    """Return a head as it would be if its client had not offered another protocol (RFC 9110, 7.8 lets a server ignore
    that). All that frames the body stays as it came.
    """
    kept: Headers = []
    for name, value in headers:
        if name == b"connection":
            options = [part.strip() for part in value.split(b",")]
            value = b", ".join(part for part in options if part and part.lower() not in _OFFER)
            if not value:
                continue

        if name not in _OFFER:
            kept.append((name, value))

    return encode_head(b"%b %b HTTP/%b" % (method, url, version.encode()), kept)


def refusal_body(refusal: RejectedRequest) -> tuple[Headers, bytes]:
    kind = "invalid_request_error" if refusal.status < 500 else "server_error"
    error = {"message": refusal.reason, "type": kind, "param": None, "code": None}
    headers = [(b"content-type", b"application/json")]
    if refusal.retry_after_s is not None:
        headers.append((b"retry-after", b"%d" % refusal.retry_after_s))

    return headers, json.dumps({"error": error}).encode()


def _length(value: bytes) -> int:
    digits = value.strip()
    if not digits.isdigit() or len(digits) > 18:
        raise RejectedRequest(400, "the Content-Length is not a number")

    return int(digits)


def _origin_form(url: bytes, host: bytes | None) -> str:
    if b"#" in url or not url.isascii():
        raise RejectedRequest(400, "the request target is malformed")

    if url.startswith(b"/"):
        return url.decode()

    scheme, separator, rest = url.partition(b"://")
    authority, slash, path = rest.partition(b"/")
    if not separator or scheme.lower() not in (b"http", b"https"):
        raise RejectedRequest(400, "the request target is not a path")

    if host is None or authority.lower() != host.lower():
        raise RejectedRequest(400, "the host of the request target and the Host header differ")

    return (slash + path).decode() or "/"
