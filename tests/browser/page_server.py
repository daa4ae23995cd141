"""A gateway with a page to open, in a thread of its own, so that a test can drive a browser meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Iterator, Sequence
from typing import Protocol

from orchestrator.core.fleet.routing_states import RoutingView
from orchestrator.gateway.config import GatewayOptions
from orchestrator.gateway.contract import Model
from tests.integration.gateway_support import (
    DEMO,
    OTHER,
    Engine,
    NotedRequests,
    Script,
    ShownPage,
    Supervised,
    Visit,
    engine,
    gateway,
)

CHUNK = b'data: {"choices":[{"delta":{"content":"%b"}}]}\n\n'
LAST = (
    b'data: {"choices":[{"delta":{},"finish_reason":"stop"}],"timings":{"predicted_n":41,"predicted_ms":1000,'
    b'"predicted_per_second":41,"draft_n":30,"draft_n_accepted":21}}\n\ndata: [DONE]\n\n'
)


async def answer_shortly(visit: Visit) -> None:
    """The engine's answer to a chat: two words, and its figures. It has no page of its own."""
    if visit.line.startswith("GET"):
        await visit.answer(b"{}", status="404 Not Found")
        return

    await visit.begin_stream()
    for word in (b"Hello ", b"there"):
        await visit.chunk(CHUNK % word)

    await visit.chunk(LAST)
    await visit.end_stream()


class OpenedPage:
    """The gateway of one test, its engine, and what the page was given to show."""

    def __init__(self, url: str, shown: ShownPage, manager: NotedRequests, there: Engine) -> None:
        self.url = url
        self.shown = shown
        self.manager = manager
        self.engine = there


class Serve(Protocol):
    """Serves a page until the test is over; as `page_server`."""

    def __call__(
        self,
        shown: ShownPage,
        options: GatewayOptions | None = None,
        script: Script = answer_shortly,
        models: Sequence[Model] = (DEMO, OTHER),
    ) -> OpenedPage: ...


@contextlib.contextmanager
def page_server(
    shown: ShownPage,
    options: GatewayOptions | None = None,
    script: Script = answer_shortly,
    models: Sequence[Model] = (DEMO, OTHER),
) -> Iterator[OpenedPage]:
    """Serve a page; the model in focus is the first one, and answered by the scripted engine."""
    opened: list[OpenedPage] = []
    ready = threading.Event()
    loop = asyncio.new_event_loop()
    over = asyncio.Event()

    async def serve() -> None:
        manager = NotedRequests("demo")
        async with engine(script) as there:
            view = RoutingView(1, there.endpoint(profile=models[0].name), None, "ready", tuple(models))
            async with gateway(Supervised(view), options, manager, shown) as here:
                opened.append(OpenedPage(f"http://127.0.0.1:{here.port}/", shown, manager, there))
                ready.set()
                await over.wait()

    def run() -> None:
        try:
            loop.run_until_complete(serve())
        finally:
            ready.set()
            loop.close()

    thread = threading.Thread(target=run, name="page server")
    thread.start()
    try:
        assert ready.wait(30) and opened, "the gateway did not start"
        yield opened[0]
    finally:
        if opened:
            loop.call_soon_threadsafe(over.set)

        thread.join(30)
