"""The checks before a request is served: Host allowlist, cross-site requests, keys, content types. Pure."""

from __future__ import annotations

import hashlib
import hmac
import re
from base64 import b64decode
from collections.abc import Iterable

from orchestrator.adapters.config.key_file import ApiKey
from orchestrator.adapters.http1 import ContentError, Request, content_coding
from orchestrator.core.addresses import WILDCARDS, bare_host, is_address, is_loopback
from orchestrator.core.terminal import quote_text
from orchestrator.gateway.errors import GatewayError, content_error
from orchestrator.gateway.requests.origins import AllowedOrigins

_HOST = re.compile(r"(?P<name>\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::\d{1,5})?")
_SIMPLE_TYPES = frozenset(("text/plain", "multipart/form-data"))
"""Content types that a form on a foreign page can send without asking first. The third such type,
`x-www-form-urlencoded`, is curl's default; a browser that sends it says where the page is from, and that is checked
before."""


_MAX_QUOTED = 100
"""Characters of a Host that a message shows."""


class RequestGuard:
    """The checks that come before any route, built once from the configuration.

    :param hosts: names that clients may use beside this machine's own, the bind address among them
    :param origins: whose pages may ask
    """

    def __init__(self, hosts: Iterable[str], keys: Iterable[ApiKey], origins: AllowedOrigins) -> None:
        names = {bare_host(host) for host in hosts}
        # On a wildcard address any literal address may be ours. Rebinding needs a name, so a literal is no danger.
        self._any_literal = bool(names & WILDCARDS)
        self._hosts = frozenset(names)
        self._origins = origins
        self._keys = [(_digest(each.key.encode()), each) for each in keys]

    def check_host(self, request: Request) -> None:
        """
        :raises GatewayError: when the Host is not ours, as after DNS rebinding
        """
        host = request.header(b"host")
        if host is None or not self._ours(host.decode("latin-1")):
            raise GatewayError("host_not_allowed", _not_allowed(host))

    def check_site(self, request: Request) -> None:
        """
        :raises GatewayError: when a browser says that a page from elsewhere sends this
        """
        origin = request.header(b"origin")
        if self._origins.allows(origin):
            return

        if request.header(b"sec-fetch-site") == b"cross-site":
            raise _cross_site(origin)

        if origin is not None:
            scheme, _, host = origin.decode("latin-1").partition("://")
            if scheme not in ("http", "https") or not self._ours(host):
                raise _cross_site(origin)

    def check_page(self, request: Request) -> None:
        """
        :raises GatewayError: when a browser asks whether a page may send something, and it may not
        """
        origin = request.header(b"origin")
        if not self._origins.allows(origin):
            raise _cross_site(origin)

    def check_key(self, request: Request) -> ApiKey | None:
        """Return the key that a request shows; None when no keys are configured.

        :raises GatewayError: when keys are configured and none of them is shown
        """
        if not self._keys:
            return None

        shown = _digest(_token(request))
        known: ApiKey | None = None
        for digest, key in self._keys:
            # Each key is compared, in constant time: how long it takes says nothing.
            if hmac.compare_digest(digest, shown):
                known = key

        if known is None:
            raise GatewayError(
                "invalid_api_key", "the API key is missing or wrong", headers=[(b"www-authenticate", b"Bearer")]
            )

        return known

    def _ours(self, host: str) -> bool:
        match = _HOST.fullmatch(host)
        if match is None:
            return False

        name = bare_host(match["name"])
        if name in self._hosts or is_loopback(name):
            return True

        return self._any_literal and is_address(name)


def check_content(request: Request, *, json_body: bool) -> None:
    """
    :raises GatewayError: when a form's content type comes to a JSON route, or a body in an unknown coding
    """
    try:
        content_coding(request.headers)
    except ContentError as error:
        raise content_error(error) from None

    kind = (request.header(b"content-type") or b"").split(b";")[0].strip().lower().decode("latin-1")
    if json_body and kind in _SIMPLE_TYPES:
        raise GatewayError("unsupported_media_type", f"send application/json, not {kind}")


async def read_body(request: Request) -> bytes:
    """Return the whole body, without its content coding. To be asked once.

    :raises GatewayError: when it cannot be had so
    """
    try:
        return await request.content()
    except ContentError as error:
        raise content_error(error) from None


def shows_key(request: Request) -> bool:
    """Return whether a request has a field that a key stands in, right or wrong."""
    return any(request.header(name) for name in (b"authorization", b"x-api-key", b"api-key"))


def _cross_site(origin: bytes | None) -> GatewayError:
    text = "requests from another site's pages are not allowed"
    if origin is not None:
        name = quote_text(origin.decode("latin-1"), _MAX_QUOTED)
        text += f"; add `{name}` to gateway.allowed_origins in orch.toml if this page may use your models"

    return GatewayError("cross_site", text)


def _not_allowed(host: bytes | None) -> str:
    if not host:
        return "the request has no Host header"

    text = host.decode("latin-1")
    match = _HOST.fullmatch(text)
    name = quote_text(match["name"] if match is not None else text, _MAX_QUOTED)
    return f"the Host `{name}` is not allowed; add it to gateway.allowed_hosts in orch.toml if it is this machine's"


def _token(request: Request) -> bytes:
    scheme, _, token = (request.header(b"authorization") or b"").partition(b" ")
    if scheme.lower() == b"bearer":
        return token.strip()

    if scheme.lower() == b"basic":  # as llama-swap takes it: the key is the password, whoever the user is
        return _decoded(token.strip()).partition(b":")[2]

    return request.header(b"x-api-key") or request.header(b"api-key") or b""


def _decoded(token: bytes) -> bytes:
    try:
        return b64decode(token, validate=True)
    except ValueError:
        return b""


def _digest(key: bytes) -> bytes:
    return hashlib.sha256(key).digest()
