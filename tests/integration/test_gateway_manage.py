"""Clients of llama-swap, of llama-server's router and of Ollama: what they ask for, in the shapes that they parse."""

from __future__ import annotations

import json
from dataclasses import replace
from time import monotonic

import pytest

from orchestrator.gateway.contract import Finished, RoutingView
from tests.integration.gateway_support import (
    DEMO,
    OTHER,
    Client,
    NotedRequests,
    Supervised,
    ask,
    drive,
    gateway,
    get,
    post,
)

VIEW = RoutingView(1, None, None, "ready demo", (DEMO, OTHER))


def test_a_client_of_the_router_loads_and_unloads_by_name_or_alias() -> None:
    async def work() -> None:
        manager = NotedRequests("demo")
        async with gateway(Supervised(VIEW), manager=manager) as here:
            answer = await ask(here.port, post("/models/load", {"model": "other"}))
            assert (answer.status, answer.json) == (200, {"success": True})
            assert manager.loaded == ["demo", "other"]
            again = await ask(here.port, post("/models/load", {"model": "demo-alias"}))
            assert (again.status, again.json["error"]["code"]) == (400, "already_loaded")
            gone = await ask(here.port, post("/models/unload", {"model": "demo-alias"}))
            assert (gone.status, gone.json, manager.loaded) == (200, {"success": True}, ["other"])
            not_there = await ask(here.port, post("/models/unload", {"model": "demo"}))
            assert (not_there.status, not_there.json["error"]["code"]) == (400, "not_loaded")

    drive(work())


def test_a_client_of_llama_swap_unloads_one_or_all() -> None:
    async def work() -> None:
        manager = NotedRequests("demo", "other")
        async with gateway(Supervised(VIEW), manager=manager) as here:
            one = await ask(here.port, post("/api/models/unload/org%2Fdemo", b""))
            assert (one.status, one.body, manager.loaded) == (200, b"OK", ["other"])
            again = await ask(here.port, post("/api/models/unload/demo", b""))
            assert again.status == 200, "llama-swap says OK to what is not loaded, too"
            everything = await ask(here.port, post("/api/models/unload", b""))
            assert (everything.status, everything.json, manager.loaded) == (200, {"msg": "ok"}, [])
            manager.loaded = ["demo"]
            answer = await ask(here.port, get("/unload"))
            assert (answer.status, answer.body, manager.loaded) == (200, b"OK", [])
            assert answer.headers["content-type"].startswith("text/plain")

    drive(work())


@pytest.mark.parametrize(
    ("request_", "status", "code"),
    [
        (post("/models/load", {"model": "nobody"}), 404, "model_not_found"),
        (post("/models/load", {"model": 7}), 400, "invalid_json"),
        (post("/models/load", b"{"), 400, "invalid_json"),
        (post("/models/unload", {}), 400, "invalid_json"),
        (post("/models/load", {"model": ""}), 404, "model_not_found"),
        (post("/api/models/unload/nobody", b""), 404, "model_not_found"),
        (get("/models/load"), 405, "method_not_allowed"),
        (post("/unload", b""), 405, "method_not_allowed"),
        (get("/unload", "Sec-Fetch-Site: cross-site"), 403, "cross_site"),
        (get("/unload", "Origin: https://evil.example"), 403, "cross_site"),
        (post("/models/unload", {"model": "demo"}, "Origin: https://evil.example"), 403, "cross_site"),
        (post("/models/load", b"model=demo", "Content-Type: text/plain"), 415, "unsupported_media_type"),
    ],
)
def test_what_is_wrong_is_told_and_nothing_is_unloaded(request_: bytes, status: int, code: str) -> None:
    async def work() -> None:
        manager = NotedRequests("demo")
        async with gateway(Supervised(VIEW), manager=manager) as here:
            answer = await ask(here.port, request_)
            assert (answer.status, answer.json["error"]["code"]) == (status, code)
            assert manager.loaded == ["demo"]

    drive(work())


