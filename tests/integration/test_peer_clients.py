"""What clients of llama-swap, of llama-server's router and of Open WebUI's kind for llama.cpp ask, request by request.

Each list is what the client's source sends, with what it goes by in the answer. The model `alpha` is loaded, `beta` is
not; an unload is followed by a load, as the client's user would have it.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest

from orchestrator.core.fleet.model_figures import ModelFigures
from orchestrator.gateway.contract import Finished, Model, RoutingView
from tests.integration.gateway_support import (
    Answer,
    Client,
    NotedRequests,
    Supervised,
    Visit,
    ask,
    drive,
    engine,
    gateway,
    get,
    post,
    until,
)

SEES = ModelFigures(context_tokens=131072, inputs=("text", "image"))
ALPHA = Model("alpha", ("org/alpha",), "a model", "loaded", 1700000000, SEES)
BETA = Model("beta", (), "another", "unloaded", 1700000000, ModelFigures(context_tokens=16384))
CHAT = {"model": "alpha", "messages": [{"role": "user", "content": "\n"}], "max_tokens": 1, "temperature": 0}
PROPS = {"model_alias": "alpha", "default_generation_settings": {"n_ctx": 131072}, "total_slots": 1, "build_info": "b1"}

Check = Callable[[Answer], object]


@dataclass(frozen=True)
class Call:
    method: str
    path: str
    check: Check
    body: object = None


def ok(answer: Answer) -> bool:
    return answer.status == 200


def text(answer: Answer) -> bool:
    return answer.status == 200 and answer.headers["content-type"].startswith("text/plain")


def events(answer: Answer) -> bool:
    return answer.status == 200 and answer.headers["content-type"] == "text/event-stream"


def page(check: Callable[[Any], object]) -> Check:
    return lambda answer: answer.status == 200 and check(answer.json)


def loaded(answer: Answer) -> bool:
    return answer.status == 200 or (answer.status == 400 and b"already" in answer.body)


def asked(path: str, check: Check = ok) -> Call:
    return Call("GET", path, check)


def sent(path: str, body: object = None, check: Check = ok) -> Call:
    return Call("POST", path, check, body)


with_states = page(lambda found: all("status" in each for each in found["data"]))

CLIENTS: dict[str, list[Call]] = {
    "llama-swap-exporter": [
        asked("/running", page(lambda found: found["running"][0]["state"] == "ready")),
        asked("/upstream/alpha/metrics"),
    ],
    "swiftbar plugin": [
        asked("/running"), asked("/upstream/alpha/metrics"), asked("/unload"),
        asked("/ui/", lambda answer: (answer.status, answer.headers["location"]) == (302, "/")),
    ],
    "SwapBar": [
        asked("/running"), asked("/api/events", events), asked("/upstream/alpha/health"),
        sent("/api/models/unload/alpha"), sent("/api/models/unload"),
    ],
    "VS Code status": [
        Call("HEAD", "/api/performance", ok), asked("/api/performance"), asked("/v1/models", with_states),
        asked("/api/events", events), asked("/upstream/alpha/slots"), asked("/api/activity?limit=5"),
    ],
    "Home Assistant": [
        asked("/v1/models"), asked("/running"), asked("/api/version"), asked("/api/profiles"),
        asked("/api/performance"), asked("/upstream/alpha/health"), sent("/api/models/unload/alpha"), asked("/unload"),
    ],
    "llama-swap-tui": [
        asked("/v1/models"), asked("/api/events", events), asked("/api/metrics/activity?limit=50"),
        asked("/api/performance"), asked("/api/version"), asked("/api/profiles"), asked("/logs/stream/upstream", text),
        sent("/api/models/unload/alpha"),
    ],
    "llama-swap-dashboard": [
        asked("/api/performance"),
        asked("/api/metrics", page(lambda rows: [row["tokens"]["output_tokens"] for row in rows] == [5, 7])),
        asked("/running"),
    ],
    "pi-llama-swap (torhve)": [
        asked("/v1/models"), asked("/running"),
        asked("/props?model=alpha", page(lambda found: found["default_generation_settings"]["n_ctx"] == 131072)),
        asked("/props?model=beta", page(lambda found: found["default_generation_settings"]["n_ctx"] == 16384)),
    ],
    "pi-llama-swap (y-almannaee)": [
        asked("/health"), asked("/v1/models", page(lambda found: found["object"] == "list")), asked("/running"),
        asked("/upstream/org%2Falpha/v1/models"),
    ],
    "pi-llama": [
        asked("/v1/models", page(lambda found: [each["meta"]["n_ctx"] for each in found["data"]] == [131072, 16384])),
        asked("/v1/models", page(lambda found: "image" in found["data"][0]["architecture"]["input_modalities"])),
        asked("/props?model=beta&autoload=true", page(lambda found: found["model_alias"] == "beta")),
        asked("/props", page(lambda found: (found["build_info"], found["total_slots"]) == ("b1", 1))),
    ],
    "Open WebUI, llama.cpp": [
        asked("/v1/models"), asked("/models"), sent("/models/load", {"model": "beta"}, loaded),
        sent("/models/unload", {"model": "beta"}), asked("/models/sse", events),
    ],
    "cinnamon applet": [
        asked("/models", with_states), sent("/v1/chat/completions", CHAT), sent("/models/unload", {"model": "alpha"}),
    ],
    "a client of the router": [
        asked("/props", page(lambda found: found["role"] == "router" and found["models_autoload"] is True)),
        asked("/v1/models"), sent("/models/load", {"model": "alpha"}, loaded), asked("/models/sse", events),
        sent("/models/unload", {"model": "alpha"}), sent("/v1/chat/completions?autoload=true", CHAT),
    ],
    "curl, from llama-swap's README": [
        asked("/logs", text), asked("/logs/stream?no-history", text), asked("/logs/stream/alpha", text),
        asked("/unload"), asked("/wol-health"),
    ],
}  # fmt: skip


async def engine_of_alpha(visit: Visit) -> None:
    await visit.answer(json.dumps(PROPS).encode() if "/props" in visit.line else b"{}")


def finished(tokens: int) -> Finished:
    return Finished(
        route="/v1/chat/completions", outcome="complete", held_s=0.0, first_token_s=None, total_s=1.0, instance="i-1",
        profile="alpha", status=200, output_tokens=tokens,
    )  # fmt: skip


@pytest.mark.parametrize("name", CLIENTS)
def test_each_request_of_a_client_gets_what_the_client_goes_by(name: str) -> None:
    async def work() -> None:
        manager = NotedRequests("alpha", recent=[finished(5), finished(7)])
        manager.logs["alpha"] = manager.logs[None]
        async with engine(engine_of_alpha) as there:
            view = RoutingView(1, there.endpoint(profile="alpha"), None, "ready alpha", (ALPHA, BETA), on_request=True)
            async with gateway(Supervised(view), manager=manager) as here:
                for call in CLIENTS[name]:
                    answer = await answered(here.port, call)
                    assert call.check(answer), (call.method, call.path, answer)
                    manager.loaded = sorted({*manager.loaded, "alpha"})

    drive(work())


async def answered(port: int, call: Call) -> Answer:
    """Return the answer; of a stream that goes on its head."""
    request = get(call.path, method=call.method)
    if call.method == "POST":
        request = post(call.path, b"" if call.body is None else call.body)

    if "stream" not in call.path and "sse" not in call.path and "events" not in call.path:
        client = await Client.open(port)
        await client.send(request)
        if call.method == "HEAD":
            return Answer(*await client.head(), b"")

        return await client.answer()

    client = await Client.open(port)
    await client.send(request)
    status, headers = await client.head()
    client.close()
    return Answer(status, headers, b"")


def test_a_request_that_must_load_nothing_says_so_and_is_refused_where_its_model_is_not_loaded() -> None:
    async def work() -> None:
        async with engine(engine_of_alpha) as there:
            view = RoutingView(1, there.endpoint(profile="alpha"), None, "ready alpha", (ALPHA, BETA), on_request=True)
            async with gateway(Supervised(view)) as here:
                loaded = await ask(here.port, post("/v1/chat/completions?autoload=false", CHAT))
                assert loaded.status == 200
                for said in ("false", "0"):
                    path = f"/v1/chat/completions?autoload={said}"
                    refused = await ask(here.port, post(path, {**CHAT, "model": "beta"}))
                    assert (refused.status, refused.json["error"]["code"]) == (409, "model_not_loaded")
                    assert f"autoload={said}" in refused.json["error"]["message"]

                waiting = await Client.open(here.port)
                await waiting.send(post("/v1/chat/completions?autoload=true", {**CHAT, "model": "beta"}))
                await until(lambda: here.dispatcher.queued == 1)

    drive(work())


def test_the_router_s_properties_without_an_engine_name_the_role_and_one_model_s_are_the_engine_s_own() -> None:
    async def work() -> None:
        idle = RoutingView(1, None, None, "stopped", (replace(ALPHA, status="unloaded"), BETA))
        async with gateway(Supervised(idle)) as here:
            found = (await ask(here.port, get("/props"))).json
            assert (found["role"], found["default_generation_settings"]["n_ctx"]) == ("router", 0)

        async with engine(engine_of_alpha) as there:
            alone = RoutingView(1, there.endpoint(profile="alpha"), None, "ready alpha", (ALPHA,))
            async with gateway(Supervised(alone)) as here:
                assert (await ask(here.port, get("/props"))).json == PROPS

    drive(work())


def test_a_client_of_ollama_is_told_the_address_to_use() -> None:
    async def work() -> None:
        async with gateway() as here:
            for path in ("/api/chat", "/api/generate", "/api/pull"):
                answer = await ask(here.port, post(path, CHAT, host=f"localhost:{here.port}"))
                assert (answer.status, answer.json["error"]["code"]) == (404, "not_found")
                assert f"give the client http://localhost:{here.port}/v1" in answer.json["error"]["message"]

    drive(work())


@pytest.mark.parametrize(
    "path", ["/upstream/nobody/", "/upstream/nobody", "/upstream/nobody/tools", "/upstream/nobody/health"]
)
def test_below_a_name_of_nobody_the_names_that_there_are_are_said(path: str) -> None:
    async def work() -> None:
        async with gateway(Supervised(RoutingView(1, None, None, "stopped", (ALPHA, BETA)))) as here:
            answer = await ask(here.port, get(path))
            assert (answer.status, answer.json["error"]["code"]) == (404, "model_not_found")
            assert "there is no model `nobody`" in answer.json["error"]["message"]
            assert "known models: alpha, beta" in answer.json["error"]["message"]

    drive(work())
