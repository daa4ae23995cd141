"""llama-swap's routes for logs."""

from __future__ import annotations

import pytest

from orchestrator.adapters.config.key_file import ApiKey
from orchestrator.adapters.log.store import InstanceLog
from orchestrator.gateway.config import GatewayOptions
from orchestrator.gateway.contract import RoutingView
from tests.integration.gateway_support import DEMO, OTHER, Client, NotedRequests, Supervised, ask, drive, gateway, get

VIEW = RoutingView(1, None, None, "ready demo", (DEMO, OTHER))


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orchestrator.gateway.manage.logs.LOOK_S", 0.01)


def managed() -> NotedRequests:
    """A manager whose engines have printed two lines each."""
    manager = NotedRequests("demo")
    for name, log in ((None, manager.logs[None]), ("demo", InstanceLog()), ("proxy itself", manager.own)):
        log.write([f"{name} 1", f"{name} 2 ü"])
        if name == "demo":
            manager.logs[name] = log

    return manager


def test_the_log_of_all_engines_is_text_so_far() -> None:
    async def work() -> None:
        async with gateway(Supervised(VIEW), manager=managed()) as here:
            answer = await ask(here.port, get("/logs"))
            assert (answer.status, answer.body.decode()) == (200, "None 1\nNone 2 ü\n")
            assert answer.headers["content-type"] == "text/plain; charset=utf-8"
            assert answer.headers["x-content-type-options"] == "nosniff"
            page = await ask(here.port, get("/logs", "Accept: text/html,*/*"))
            assert (page.status, page.headers["location"]) == (302, "/")

    drive(work())


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/logs/stream", "None"), ("/logs/stream/upstream", "None"), ("/logs/stream/proxy", "proxy itself"),
        ("/logs/stream/demo", "demo"), ("/logs/stream/demo-alias", "demo"), ("/logs/stream/org%2Fdemo", "demo"),
        ("/logs/stream/org/demo", "demo"),
    ],
)  # fmt: skip
def test_a_stream_has_what_was_and_goes_on_with_what_comes(path: str, name: str) -> None:
    async def work() -> None:
        manager = managed()
        log = {"None": manager.logs[None], "demo": manager.logs["demo"]}.get(name, manager.own)
        async with gateway(Supervised(VIEW), manager=manager) as here:
            client = await Client.open(here.port)
            await client.send(get(path))
            status, headers = await client.head()
            assert (status, headers["content-type"]) == (200, "text/plain; charset=utf-8")
            assert (await client.chunk()).decode() == f"{name} 1\n{name} 2 ü\n"
            log.write(["new"])
            assert await client.chunk() == b"new\n"

    drive(work())


@pytest.mark.parametrize("query", ["?no-history", "?no-history=1"])
def test_without_history_a_stream_begins_with_the_next_line(query: str) -> None:
    async def work() -> None:
        manager = managed()
        async with gateway(Supervised(VIEW), manager=manager) as here:
            client = await Client.open(here.port)
            await client.send(get(f"/logs/stream{query}"))
            await client.head()
            manager.logs[None].write(["new"])
            assert await client.chunk() == b"new\n"

    drive(work())


def test_a_model_s_stream_waits_for_its_engine_and_goes_on_with_the_next_one() -> None:
    async def work() -> None:
        manager = managed()
        async with gateway(Supervised(VIEW), manager=manager) as here:
            client = await Client.open(here.port)
            await client.send(get("/logs/stream/other"))
            assert (await client.head())[0] == 200
            for start in ("first", "second"):
                manager.logs["other"] = InstanceLog()
                manager.logs["other"].write([start])
                assert (await client.chunk()).decode() == f"{start}\n"

    drive(work())


def test_a_reader_that_is_too_slow_is_told_what_it_missed() -> None:
    async def work() -> None:
        manager = managed()
        manager.logs[None] = InstanceLog(max_lines=2)
        async with gateway(Supervised(VIEW), manager=manager) as here:
            client = await Client.open(here.port)
            await client.send(get("/logs/stream"))
            await client.head()
            manager.logs[None].write([str(number) for number in range(5)])
            assert await client.chunk() == b"[3 lines were too many for this reader]\n3\n4\n"

    drive(work())


def test_a_stream_ends_with_the_gateway() -> None:
    async def work() -> None:
        async with gateway(Supervised(VIEW), manager=managed()) as here:
            client = await Client.open(here.port)
            await client.send(get("/logs/stream"))
            await client.head()
            await client.chunk()
            here.gateway.stop_accepting()
            assert await client.chunks() == b""

    drive(work())


@pytest.mark.parametrize("path", ["/logs", "/logs/stream", "/logs/stream/proxy", "/logs/stream/demo"])
def test_logs_are_for_who_has_the_key_and_for_no_page(path: str) -> None:
    async def work() -> None:
        async with gateway(Supervised(VIEW), GatewayOptions(api_keys=(ApiKey("one"),)), managed()) as here:
            assert (await ask(here.port, get(path))).status == 401
            key = "Authorization: Bearer one"
            assert (await ask(here.port, get(path, key, "Origin: https://evil.example"))).status == 403
            assert (await ask(here.port, get(path, key, host="evil.example"))).status == 403

    drive(work())


def test_the_log_of_nobody_is_404_with_the_names_that_there_are() -> None:
    async def work() -> None:
        async with gateway(Supervised(VIEW), manager=managed()) as here:
            answer = await ask(here.port, get("/logs/stream/nobody"))
            assert (answer.status, answer.json["error"]["code"]) == (404, "model_not_found")
            assert "demo, other" in answer.json["error"]["message"]

    drive(work())