def test_the_router_s_stream_tells_each_change_of_a_model_once() -> None:
    async def work() -> None:
        async with gateway(Supervised(VIEW)) as here:
            client = await Client.open(here.port)
            await client.send(get("/models/sse"))
            status, headers = await client.head()
            assert (status, headers["content-type"]) == (200, "text/event-stream")
            assert (await client.chunk()).startswith(b":")
            here.supervisor.show_models(DEMO, replace(OTHER, status="loading"))
            loading = await client.chunk()
            here.supervisor.show(progress="40 % read")
            here.supervisor.show_models(replace(DEMO, status="unloaded"), replace(OTHER, status="loaded"))
            told = [loading, await client.chunk(), await client.chunk()]
            events = [json.loads(each.removeprefix(b"data: ")) for each in told]
            assert events == [
                {"model": name, "event": "status_change", "data": {"status": state}}
                for name, state in (("other", "loading"), ("demo", "unloaded"), ("other", "loaded"))
            ]

    drive(work())


def test_llama_swap_s_stream_begins_with_all_states_and_has_json_in_a_string() -> None:
    async def work() -> None:
        async with gateway(Supervised(VIEW)) as here:
            client = await Client.open(here.port)
            await client.send(get("/api/events"))
            await client.head()
            states = []
            for models in ((DEMO, OTHER), (DEMO, replace(OTHER, status="loading"))):
                here.supervisor.show_models(*models)
                name, _, data = (await client.chunk()).decode().strip().partition("\n")
                event = json.loads(data.removeprefix("data:"))
                assert (name, event["type"]) == ("event:message", "modelStatus")
                states.append({each["id"]: each["state"] for each in json.loads(event["data"])})

            assert states == [{"demo": "ready", "other": "stopped"}, {"demo": "ready", "other": "starting"}]

    drive(work())


@pytest.mark.parametrize("path", ["/models/sse", "/api/events"])
def test_a_stream_of_events_ends_with_the_gateway_and_holds_up_nobody(path: str) -> None:
    async def work() -> None:
        supervisor = Supervised(VIEW)
        async with gateway(supervisor) as here:
            client = await Client.open(here.port)
            await client.send(get(path))
            await client.head()
            await client.chunk()
            here.gateway.stop_accepting()
            supervisor.show(progress="orch is stopping")
            assert await client.chunks() == b""

    drive(work())


def test_what_only_looks_has_the_shapes_that_clients_parse() -> None:
    async def work() -> None:
        async with gateway(Supervised(VIEW)) as here:
            pages = {
                path: (await ask(here.port, get(path))).json
                for path in ("/api/version", "/api/tags", "/api/ps", "/api/profiles", "/api/performance")
            }
            assert pages["/api/version"]["version"]
            assert [model["name"] for model in pages["/api/tags"]["models"]] == ["demo", "other"]
            assert [model["name"] for model in pages["/api/ps"]["models"]] == ["demo"]
            assert pages["/api/profiles"] == {"active": None, "profiles": []}
            assert pages["/api/performance"]["enabled"] is False
            assert (await ask(here.port, get("/wol-health"))).body == b"OK"
            client = await Client.open(here.port)
            await client.send(get("/api/performance", method="HEAD"))
            assert (await client.head())[0] == 200

    drive(work())


def test_the_activity_has_the_newest_request_first_by_pages() -> None:
    def finished(number: int) -> Finished:
        return Finished(
            id=number, route="/v1/chat/completions", outcome="complete", started=monotonic(), held_s=0.0,
            first_token_s=0.1, total_s=0.5, instance="i-1", profile="demo", status=200, prompt_tokens=10,
            prompt_ms=20.0, output_tokens=5, output_ms=40.0, depth_tokens=22, cached_tokens=7,
        )  # fmt: skip

    async def work() -> None:
        manager = NotedRequests(recent=[finished(number) for number in range(1, 8)])
        async with gateway(Supervised(VIEW), manager=manager) as here:
            page = (await ask(here.port, get("/api/metrics/activity?limit=3&page=2"))).json
            assert [row["id"] for row in page["data"]] == [4, 3, 2]
            assert (page["total"], page["total_pages"]) == (7, 3)
            row = page["data"][0]
            assert row["tokens"] == {
                "cache_tokens": 7, "draft_tokens": -1, "draft_acc_tokens": -1, "input_tokens": 10, "output_tokens": 5,
                "prompt_per_second": 500.0, "tokens_per_second": 100.0,
            }  # fmt: skip
            assert (row["model"], row["duration_ms"], row["has_capture"]) == ("demo", 500, False)
            whole = (await ask(here.port, get("/api/metrics/activity?limit=wrong"))).json
            assert (whole["limit"], len(whole["data"])) == (50, 7)

    drive(work())
