"""Answers the requests of clients that manage models; what they ask for, the daemon does (`contract.py`)."""

from __future__ import annotations

import asyncio
from time import monotonic, time
from urllib.parse import parse_qs

import msgspec

from orchestrator import __version__
from orchestrator.adapters.http1 import Headers, Request, Response
from orchestrator.gateway.dispatch import Dispatcher
from orchestrator.gateway.errors import GatewayError
from orchestrator.gateway.manage.contract import ModelManager
from orchestrator.gateway.manage.logs import LogRoutes
from orchestrator.gateway.manage.pages import (
    MOST_ACTIVITY,
    activity_json,
    metrics_json,
    ollama_ps_json,
    ollama_tags_json,
    performance_json,
    profiles_json,
    router_events,
    swap_event,
    version_json,
)
from orchestrator.gateway.request_guard import read_body
from orchestrator.gateway.routes import Match

KEEP_ALIVE_S = 15.0
"""Between two comments of a stream of events: proxies end connections that are silent for longer."""

_JSON: Headers = [(b"content-type", b"application/json")]
_TEXT: Headers = [(b"content-type", b"text/plain; charset=utf-8")]
_EVENTS: Headers = [
    (b"content-type", b"text/event-stream"), (b"cache-control", b"no-cache"), (b"x-accel-buffering", b"no"),
]  # fmt: skip


class _Named(msgspec.Struct):
    model: str


class ManageRoutes:
    """Serves them."""

    def __init__(self, dispatcher: Dispatcher, manager: ModelManager) -> None:
        self._dispatcher = dispatcher
        self._supervisor = dispatcher.supervisor
        self._manager = manager
        self._logs = LogRoutes(dispatcher, manager)

    async def answer(self, match: Match, request: Request, response: Response) -> None:
        """Answer one request.

        :raises GatewayError: `model_not_found`, `invalid_json`, or as the daemon says
        """
        models = self._supervisor.view().models
        match match.path:
            case "/wol-health":
                response.send(200, _TEXT, b"OK")
            case "/api/version":
                response.send(200, _JSON, version_json(__version__))
            case "/api/tags":
                response.send(200, _JSON, ollama_tags_json(models))
            case "/api/ps":
                response.send(200, _JSON, ollama_ps_json(models))
            case "/api/profiles":
                response.send(200, _JSON, profiles_json())
            case "/api/performance":
                response.send(200, _JSON, performance_json())
            case "/api/metrics":
                offset_s = time() - monotonic()
                response.send(200, _JSON, metrics_json(self._manager.recent(), wall_offset_s=offset_s))
            case "/logs":
                if wants_html(request):
                    response.send(302, [(b"location", b"/")])  # the page shows it
                else:
                    self._logs.history(response)
            case "/logs/stream":
                await self._logs.follow(match.model, request, response)
            case "/api/metrics/activity" | "/api/activity":
                response.send(200, _JSON, self._activity(request))
            case "/models/load":
                await self._load(request, response)
            case "/models/unload":
                await self._unload_named(request, response)
            case "/unload":
                await self._unload(None)
                response.send(200, _TEXT, b"OK")
            case "/api/models/unload":
                await self._unload(match.model)
                named = match.model is not None
                response.send(200, _TEXT if named else _JSON, b"OK" if named else b'{"msg":"ok"}')
            case "/models/sse":
                await self._follow_as_router(response)
            case _:
                await self._follow_as_swap(response)

    def _activity(self, request: Request) -> bytes:
        query = parse_qs(request.query, errors="replace")
        limit = min(max(_whole(query, "limit", 50), 1), MOST_ACTIVITY)
        page = max(_whole(query, "page", 1), 1)
        return activity_json(self._manager.recent(), page=page, limit=limit, wall_offset_s=time() - monotonic())

    async def _load(self, request: Request, response: Response) -> None:
        profile = await named_profile(self._dispatcher, request)
        if not await self._manager.load(profile):
            raise GatewayError("already_loaded", f"`{profile}` is loaded already, or on its way", param="model")

        response.send(200, _JSON, b'{"success":true}')

    async def _unload_named(self, request: Request, response: Response) -> None:
        profile = await named_profile(self._dispatcher, request)
        if not await self._manager.unload(profile):
            raise GatewayError("not_loaded", f"`{profile}` is not loaded", param="model")

        response.send(200, _JSON, b'{"success":true}')

    async def _unload(self, name: str | None) -> None:
        profile = await self._dispatcher.profile_for(name) if name is not None else None
        await self._manager.unload(profile)

    async def _follow_as_router(self, response: Response) -> None:
        view = self._supervisor.view()
        statuses = {model.name: model.status for model in view.models}
        response.start(200, _EVENTS)
        response.write(b": orch\n\n")
        while True:
            if not await self._changed(view.generation, response):
                return

            view = self._supervisor.view()
            for event in router_events(statuses, view.models):
                response.write(event)

            statuses = {model.name: model.status for model in view.models}
            await response.drain()

    async def _follow_as_swap(self, response: Response) -> None:
        response.start(200, _EVENTS)
        told = b""
        while True:
            view = self._supervisor.view()
            event = swap_event(view.models)
            if event != told:
                response.write(event)
                told = event

            await response.drain()
            if not await self._changed(view.generation, response):
                return

    async def _changed(self, generation: int, response: Response) -> bool:
        """Wait for another view, and tell a client that waits long that it is not forgotten; False once the gateway
        stops: the stream has ended then.
        """
        while self._dispatcher.accepting:
            try:
                async with asyncio.timeout(KEEP_ALIVE_S):
                    await self._supervisor.changed(generation)
                    break
            except TimeoutError:
                response.write(b": orch\n\n")

        if self._dispatcher.accepting:
            return True

        response.end()
        return False


def wants_html(request: Request) -> bool:
    """Return whether a browser opens the address, rather than a script."""
    return b"text/html" in (request.header(b"accept") or b"").lower()


async def named_profile(dispatcher: Dispatcher, request: Request) -> str:
    """Return the profile that a body `{"model": "NAME"}` names.

    :raises GatewayError: `model_not_found`, `invalid_json`
    """
    try:
        name = msgspec.json.decode(await read_body(request), type=_Named).model
    except msgspec.MsgspecError as error:
        raise GatewayError("invalid_json", f'the body must be {{"model": "NAME"}}: {error}') from error

    profile = await dispatcher.profile_for(name)
    if profile is None:
        raise GatewayError("model_not_found", "the model has no name", param="model")

    return profile


def _whole(query: dict[str, list[str]], name: str, default: int) -> int:
    text = query.get(name, [""])[-1]
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 10 else default
