"""Requests have ids, owners and an end: what is listed, what is cancelled, and what the client is told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from orchestrator.adapters.config.key_file import ApiKey
from orchestrator.gateway.config import GatewayOptions
from orchestrator.gateway.contract import EngineProgress
from tests.integration.gateway_support import (
    Answer,
    Client,
    Running,
    Visit,
    ask,
    drive,
    engine,
    gateway,
    get,
    post,
    until,
)

CHAT = "/v1/chat/completions"
TOKEN = b'data: {"choices":[{"delta":{"content":"x"}}]}\n\n'
STREAM = {"model": "demo", "stream": True}


async def endless(visit: Visit) -> None:
    await visit.begin_stream()
    await visit.chunk(TOKEN)
    await visit.gone()


async def silent(visit: Visit) -> None:
    await visit.gone()


async def echo(visit: Visit) -> None:
    await visit.answer(b'{"ok":true}')


@asynccontextmanager
async def one_under_way(here: Running, *headers: str, stream: bool = True) -> AsyncIterator[Client]:
    client = await Client.open(here.port)
    await client.send(post(CHAT, STREAM if stream else {"model": "demo"}, *headers))
    await until(lambda: here.dispatcher.underway())
    yield client


async def cancel(here: Running, name: str, *headers: str) -> Answer:
    return await ask(here.port, post(f"/v1/requests/{name}/cancel", b"", *headers))


@pytest.mark.parametrize(
    "request_text",
    [
        post(CHAT, {"model": "demo"}, "X-Request-Id: mine-1"),
        post(CHAT, {"model": "nobody"}, "X-Request-Id: mine-1"),
        post("/v1/messages", b"{", "X-Request-Id: mine-1"),
        get("/v1/models", "X-Request-Id: mine-1"),
        get("/health", "X-Request-Id: mine-1"),
        get("/metrics", "X-Request-Id: mine-1"),
        get("/nothing", "X-Request-Id: mine-1"),
        get("/health", "X-Request-Id: mine-1", host="evil.example"),
        get(CHAT, "X-Request-Id: mine-1"),
        post(CHAT, b"x" * (2 << 20), "X-Request-Id: mine-1"),
        get("/health", "X-Request-Id: mine-1", "Content-Length: 1, 2"),
        get("/health#a", "X-Request-Id: mine-1"),
    ],
)
def test_the_id_is_on_every_answer(request_text: bytes) -> None:
    async def work() -> None:
        from orchestrator.adapters.http1 import HttpLimits

        options = GatewayOptions(limits=HttpLimits(body_bytes=1 << 20))
        async with engine(echo) as there, gateway(config=options) as here:
            here.supervisor.show(serving=there.endpoint())
            answer = await ask(here.port, request_text)
            assert answer.headers["x-request-id"] == "mine-1"

    drive(work())


def test_a_stream_has_it_and_so_has_the_engine_and_the_record() -> None:
    async def work() -> None:
        async def said(visit: Visit) -> None:
            await visit.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nX-Request-Id: the-engines\r\n")
            await visit.send(b"Transfer-Encoding: chunked\r\n\r\n")
            await visit.chunk(TOKEN)
            await visit.end_stream()

        async with engine(said) as there, gateway() as here:
            here.supervisor.show(serving=there.endpoint())
            answer = await ask(here.port, post(CHAT, STREAM, "x-request-id: run-1"))
            assert answer.headers["x-request-id"] == "run-1"
            assert there.visits[0].headers["x-request-id"] == "run-1"
            assert here.supervisor.records[0].request_id == "run-1"

    drive(work())


@pytest.mark.parametrize("asked", ["a b", "x" * 65, "a/b", "../up", '"'])
def test_an_id_that_cannot_be_used_is_replaced(asked: str) -> None:
    async def work() -> None:
        async with engine(echo) as there, gateway() as here:
            here.supervisor.show(serving=there.endpoint())
            answer = await ask(here.port, post(CHAT, {}, f"X-Request-Id: {asked}"))
            assert answer.headers["x-request-id"].startswith("req-")
            assert there.visits[0].headers["x-request-id"] == answer.headers["x-request-id"]

    drive(work())


def test_what_waits_and_what_runs_is_listed() -> None:
    async def work() -> None:
        async with engine(endless) as there, gateway() as here:
            waiting = await Client.open(here.port)
            await waiting.send(post("/v1/messages", {"model": "demo-alias"}, "X-Request-Id: waits"))
            await until(lambda: here.dispatcher.queued == 1)
            held = (await ask(here.port, get("/v1/requests"))).json["requests"]
            assert [(each["id"], each["state"], each["model"], each["profile"], each["route"]) for each in held] == [
                ("waits", "held", "demo-alias", "demo", "/v1/messages")
            ]
            here.supervisor.show(serving=there.endpoint())
            async with one_under_way(here, "X-Request-Id: runs") as client:
                assert TOKEN in await _first(client)
                number = here.dispatcher.underway()[-1].id
                here.dispatcher.progress = lambda: {number: EngineProgress(1.0, 17)}
                found = (await ask(here.port, get("/v1/requests"))).json["requests"]
                runs = next(each for each in found if each["id"] == "runs")
                assert (runs["state"], runs["instance"], runs["engine"]) == ("answering", "i-1", "upstream")
                assert (runs["output_tokens"], runs["prompt_done"]) == (17, 1.0)
                assert runs["started"] <= runs["since"]

    drive(work())


async def _first(client: Client) -> bytes:
    await client.head()
    return await client.chunk()


def test_a_stream_that_is_cancelled_ends_with_an_error_and_the_others_go_on() -> None:
    async def work() -> None:
        async with engine(endless) as there, gateway() as here:
            here.supervisor.show(serving=there.endpoint())
            async with one_under_way(here, "X-Request-Id: good") as good:
                await _first(good)
                async with one_under_way(here, "X-Request-Id: runaway") as runaway:
                    await _first(runaway)
                    answer = await cancel(here, "runaway")
                    assert answer.status == 200
                    assert [each["id"] for each in answer.json["cancelled"]] == ["runaway"]
                    rest = await runaway.chunks()
                    assert b'"code":"cancelled"' in rest
                    assert b"[DONE]" not in rest

                await until(lambda: there.open == 1)  # the engine has lost its connection, and stops
                assert [each.request_id for each in here.dispatcher.underway()] == ["good"]
                record = here.supervisor.records[0]
                assert (record.outcome, record.request_id) == ("cancelled", "runaway")

    drive(work())


@pytest.mark.parametrize("path", [CHAT, "/v1/messages", "/v1/responses", "/completion", "/v1/embeddings"])
def test_one_that_the_engine_has_not_answered_is_a_409_that_clients_do_not_repeat(path: str) -> None:
    async def work() -> None:
        async with engine(silent) as there, gateway() as here:
            here.supervisor.show(serving=there.endpoint())
            client = await Client.open(here.port)
            await client.send(post(path, {"model": "demo"}, "X-Request-Id: stale"))
            await until(lambda: there.visits)
            assert (await cancel(here, "stale")).status == 200
            answer = await client.answer()
            assert answer.status == 409
            assert answer.headers["x-should-retry"] == "false"
            assert b"cancelled" in answer.body
            await until(lambda: there.open == 0)

    drive(work())


def test_one_that_waits_is_cancelled_too_and_its_place_is_free() -> None:
    async def work() -> None:
        async with gateway() as here:
            client = await Client.open(here.port)
            await client.send(post(CHAT, {"model": "demo"}, "X-Request-Id: w"))
            await until(lambda: here.dispatcher.queued == 1)
            assert (await cancel(here, "w")).status == 200
            assert (await client.answer()).status == 409
            assert here.dispatcher.queued == 0
            assert here.supervisor.records[0].outcome == "cancelled"

    drive(work())


def test_one_whose_body_still_arrives_is_cancelled_too() -> None:
    async def work() -> None:
        async with gateway() as here:
            client = await Client.open(here.port)
            await client.send(post(CHAT, b"{" * 10, "X-Request-Id: w")[:-5])
            await until(lambda: here.dispatcher.underway())
            assert here.dispatcher.underway()[0].state == "receiving"
            assert (await cancel(here, "w")).status == 200
            assert (await client.answer()).status == 409

    drive(work())


def test_a_number_and_llama_swaps_path_do_as_well() -> None:
    async def work() -> None:
        async with engine(endless) as there, gateway() as here:
            here.supervisor.show(serving=there.endpoint())
            async with one_under_way(here) as client:
                await _first(client)
                number = here.dispatcher.underway()[0].id
                assert (await ask(here.port, post(f"/api/inflight/{number}/cancel", b""))).status == 200
                assert b"cancelled" in await client.chunks()

    drive(work())


def test_all_requests_with_one_id_are_cancelled_and_an_unknown_one_is_a_404() -> None:
    async def work() -> None:
        async with engine(endless) as there, gateway() as here:
            here.supervisor.show(serving=there.endpoint())
            async with one_under_way(here, "X-Request-Id: job") as one:
                await _first(one)
                async with one_under_way(here, "X-Request-Id: job") as two:
                    await _first(two)
                    for name in ("other", "%2e%2e", "job%20", "0", "99999999999999999999", "x" * 190):
                        answer = await cancel(here, name)
                        assert (answer.status, answer.json["error"]["code"]) == (404, "request_not_found")

                    assert len((await cancel(here, "job")).json["cancelled"]) == 2
                    await one.chunks()
                    await two.chunks()

    drive(work())


@pytest.mark.parametrize("path", ["/v1/requests/a/b/cancel", "/v1/requests//cancel", "/api/inflight/cancel"])
def test_other_paths_do_not_exist(path: str) -> None:
    async def work() -> None:
        async with gateway() as here:
            assert (await ask(here.port, post(path, b""))).status == 404

    drive(work())


def test_a_key_is_needed_where_there_are_keys_and_its_name_is_told() -> None:
    async def work() -> None:
        keys = (ApiKey("one", "laptop"), ApiKey("two"))
        async with engine(endless) as there, gateway(config=GatewayOptions(api_keys=keys)) as here:
            here.supervisor.show(serving=there.endpoint())
            async with one_under_way(here, "X-Request-Id: a", "Authorization: Bearer one") as client:
                await _first(client)
                assert (await ask(here.port, get("/v1/requests"))).status == 401
                assert (await cancel(here, "a")).status == 401
                assert (await cancel(here, "a", "x-api-key: three")).status == 401
                assert here.supervisor.refusals == ["invalid_api_key"] * 3
                listed = await ask(here.port, get("/v1/requests", "x-api-key: two"))
                assert [each["client"] for each in listed.json["requests"]] == ["laptop"]
                assert (await cancel(here, "a", "x-api-key: two")).status == 200
                await client.chunks()

            assert here.supervisor.records[0].client == "laptop"

    drive(work())


def test_a_page_of_another_site_cancels_nothing() -> None:
    async def work() -> None:
        async with engine(endless) as there, gateway() as here:
            here.supervisor.show(serving=there.endpoint())
            async with one_under_way(here, "X-Request-Id: a") as client:
                await _first(client)
                assert (await cancel(here, "a", "Origin: https://evil.example")).status == 403
                assert (await cancel(here, "a", "Sec-Fetch-Site: cross-site")).status == 403
                assert here.dispatcher.underway()

    drive(work())


def test_a_key_has_its_limits_and_a_client_that_leaves_gives_its_place_back() -> None:
    async def work() -> None:
        keys = (ApiKey("one", "laptop"), ApiKey("two"))
        options = GatewayOptions(api_keys=keys, max_in_flight_per_key=1)
        async with engine(endless) as there, gateway(config=options) as here:
            here.supervisor.show(serving=there.endpoint())
            async with one_under_way(here, "x-api-key: one") as client:
                await _first(client)
                refused = await ask(here.port, post(CHAT, STREAM, "x-api-key: one"))
                assert refused.status == 429
                assert int(refused.headers["retry-after"]) >= 1
                assert here.supervisor.refusals == ["too_many_requests"]
                # Reads are no requests for the engine, and another key has a place of its own.
                assert (await ask(here.port, get("/v1/models", "x-api-key: one"))).status == 200
                other = await Client.open(here.port)
                await other.send(post(CHAT, STREAM, "x-api-key: two"))
                assert (await other.head())[0] == 200
                client.close()
                await until(lambda: len(here.dispatcher.underway()) == 1)

            again = await Client.open(here.port)
            await again.send(post(CHAT, STREAM, "x-api-key: one"))
            assert (await again.head())[0] == 200

    drive(work())


def test_the_rate_of_a_key_is_told_as_a_time() -> None:
    async def work() -> None:
        options = GatewayOptions(api_keys=(ApiKey("one"),), max_per_minute_per_key=2)
        async with engine(echo) as there, gateway(config=options) as here:
            here.supervisor.show(serving=there.endpoint())
            answers = [await ask(here.port, post(CHAT, {}, "x-api-key: one")) for _ in range(3)]
            assert [each.status for each in answers] == [200, 200, 429]
            assert 1 <= int(answers[2].headers["retry-after"]) <= 30

    drive(work())


def test_a_cancel_at_any_moment_leaves_nothing_behind() -> None:
    async def work() -> None:
        async with engine(endless) as there, gateway() as here:
            here.supervisor.show(serving=there.endpoint())
            for steps in range(12):
                client = await Client.open(here.port)
                await client.send(post(CHAT, STREAM, "X-Request-Id: any"))
                await until(lambda: here.dispatcher.underway())
                for _ in range(steps):
                    await asyncio.sleep(0)

                here.dispatcher.cancel("any")
                assert b"cancelled" in (await client.answer()).body
                await until(lambda: not here.dispatcher.exchanges)
                assert here.dispatcher.instances.in_flight_total == 0

    drive(work())
