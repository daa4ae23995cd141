"""The page that an engine itself has for browsers, under `/upstream/NAME/`.

It is served to who has no key, since a browser shows none where it opens an address: so the engine is asked without
*its* key too, and gives what it gives to anybody, which are its pages' files. Only paths of such files are asked for.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from time import monotonic
from typing import NamedTuple

from orchestrator.adapters.http1 import Headers, Request, Response
from orchestrator.gateway.contract import Endpoint, Model, RoutingView
from orchestrator.gateway.dispatch import Dispatcher
from orchestrator.gateway.errors import GatewayError
from orchestrator.gateway.models import names_in_front
from orchestrator.gateway.page.contract import PageModel

MAX_BYTES = 32 << 20
"""The largest file of such a page: the fork's whole page is one of 2 MB."""

LOOK_S = 1.0
"""So long the page at `/` waits to know whether an engine has one of its own."""

AGAIN_S = 30.0
"""After so long an engine that did not say is asked again."""

UPSTREAM = "/upstream/"

_FILE = re.compile(
    r"/(?:(?:[A-Za-z0-9_-][A-Za-z0-9._-]*/)*[A-Za-z0-9_-][A-Za-z0-9._-]*\.(?:css|gif|html|ico|jpe?g|js|json|map|mjs|mp3"
    r"|png|svg|ttf|txt|wasm|webmanifest|webp|woff2?))?"
)
"""A file of a page; the engines have no route of such a name."""

POLICY = (
    b"default-src 'none'; script-src 'self' 'unsafe-inline' 'wasm-unsafe-eval' blob:; "
    b"style-src 'self' 'unsafe-inline'; "
    b"img-src 'self' data: blob:; media-src 'self' data: blob:; font-src 'self' data:; connect-src 'self' data: blob:; "
    b"worker-src 'self' blob:; manifest-src 'self'; frame-src blob: data:; base-uri 'self'; form-action 'none'; "
    b"frame-ancestors 'none'"
)
"""What an engine's page may do: its own scripts, which stand in the page itself, and no request to elsewhere."""

_PASSED_ON = frozenset((b"accept-encoding", b"if-none-match"))
"""The engines have their files compressed, and give them to nobody who cannot read that."""

_RETURNED = frozenset(
    (
        b"content-type", b"content-encoding", b"etag", b"cache-control",
        b"cross-origin-embedder-policy", b"cross-origin-opener-policy",
    )
)  # fmt: skip


class EngineFile(NamedTuple):
    """A file of an engine's page: the model that the path names, and the path at its engine; empty for `/` left out."""

    model: str
    path: str


def find_file(path: str, models: Sequence[Model]) -> EngineFile | None:
    """Return the file that a path under `/upstream/` means, where it is one; the longest name is meant."""
    if not path.startswith(UPSTREAM):
        return None

    found = None
    for name, file in names_in_front(path.removeprefix(UPSTREAM), models):
        if not file or _FILE.fullmatch(file):
            found = EngineFile(name, file)

    return found


class _Known(NamedTuple):
    """Whether an instance has a page of its own, and when to ask again (monotonic)."""

    has_page: bool
    again_at: float


class EngineUis:
    """Serves engines' pages, and knows who has one."""

    def __init__(self, dispatcher: Dispatcher) -> None:
        self._dispatcher = dispatcher
        self._known: dict[str, _Known] = {}

    async def serve(self, file: EngineFile, request: Request, response: Response) -> None:
        """Answer with a file of an engine's page.

        :raises GatewayError: `no_engine_ui`, `model_unloaded`, or as an engine fails
        """
        if not file.path:
            target = f"{request.path}/" + (f"?{request.query}" if request.query else "")
            response.send(308, [(b"location", target.encode("latin-1"))])
            return

        profile = await self._dispatcher.profile_for(file.model)
        headers = [field for field in request.headers if field[0] in _PASSED_ON]
        target = f"{file.path}?{request.query}" if request.query else file.path
        async with self._dispatcher.looking_at(profile) as admission:
            upstream = await admission.pool.request("GET", target, headers, b"")
            try:
                body = await upstream.read(MAX_BYTES)
            finally:
                upstream.abort()

        if upstream.status == 415:
            text = "the engine has its page compressed alone: a client has to send `Accept-Encoding: gzip`"
            raise GatewayError("no_engine_ui", text)

        if upstream.status not in (200, 304):
            raise GatewayError("no_engine_ui", _no_page(file, admission.endpoint))

        response.send(upstream.status, _headers(upstream.headers), body)

    async def note(self, models: Sequence[PageModel], view: RoutingView) -> None:
        """Enter which models have an engine with a page of its own. Each instance is asked once; one that does not
        answer in time is busy, say, and asked again later.
        """
        instances: set[str] = set()
        for model in models:
            endpoint = view.endpoint_for(model["name"]) if view.serves(model["name"]) else None
            if endpoint is not None:
                instances.add(endpoint.instance)
                known = self._known.get(endpoint.instance)
                if known is None or known.again_at <= monotonic():
                    known = self._known[endpoint.instance] = await self._ask(model["name"])

                model["ui"] = known.has_page

        self._known = {name: known for name, known in self._known.items() if name in instances}

    async def _ask(self, profile: str) -> _Known:
        try:
            async with self._dispatcher.looking_at(profile, LOOK_S) as admission:
                upstream = await admission.pool.request("GET", "/", [(b"accept-encoding", b"gzip")], b"")
                upstream.abort()
        except GatewayError:
            return _Known(False, monotonic() + AGAIN_S)

        kind = upstream.header(b"content-type") or b""
        return _Known(upstream.status == 200 and kind.startswith(b"text/html"), math.inf)


def _headers(headers: Headers) -> Headers:
    return [
        *(field for field in headers if field[0] in _RETURNED),
        (b"content-security-policy", POLICY),
        (b"x-content-type-options", b"nosniff"),
        (b"referrer-policy", b"no-referrer"),
    ]


def _no_page(file: EngineFile, endpoint: Endpoint) -> str:
    if file.path not in ("/", "/index.html"):
        return f"the engine of `{endpoint.profile}` has no {file.path} for browsers"

    build = f"{endpoint.engine} {endpoint.build}" if endpoint.build else endpoint.engine
    return (
        f"the build of `{endpoint.profile}` ({build}) has no page of its own; the page at / chats with every model. "
        "Upstream's is fetched while it is built: `orch engines build upstream --define LLAMA_USE_PREBUILT_UI=ON`"
    )
