"""`/props` as llama-server's router has it, where several models are known and none is named.

A client of one server reads the engine's own page here, a client of the router reads `role`: so the answer is the page
of the model in focus, with the router's fields in it.
"""

from __future__ import annotations

import msgspec

from orchestrator import __version__
from orchestrator.adapters.http1 import Request
from orchestrator.gateway import forward
from orchestrator.gateway.contract import RoutingView
from orchestrator.gateway.dispatch import Dispatcher
from orchestrator.gateway.request_guard import read_body

MAX_BYTES = 4 << 20
"""Of the engine's page: chat templates are in it."""


async def router_props(dispatcher: Dispatcher, request: Request) -> bytes:
    """Return the page.

    :raises GatewayError: as the engine in focus fails
    """
    view = dispatcher.supervisor.view()
    page = await _engine_props(dispatcher, request) if view.serves(None) else {}
    return msgspec.json.encode({**(page or _NO_ENGINE), **_router(view)})


_NO_ENGINE: dict[str, object] = {
    "default_generation_settings": {"params": {}, "n_ctx": 0},
    "model_alias": "llama-server",
    "model_path": "none",
    "build_info": f"orch-{__version__}",
}


def _router(view: RoutingView) -> dict[str, object]:
    return {"role": "router", "models_autoload": view.on_request, "cors_proxy_enabled": False}


async def _engine_props(dispatcher: Dispatcher, request: Request) -> dict[str, object]:
    asked = await read_body(request)  # a GET may have a body; it means nothing, and is passed on as elsewhere
    async with dispatcher.looking_at(None) as admission:
        headers = forward.request_headers(request.headers, admission.endpoint.api_key)
        target = f"/props?{request.query}" if request.query else "/props"
        upstream = await admission.pool.request("GET", target, headers, asked)
        try:
            body = await upstream.read(MAX_BYTES)
        finally:
            upstream.abort()

    try:
        page: object = msgspec.json.decode(body) if upstream.status == 200 else {}
    except (ValueError, RecursionError):
        page = {}

    return page if isinstance(page, dict) else {}
