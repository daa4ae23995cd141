"""The gateway: one address for clients, whatever is behind it."""

from __future__ import annotations

import socket
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from time import monotonic, time
from urllib.parse import parse_qs

import msgspec

from orchestrator.adapters.config.key_file import ApiKey
from orchestrator.adapters.http1 import Headers, HttpServer, Request, Response
from orchestrator.core.terminal import quote_text
from orchestrator.gateway.admission import unloaded_error
from orchestrator.gateway.config import GatewayOptions
from orchestrator.gateway.dispatch import Dispatcher
from orchestrator.gateway.errors import GatewayError, family_of, render
from orchestrator.gateway.exchange import Exchange
from orchestrator.gateway.manage.contract import ModelManager
from orchestrator.gateway.manage.router_props import router_props
from orchestrator.gateway.manage.serving import ManageRoutes
from orchestrator.gateway.models import MAX_QUOTED, about_json, model_json, models_json, props_json, running_json
from orchestrator.gateway.page.contract import PageHost
from orchestrator.gateway.page.serving import PageRoutes
from orchestrator.gateway.request_guard import RequestGuard, check_content
from orchestrator.gateway.requests.ids import own_headers
from orchestrator.gateway.requests.key_limits import KeyLimits
from orchestrator.gateway.requests.listing import CancelledEntry, RequestEntry, cancelled_entries, request_entries
from orchestrator.gateway.requests.origins import AllowedOrigins, is_preflight
from orchestrator.gateway.routes import OWN_ROUTES, Match, find_route

_JSON: Headers = [(b"content-type", b"application/json")]
_METRICS: Headers = [(b"content-type", b"text/plain; version=0.0.4; charset=utf-8")]
_CLEANUP_S = 2.0
"""The time that clients have to read what they were told when the gateway stopped."""


