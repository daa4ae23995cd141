"""`/props` as llama-server's router has it, where several models are known and none is named.

A client of one server reads the engine's own page here, a client of the router reads `role`: so the answer is the page
of the model in focus, with the router's fields in it.
"""

from __future__ import annotations

import asyncio

import msgspec

from orchestrator import __version__
from orchestrator.adapters.http1 import ContentError, Request, UpstreamError
from orchestrator.gateway import forward
from orchestrator.gateway.contract import RoutingView
from orchestrator.gateway.dispatch import Dispatcher
from orchestrator.gateway.errors import GatewayError, content_error

MAX_BYTES = 4 << 20
"""Of the engine's page: chat templates are in it."""

PATIENCE_S = 20.0


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
    try:
        asked = await request.content()  # a GET may have a body; it means nothing, and is passed on as elsewhere
    except ContentError as error:
        raise content_error(error) from None

    try:
        async with (
            asyncio.timeout(PATIENCE_S),
            dispatcher.admitted(None, None, None, None, may_wait=False) as admission,
        ):
            headers = forward.request_headers(request.headers, admission.endpoint.api_key)
            target = f"/props?{request.query}" if request.query else "/props"
            upstream = await admission.pool.request("GET", target, headers, asked)
            try:
                body = await upstream.read(MAX_BYTES)
            finally:
                upstream.abort()
    except TimeoutError:
        raise GatewayError("engine_unreachable", f"the engine did not answer in {PATIENCE_S:g} s") from None
    except UpstreamError as error:
        raise GatewayError("engine_unreachable", error.message, retry_after_s=2) from error

    try:
        page: object = msgspec.json.decode(body) if upstream.status == 200 else {}
    except (ValueError, RecursionError):
        page = {}

    return page if isinstance(page, dict) else {}
