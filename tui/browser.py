"""`orch top --serve`: the dashboard in a browser on this machine, through textual-serve.

The dashboard can stop engines, so its address holds a key that is made for this run: other users of the machine can
reach the port, and so can any web page that is open in the same browser. The key becomes a cookie that other sites'
requests do not carry; the Host and Origin headers must be ours as well.
"""

from __future__ import annotations

import errno
import hmac
import logging
import secrets
import shlex
import socket
from collections.abc import Callable, Sequence

from aiohttp import web
from aiohttp.typedefs import Handler
from textual_serve.server import Server

from orchestrator.core.errors import OrchError

HOST = "127.0.0.1"
COOKIE = "orch-top"
POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    "font-src 'self' data:; frame-ancestors 'none'"
)
"""The page of textual-serve has scripts in it, and would fetch a font from elsewhere: that is refused."""


def serve(command: Sequence[str], port: int, ready: Callable[[str], None]) -> None:
    """Serve until interrupted; each browser tab runs the command once.

    :param ready: told the address, key included, once the port is open
    :raises OrchError: when the port is taken
    """
    listener = _listen(port)
    key = secrets.token_urlsafe(24)
    server = _Server(shlex.join(command), listener.getsockname()[1], key, ready)
    logging.getLogger("aiohttp.access").setLevel(logging.WARNING)
    web.run_app(server.application(), sock=listener, print=None, access_log=None)


class _Server(Server):
    def __init__(self, command: str, port: int, key: str, ready: Callable[[str], None]) -> None:
        super().__init__(command, host=HOST, port=port, title="orch top")
        self._key = key
        self._ready = ready
        self._names = {f"{HOST}:{port}", f"localhost:{port}"}

    async def application(self) -> web.Application:
        app = await self._make_app()
        app.middlewares.append(self._vet)
        return app

    async def on_startup(self, app: web.Application) -> None:
        self._ready(f"{self.public_url}/?key={self._key}")

    @web.middleware
    async def _vet(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        origin = request.headers.get("Origin")
        if request.host not in self._names or (
            origin is not None and origin.removeprefix("http://") not in self._names
        ):
            raise web.HTTPForbidden(text="this address is for the browser on this machine alone\n")

        given = request.query.get("key") or request.cookies.get(COOKIE) or ""
        if not hmac.compare_digest(given.encode(), self._key.encode()):
            raise web.HTTPForbidden(text="open the address that `orch top --serve` has printed, key included\n")

        response = await handler(request)
        if not response.prepared:
            response.headers["Content-Security-Policy"] = POLICY
            response.headers["Referrer-Policy"] = "no-referrer"
            if "key" in request.query:
                response.set_cookie(COOKIE, self._key, httponly=True, samesite="Strict")

        return response


def _listen(port: int) -> socket.socket:
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((HOST, port))
        listener.listen()  # whoever reads the address may come at once
    except OSError as error:
        listener.close()
        if error.errno not in (errno.EADDRINUSE, errno.EACCES):
            raise

        raise OrchError(
            f"port {port} cannot be used: {error.strerror}",
            hint="choose another: `orch top --serve --port 0` takes a free one",
        ) from None

    return listener
