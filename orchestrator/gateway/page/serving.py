"""Serves the page at `/` and what belongs to it: two files beside it, the feed, and the wish for another model.

The page and its files are the same for everybody and hold no secret: they are served without a key, since a browser
shows none where it opens an address. The page then asks for the key, and sends it with what needs one.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from orchestrator.adapters.http1 import Headers, Request, Response
from orchestrator.core.config import Page
from orchestrator.gateway.dispatch import Dispatcher
from orchestrator.gateway.errors import GatewayError
from orchestrator.gateway.manage.serving import named_profile, wants_html
from orchestrator.gateway.models import profile_for
from orchestrator.gateway.page.contract import PageHost
from orchestrator.gateway.page.engine_ui import EngineFile, EngineUis, find_file
from orchestrator.gateway.page.feed import PageFeed
from orchestrator.gateway.request_guard import shows_key

FEED, SWITCH = "/page/feed", "/page/switch"

POLICY = (
    b"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; "
    b"form-action 'none'; frame-ancestors 'none'"
)

_KINDS = {
    "page.html": b"text/html; charset=utf-8",
    "page.css": b"text/css; charset=utf-8",
    "page.js": b"text/javascript; charset=utf-8",
    "icon.svg": b"image/svg+xml",
}
_PATHS = {"/": "page.html", "/page/page.css": "page.css", "/page/page.js": "page.js", "/page/icon.svg": "icon.svg"}


@dataclass(frozen=True, slots=True)
class PageFile:
    """One file of the page, with the fields of its answer."""

    body: bytes
    headers: Headers
    etag: bytes


class PageRoutes:
    """Serves them.

    :param host: the daemon; None for a gateway without one, which has no page
    :param keyed: clients have to show a key
    """

    def __init__(self, page: Page, dispatcher: Dispatcher, host: PageHost | None, *, keyed: bool) -> None:
        self._dispatcher = dispatcher
        self._host = host
        self._keyed = keyed
        self._shown = page != "off" and host is not None
        self._open_to_look = page == "read-only"
        self._files = read_files() if self._shown else {}
        self._uis = EngineUis(dispatcher)
        self._feed = PageFeed(host, dispatcher, self._uis) if host is not None else None

    def find(self, request: Request) -> PageFile | EngineFile | None:
        """Return what a request without a key may have: a file of the page, or of an engine's page."""
        if not self._shown or request.method not in ("GET", "HEAD"):
            return None

        path = request.path
        if path == "/" and not wants_html(request):
            return None  # a script's: `about`

        own = self._files.get(path)
        if own is not None:
            return own

        view = self._dispatcher.supervisor.view()
        file = find_file(path, view.models)
        # Where there are keys, who shows none is not told what else there is, and what is loaded instead.
        hidden = file is not None and self._keyed and not view.serves(profile_for(file.model, view.models))
        return None if hidden else file

    def may_look(self, request: Request) -> bool:
        """Return whether a request that shows no key may have the feed all the same."""
        if not self._open_to_look or request.path != FEED:  # each request comes by here
            return False

        return not shows_key(request)

    async def send(self, found: PageFile | EngineFile, request: Request, response: Response) -> None:
        """Answer with a file.

        :raises GatewayError: as an engine has none, or fails
        """
        if isinstance(found, EngineFile):
            await self._uis.serve(found, request, response)
        elif request.header(b"if-none-match") == found.etag:
            response.send(304, [(b"etag", found.etag)])
        else:
            response.send(200, found.headers, found.body)

    async def answer(self, request: Request, response: Response) -> None:
        """Answer what is asked for by the page's script.

        :raises GatewayError: `not_found` without a page, `model_not_found`, `invalid_json`, or as the daemon says
        """
        if not self._shown or self._host is None or self._feed is None:
            raise GatewayError("not_found", f'there is no route {request.path}; `gateway.page` in orch.toml is "off"')

        if request.path == FEED:
            may = request.authenticated or not self._keyed
            await self._feed.follow(response, may=may, keyed=self._keyed)
            return

        await self._host.switch(await named_profile(self._dispatcher, request))
        response.send(200, [(b"content-type", b"application/json")], b'{"success":true}')


def read_files() -> dict[str, PageFile]:
    """Return the files of the page by path."""
    folder, files = Path(__file__).parent, {}
    for path, name in _PATHS.items():
        body = (folder / name).read_bytes()
        etag = b'"%b"' % hashlib.sha256(body).hexdigest()[:16].encode()
        files[path] = PageFile(body, [(b"content-type", _KINDS[name]), (b"etag", etag), *_SAFE], etag)

    return files


_SAFE: Headers = [
    (b"cache-control", b"no-cache"), (b"vary", b"accept"),
    (b"content-security-policy", POLICY), (b"x-content-type-options", b"nosniff"), (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-opener-policy", b"same-origin"), (b"cross-origin-resource-policy", b"same-origin"),
]  # fmt: skip
