"""Requests that arrive while nothing is ready: they wait in order, leave at will, and are told the truth."""

from __future__ import annotations

import asyncio
import json

import pytest

from orchestrator.gateway.config import GatewayOptions
from orchestrator.gateway.contract import Refusal
from tests.integration.gateway_support import Answer, Client, Visit, ask, drive, engine, gateway, get, post, until

CHAT = "/v1/chat/completions"
MESSAGES = "/v1/messages"
SOON = GatewayOptions(comment_after_s=0.02, comment_every_s=0.02)


async def echo(visit: Visit) -> None:
    await visit.answer(visit.body)


async def stream(visit: Visit) -> None:
    await visit.begin_stream()
    await visit.chunk(b"data: 1\n\n")
    await visit.chunk(b"data: [DONE]\n\n")
    await visit.end_stream()


def test_held_requests_are_released_in_the_order_of_their_arrival() -> None:
    async def work() -> None:
        async with engine(echo) as there, gateway() as here:
            asked: list[asyncio.Future[Answer]] = []
            for number in range(50):
                asked.append(asyncio.ensure_future(ask(here.port, post(CHAT, {"n": number}))))
                await until(lambda: here.dispatcher.queued == len(asked))

            here.supervisor.show(serving=there.endpoint())
            assert [answer.json["n"] for answer in await asyncio.gather(*asked)] == list(range(50))
            assert [json.loads(visit.body)["n"] for visit in there.visits] == list(range(50))
            assert here.dispatcher.queued == 0
            assert all(record.held_s > 0 for record in here.supervisor.records)

    drive(work())


def test_a_request_that_arrives_with_the_engine_does_not_overtake() -> None:
    async def work() -> None:
        async with engine(echo) as there, gateway() as here:
            early = asyncio.ensure_future(ask(here.port, post(CHAT, {"n": "early"})))
            await until(lambda: here.dispatcher.queued == 1)
            late = await Client.open(here.port)
            await late.send(post(CHAT, {"n": "late"}))
            here.supervisor.show(serving=there.endpoint())
            await asyncio.gather(early, late.answer())
            assert [json.loads(visit.body)["n"] for visit in there.visits] == ["early", "late"]

    drive(work())


def test_a_full_queue_refuses_with_a_time_to_come_back() -> None:
    async def work() -> None:
        async with engine(echo) as there, gateway(config=GatewayOptions(max_queued=3)) as here:
            held = [asyncio.ensure_future(ask(here.port, post(CHAT, {}))) for _ in range(3)]
            await until(lambda: here.dispatcher.queued == 3)
            refused = await ask(here.port, post(CHAT, {}))
            assert refused.status == 503
            assert 0 < int(refused.headers["retry-after"]) <= 120
            assert refused.json["error"]["code"] == "queue_full"
            assert refused.json["src"] == "orch"
            here.supervisor.show(serving=there.endpoint())
            assert [answer.status for answer in await asyncio.gather(*held)] == [200] * 3

    drive(work())


def test_a_client_that_leaves_frees_its_place_at_once() -> None:
    async def work() -> None:
        async with gateway(config=GatewayOptions(max_queued=1)) as here:
            client = await Client.open(here.port)
            await client.send(post(CHAT, {}))
            await until(lambda: here.dispatcher.queued == 1)
            client.close()
            await until(lambda: here.dispatcher.queued == 0)
            await until(lambda: here.supervisor.records)
            record = here.supervisor.records[0]
            assert (record.outcome, record.instance) == ("client_gone", None)

    drive(work())


def test_waiting_has_an_end() -> None:
    async def work() -> None:
        async with gateway(config=GatewayOptions(hold_timeout_s=0.05)) as here:
            answer = await ask(here.port, post(CHAT, {}))
            assert (answer.status, answer.json["error"]["code"]) == (503, "hold_timeout")
            assert "loading demo" in answer.json["error"]["message"]
            assert int(answer.headers["retry-after"]) <= 120
            assert here.dispatcher.queued == 0

    drive(work())


