"""The gateway: one address for clients, whatever is behind it."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from time import monotonic

from orchestrator.adapters.http1 import Headers, HttpServer, Request, Response
from orchestrator.gateway.config import GatewayOptions
from orchestrator.gateway.contract import Supervisor, Underway
from orchestrator.gateway.dispatch import Dispatcher
from orchestrator.gateway.errors import GatewayError, family_of, render
from orchestrator.gateway.exchange import Exchange
from orchestrator.gateway.models import model_json, models_json, running_json
from orchestrator.gateway.request_guard import RequestGuard, check_content
from orchestrator.gateway.routes import OWN_ROUTES, Match, find_route

_JSON: Headers = [(b"content-type", b"application/json")]
_METRICS: Headers = [(b"content-type", b"text/plain; version=0.0.4; charset=utf-8")]
_CLEANUP_S = 2.0
"""How long clients may take to read what they were told when the gateway stopped."""


class Gateway:
    """Serves clients on sockets that the daemon bound, going by what the supervisor says."""

    def __init__(self, config: GatewayOptions, supervisor: Supervisor) -> None:
        self._supervisor = supervisor
        self._dispatcher = Dispatcher(config, supervisor)
        self._guard = RequestGuard((config.host, *config.allowed_hosts), config.api_keys)
        self._server = HttpServer(self._handle, config.limits)

    @property
    def queued(self) -> int:
        """Requests that wait for an instance."""
        return len(self._dispatcher.hold)

    @property
    def held_total(self) -> int:
        """Requests that have ever had to wait for an instance."""
        return self._dispatcher.hold.entered

    def demand(self) -> dict[str, tuple[int, float]]:
        """Profile to how many requests wait for it, and since when the oldest does (monotonic)."""
        return self._dispatcher.hold.waiting()

    @property
    def active(self) -> int:
        """Requests that are held or being answered by an engine."""
        return len(self._dispatcher.active)

    def underway(self) -> list[Underway]:
        """The requests that wait or run, in the order in which they came."""
        now = monotonic()
        found = (each.underway(now) for each in self._dispatcher.active)
        return sorted((each for each in found if each is not None), key=lambda each: each.id)

    def in_flight(self, instance: str) -> int:
        """Requests that were sent to an instance and have not ended."""
        return self._dispatcher.in_flight(instance)

    def relayed(self, instance: str) -> int:
        """Bytes of answers that an instance has given to clients."""
        return self._dispatcher.relayed.get(instance, 0)

    def stalled(self, instance: str, stall_s: float) -> dict[int, float]:
        """Streams of an instance that have had tokens, and none for so long: a name each, and for how many seconds."""
        now = monotonic()
        still = {id(each): each.still_s(instance, now) for each in self._dispatcher.active}
        return {name: still_s for name, still_s in still.items() if still_s is not None and still_s >= stall_s}

    async def wait_idle(self, instance: str, timeout_s: float) -> bool:
        """Whether the last request of an instance has ended within that time."""
        return await self._dispatcher.wait_idle(instance, timeout_s)

    async def start(self, sockets: Sequence[socket.socket]) -> None:
        self._dispatcher.start()
        for sock in sockets:
            await self._server.serve(sock)

    async def run(self) -> None:
        """For ever, after `start`; what the gateway's own task dies of is raised here."""
        await self._dispatcher.run()

    async def stop_listening(self, within_s: float) -> None:
        """Accept no more connections: who comes now waits in the kernel for the next daemon, if somebody else holds
        the listener too. Those that were accepted may still ask, at most so long.
        """
        self._server.close_listeners()
        await self._server.heard(within_s)
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
            match = self._admit(request)
            if match.route.kind in ("inference", "monitor"):
                await Exchange(self._dispatcher, request, response, match).run()
            elif match.route.kind == "metrics":
                response.send(200, _METRICS, await self._supervisor.metrics())
            else:
                self._answer(match, response)
        except GatewayError as error:
            response.send(*render(family_of(request.path), error))

    def _admit(self, request: Request) -> Match:
        self._guard.check_host(request)
        own = OWN_ROUTES.get(request.path)
        if own is None or own.kind != "health":
            self._guard.check_key(request)

        match = find_route(request.method, request.path, self._supervisor.view().models)
        if request.method == "POST":
            self._guard.check_site(request)
            check_content(request, json_body=match.route.json_body)

        return match

    def _answer(self, match: Match, response: Response) -> None:
        kind, models = match.route.kind, self._supervisor.view().models
        if kind == "health":
            response.send(200, _JSON, b'{"status":"ok"}')
        elif kind == "models":
            response.send(200, _JSON, models_json(models))
        elif kind == "model":
            response.send(200, _JSON, model_json(match.path, models))
        else:
            response.send(200, _JSON, running_json(models))