class Gateway:
    """Serves clients on sockets that the daemon bound.

    :param metrics: makes the page of `GET /metrics`, in Prometheus' text format 0.0.4
    :param manager: loads and unloads models for clients
    :param page: what the page at `/` shows; without it there is none
    """

    def __init__(
        self,
        config: GatewayOptions,
        dispatcher: Dispatcher,
        metrics: Callable[[], Awaitable[bytes]],
        manager: ModelManager,
        page: PageHost | None = None,
    ) -> None:
        self._page = PageRoutes(config.page, dispatcher, page, keyed=bool(config.api_keys))
        self._manage = ManageRoutes(dispatcher, manager)
        self._dispatcher = dispatcher
        self._supervisor = dispatcher.supervisor
        self._metrics = metrics
        self._origins = AllowedOrigins(config.allowed_origins)
        self._guard = RequestGuard((config.host, *config.allowed_hosts), config.api_keys, self._origins)
        self._limits = KeyLimits(config.max_in_flight_per_key, config.max_per_minute_per_key)
        own = self._own_headers if config.allowed_origins else own_headers
        self._server = HttpServer(self._handle, config.limits, own_headers=own, make_room="idle")

    async def start(self, sockets: Sequence[socket.socket]) -> None:
        self._dispatcher.start()
        for sock in sockets:
            await self._server.serve(sock)

    async def run(self) -> None:
        """Run for ever, after `start`; what the gateway's own task dies of is raised here."""
        await self._dispatcher.run()

    async def stop_listening(self, within_s: float) -> None:
        """Accept no more connections: who comes now waits in the kernel for the next daemon, if somebody else holds
        the listener too. Those that were accepted may still ask, at most so long.
        """
        self._server.close_listeners()
        await self._server.wait_spoken(within_s)
        await self._dispatcher.wait_assigned(within_s)

    def stop_accepting(self) -> None:
        """Refuse new connections and new requests; held and running ones go on."""
        self._dispatcher.accepting = False
        self._server.close_listeners()

    async def stop(self, drain_s: float) -> None:
        """Stop after at most `drain_s` seconds; requests that have not ended by then are told so."""
        self.stop_accepting()
        await self._dispatcher.wait_quiet(drain_s)
        await self._dispatcher.stop()
        await self._server.shutdown(_CLEANUP_S)
        self._dispatcher.close()

    async def _handle(self, request: Request, response: Response) -> None:
        try:
            self._guard.check_host(request)
            if is_preflight(request.method, request.headers):
                self._guard.check_page(request)
                response.send(204, self._origins.preflight(request.headers))
                return

            file = self._page.find(request)
            if file is not None:
                await self._page.send(file, request, response)
                return

            match, key = self._admit(request)
            if match.route.kind in ("monitor", "metrics"):
                match = await self._find_read(match, request)

            if match.route.kind == "inference":
                exchange = Exchange(self._dispatcher, request, response, match, key.name if key is not None else None)
                if key is None:
                    await exchange.run()
                else:
                    await self._run_counted(exchange, key)
            elif match.route.kind == "manage":
                await self._manage.answer(match, request, response)
            elif match.route.kind == "page":
                await self._page.answer(request, response)
            elif match.route.kind == "monitor":
                await self._monitor(match, request, response)
            elif match.route.kind == "metrics":
                self._check_loaded(match.model)
                response.send(200, _METRICS, await self._metrics())
            elif match.route.kind == "model":
                await self._dispatcher.profile_for(match.path)
                default = self._dispatcher.config.default_model
                response.send(200, _JSON, model_json(match.path, self._supervisor.view().models, default, monotonic()))
            else:
                self._answer(match, request, response)
        except GatewayError as error:
            if error.code in ("invalid_api_key", "too_many_requests"):
                self._dispatcher.ledger.refused(error.code)

            response.send(*render(family_of(request.path), error))

    def _own_headers(self, headers: Headers) -> Headers:
        return [*own_headers(headers), *self._origins.headers(headers)]

    async def _run_counted(self, exchange: Exchange, key: ApiKey) -> None:
        """Run a request that counts among those of its key.

        :raises GatewayError: `too_many_requests`
        """
        self._limits.enter(key, monotonic())
        try:
            await exchange.run()
        finally:
            self._limits.leave(key)

    def _admit(self, request: Request) -> tuple[Match, ApiKey | None]:
        own = OWN_ROUTES.get(request.path)
        key = None
        if (own is None or own.kind not in ("health", "moved")) and not self._page.may_look(request):
            key = self._guard.check_key(request)
            request.authenticated = True

        match = find_route(request.method, request.path, self._supervisor.view().models, request.headers)
        if request.method == "POST":
            self._guard.check_site(request)
            check_content(request, json_body=match.route.json_body)
        elif match.route.kind in ("monitor", "metrics", "manage", "page"):  # they cost the engine something, or end it
            self._guard.check_site(request)

        return match, key

    def _entries(self) -> list[RequestEntry]:
        dispatcher = self._dispatcher
        return request_entries(dispatcher.underway(), dispatcher.progress(), time() - monotonic())

    def _cancel(self, asked: str) -> list[CancelledEntry]:
        found = self._dispatcher.cancel(asked)
        if not found:
            raise GatewayError(
                "request_not_found", "no request with this id waits or runs; GET /v1/requests lists them"
            )

        return cancelled_entries(found)

    async def _find_read(self, match: Match, request: Request) -> Match:
        """Return the match with the profile that a look is about, named in its path or its query; None for neither.

        :raises GatewayError: `model_not_found`, or `ambiguous_model` when it names two
        """
        names = [*([match.model] if match.model else []), *parse_qs(request.query, errors="replace").get("model", [])]
        profiles = {await self._dispatcher.profile_for(name) for name in dict.fromkeys(names)}
        if len(profiles) > 1:
            shown = ", ".join(f"`{quote_text(name, MAX_QUOTED)}`" for name in names[:4])
            raise GatewayError("ambiguous_model", f"one request names several models: {shown}", param="model")

        return replace(match, model=next(iter(profiles), None), named_in_path=match.model is not None)

    async def _monitor(self, match: Match, request: Request, response: Response) -> None:
        """Answer with the engine's own page, or with what is planned for a model that is not loaded."""
        view = self._supervisor.view()
        if match.path == "/props" and match.model is None and len(view.models) > 1:
            response.send(200, _JSON, await router_props(self._dispatcher, request))
            return

        if match.path == "/props" and not match.named_in_path and not view.serves(match.model):
            page = next((props_json(model) for model in view.models if model.name == match.model), None)
            if page is not None:
                response.send(200, _JSON, page)
                return

        self._check_loaded(match.model)
        await Exchange(self._dispatcher, request, response, match).run()

    def _check_loaded(self, profile: str | None) -> None:
        view = self._supervisor.view()
        if profile is not None and not view.serves(profile):
            raise unloaded_error(view, profile)

    def _answer(self, match: Match, request: Request, response: Response) -> None:
        kind, models = match.route.kind, self._supervisor.view().models
        if kind == "health":
            response.send(200, _JSON, b'{"status":"ok"}')
        elif kind == "models":
            response.send(200, _JSON, models_json(models, monotonic()))
        elif kind == "moved":
            response.send(302, [(b"location", b"/")])
        elif kind == "about":
            response.send(200, _JSON, about_json(request.header(b"host")))
        elif kind == "requests":
            response.send(200, _JSON, msgspec.json.encode({"requests": self._entries()}))
        elif kind == "cancel":
            response.send(200, _JSON, msgspec.json.encode({"cancelled": self._cancel(match.path)}))
        else:
            response.send(200, _JSON, running_json(models))