def test_a_refusal_is_answered_at_once_and_releases_those_who_wait() -> None:
    async def work() -> None:
        async with gateway() as here:
            held = asyncio.ensure_future(ask(here.port, post(CHAT, {})))
            await until(lambda: here.dispatcher.queued == 1)
            here.supervisor.show(refusal=Refusal("demo needs 3 GiB more than the card has", "start_failed", 600))
            for answer in (await held, await ask(here.port, post(CHAT, {}))):
                assert answer.status == 503
                assert answer.json["error"]["code"] == "start_failed"
                assert "3 GiB" in answer.json["error"]["message"]
                assert answer.headers["retry-after"] == "120"

    drive(work())


def test_a_refusal_without_hope_tells_the_clients_library_not_to_try_again() -> None:
    async def work() -> None:
        async with gateway() as here:
            here.supervisor.show(refusal=Refusal("nothing is running; run `orch up`", "not_running", None))
            answer = await ask(here.port, post(CHAT, {}))
            assert "retry-after" not in answer.headers
            assert answer.headers["x-should-retry"] == "false"

    drive(work())


def test_a_streaming_client_is_kept_alive_with_comments_while_it_waits() -> None:
    async def work() -> None:
        async with engine(stream) as there, gateway(config=SOON) as here:
            client = await Client.open(here.port)
            await client.send(post(CHAT, {"stream": True}))
            status, headers = await client.head()
            assert (status, headers["content-type"]) == (200, "text/event-stream")
            assert await client.chunk() == b": orch: loading demo\n\n"
            here.supervisor.show(progress="attempt 2\r\ndata: fake\n\n")
            while (comment := await client.chunk()) == b": orch: loading demo\n\n":
                pass

            assert comment == b": orch: attempt 2  data: fake  \n\n"
            here.supervisor.show(serving=there.endpoint())
            rest = await client.chunks()
            assert rest.endswith(b"data: 1\n\ndata: [DONE]\n\n")
            assert here.dispatcher.queued == 0

    drive(work())


def test_a_client_that_did_not_ask_for_a_stream_gets_no_comments() -> None:
    async def work() -> None:
        async with engine(echo) as there, gateway(config=SOON) as here:
            held = asyncio.ensure_future(ask(here.port, post(CHAT, {"stream": False})))
            streaming = await Client.open(here.port)
            await streaming.send(post(CHAT, {"stream": True}))
            await streaming.head()
            here.supervisor.show(serving=there.endpoint())
            answer = await held
            assert (answer.status, answer.json) == (200, {"stream": False})

    drive(work())


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        (CHAT, b'data: {"error":{'),
        ("/v1/completions", b'data: {"error":{'),
        ("/v1/responses", b'event: response.failed\ndata: {"type":"response.failed"'),
        (MESSAGES, b'event: error\ndata: {"type":"error","error":{'),
    ],
)
def test_after_comments_a_failure_is_an_event_of_the_clients_dialect(path: str, expected: bytes) -> None:
    async def work() -> None:
        async with gateway(config=SOON) as here:
            client = await Client.open(here.port)
            await client.send(post(path, {"stream": True}))
            await client.head()
            here.supervisor.show(refusal=Refusal("the model file is corrupt", "start_failed", None))
            told = await client.chunks()
            event = told.split(b": orch: loading demo\n\n")[-1]
            assert event.startswith(expected)
            assert b"the model file is corrupt" in event
            assert b"[DONE]" not in told
            json.loads(event.split(b"data: ")[1])
            assert here.supervisor.records[0].outcome == "error"

    drive(work())


def test_after_comments_an_error_of_the_engine_is_an_event() -> None:
    async def script(visit: Visit) -> None:
        await visit.answer(
            b'{"error":{"code":400,"message":"the request exceeds the context","type":"invalid_request_error"}}',
            status="400 Bad Request",
        )

    async def work() -> None:
        async with engine(script) as there, gateway(config=SOON) as here:
            client = await Client.open(here.port)
            await client.send(post(CHAT, {"stream": True}))
            await client.head()
            here.supervisor.show(serving=there.endpoint())
            told = await client.chunks()
            assert b'"message":"the request exceeds the context"' in told
            assert b"[DONE]" not in told

    drive(work())


def test_what_is_no_inference_is_not_held() -> None:
    async def work() -> None:
        async with gateway() as here:
            answer = await ask(here.port, get("/slots"))
            assert (answer.status, answer.json["error"]["code"]) == (503, "loading")
            assert (await ask(here.port, get("/health"))).status == 200

    drive(work())


def test_an_endpoint_that_refuses_connections_puts_the_request_back_into_the_queue() -> None:
    async def work() -> None:
        async with engine(echo) as there, gateway() as here:
            gone = there.endpoint("i-0").__class__("i-0", "demo", "upstream", "127.0.0.1", 1, None)
            here.supervisor.show(serving=gone)
            asked = asyncio.ensure_future(ask(here.port, post(CHAT, {"n": 1})))
            await until(lambda: here.dispatcher.active == 1)
            here.supervisor.show(progress="the engine exited; starting again")
            await until(lambda: here.dispatcher.queued == 1)
            here.supervisor.show(serving=there.endpoint("i-1"))
            assert (await asked).json == {"n": 1}
            assert here.supervisor.records[0].instance == "i-1"

    drive(work())


def test_an_endpoint_that_stays_away_is_an_error_in_the_end() -> None:
    async def work() -> None:
        async with engine(echo) as there, gateway(config=GatewayOptions(recover_s=0.05)) as here:
            endpoint = there.endpoint()
            here.supervisor.show(
                serving=endpoint.__class__(endpoint.instance, "demo", "upstream", "127.0.0.1", 1, None)
            )
            answer = await ask(here.port, post(CHAT, {}))
            assert (answer.status, answer.json["error"]["code"]) == (502, "engine_unreachable")
            assert "retry-after" in answer.headers
            assert here.dispatcher.in_flight(endpoint.instance) == 0

    drive(work())


def test_held_requests_are_told_when_the_gateway_stops() -> None:
    async def work() -> None:
        async with gateway() as here:
            asked = asyncio.ensure_future(ask(here.port, post(CHAT, {})))
            await until(lambda: here.dispatcher.queued == 1)
            await here.gateway.stop(0.0)
            answer = await asked
            assert (answer.status, answer.json["error"]["code"]) == (503, "shutting_down")
            assert answer.headers["connection"] == "close"

    drive(work())


def test_the_end_of_listening_waits_for_a_body_that_is_on_its_way() -> None:
    async def work() -> None:
        async with engine(echo) as there, gateway() as here:
            here.supervisor.show(serving=there.endpoint())
            head, blank, body = post(CHAT, {"n": "slow"}).partition(b"\r\n\r\n")
            client = await Client.open(here.port)
            await client.send(head + blank + body[:1])
            await until(lambda: here.dispatcher.active == 1)
            ending = asyncio.ensure_future(here.gateway.stop_listening(20.0))
            assert await asyncio.wait((ending,), timeout=0.1) == (set(), {ending})
            await client.send(body[1:])
            await ending
            here.gateway.stop_accepting()
            assert (await client.answer()).json["n"] == "slow"

    drive(work())


def test_a_body_that_does_not_come_holds_up_no_end() -> None:
    async def work() -> None:
        async with engine(echo) as there, gateway() as here:
            here.supervisor.show(serving=there.endpoint())
            client = await Client.open(here.port)
            await client.send(post(CHAT, {"n": "never"})[:-1])
            await until(lambda: here.dispatcher.active == 1)
            await here.gateway.stop_listening(0.05)
            here.gateway.stop_accepting()
            client.close()

    drive(work())
