"""A request on its way to a serving engine and back: nothing changed, nothing kept back, nobody left waiting."""

from __future__ import annotations

import asyncio
import hashlib
import json
import time

import pytest

from orchestrator.gateway.config import GatewayOptions
from tests.busy import in_time
from tests.integration.gateway_support import (
    Client,
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

CHAT = "/v1/chat/completions"
TIMINGS = (
    b'{"choices":[],"usage":{"prompt_tokens":9,"completion_tokens":9},"timings":{"cache_n":0,"prompt_n":7,'
    b'"prompt_ms":12.5,"predicted_n":40,"predicted_ms":400.0,"draft_n":30,"draft_n_accepted":21}}'
)


async def echo(visit: Visit) -> None:
    await visit.answer(visit.body)


def test_body_and_query_arrive_unchanged_and_so_does_the_answer() -> None:
    async def work() -> None:
        async with engine(echo) as there, gateway() as here:
            here.supervisor.show(serving=there.endpoint())
            body = b'{ "model" : "demo",  "odd" : [1,  2.50, "\\u00e9 \xc3\xa9"] }'
            answer = await ask(here.port, post(CHAT + "?a=%2Fb&c", body))
            assert (answer.status, answer.body) == (200, body)
            assert there.visits[0].body == body
            assert there.visits[0].line == f"POST {CHAT}?a=%2Fb&c HTTP/1.1"

    drive(work())


def test_the_engine_gets_its_own_key_and_none_of_the_clients_secrets() -> None:
    async def work() -> None:
        async with engine(echo) as there, gateway() as here:
            here.supervisor.show(serving=there.endpoint())
            secrets = (
                "Authorization: Bearer mine", "X-Api-Key: mine", "Cookie: a=b", "X-Forwarded-For: 1.2.3.4",
                "Connection: keep-alive, X-Hop", "X-Hop: 1", "TE: trailers", "Accept-Encoding: gzip",
                "X-Conversation-Id: c", "X-Stays: yes",
            )  # fmt: skip
            await ask(here.port, post(CHAT, {}, *secrets))
            headers = there.visits[0].headers
            assert headers["authorization"] == "Bearer engine-secret"
            assert headers["x-stays"] == "yes"
            assert headers["host"] == f"127.0.0.1:{there.port}"
            gone = {"x-api-key", "cookie", "x-forwarded-for", "x-hop", "te", "accept-encoding", "x-conversation-id"}
            assert not gone & headers.keys()

    drive(work())


def test_internal_headers_of_the_engine_do_not_come_back() -> None:
    async def script(visit: Visit) -> None:
        await visit.send(
            b"HTTP/1.1 200 OK\r\nServer: llama.cpp\r\nAccess-Control-Allow-Origin: *\r\nKeep-Alive: timeout=5\r\n"
            b"Set-Cookie: a=b\r\nX-Kept: yes\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"
        )

    async def work() -> None:
        async with engine(script) as there, gateway() as here:
            here.supervisor.show(serving=there.endpoint())
            headers = (await ask(here.port, post(CHAT, {}))).headers
            assert headers["x-kept"] == "yes"
            assert not {"server", "access-control-allow-origin", "keep-alive", "set-cookie"} & headers.keys()

    drive(work())


def test_ten_thousand_chunks_split_anywhere_arrive_as_they_were() -> None:
    text = "".join(f'data: {{"n":{n},"t":"é€🦙"}}\n\n' for n in range(4000)).encode()
    step = max(1, len(text) // 10_000)
    parts = [text[at : at + step] for at in range(0, len(text), step)]
    assert len(parts) >= 10_000

    async def script(visit: Visit) -> None:
        await visit.begin_stream()
        for part in parts:
            await visit.chunk(part)

        await visit.end_stream()

    async def work() -> None:
        async with engine(script) as there, gateway() as here:
            here.supervisor.show(serving=there.endpoint())
            answer = await ask(here.port, post(CHAT, {"stream": True}))
            assert hashlib.sha256(answer.body).digest() == hashlib.sha256(text).digest()
            assert answer.headers["x-accel-buffering"] == "no"

    drive(work())


def test_each_chunk_is_seen_before_the_next_is_sent() -> None:
    go = asyncio.Queue[None]()

    async def script(visit: Visit) -> None:
        await visit.begin_stream()
        for number in range(50):
            await visit.chunk(b"data: %d\n\n" % number)
            await go.get()

        await visit.end_stream()

    async def work() -> None:
        async with engine(script) as there, gateway() as here:
            here.supervisor.show(serving=there.endpoint())
            client = await Client.open(here.port)
            await client.send(post(CHAT, {"stream": True}))
            await client.head()
            for number in range(50):
                assert await client.chunk() == b"data: %d\n\n" % number
                go.put_nowait(None)

            assert await client.chunk() == b""
            client.close()

    drive(work())


def test_a_slow_reader_stops_the_engine_instead_of_filling_memory() -> None:
    sent = 0

    async def script(visit: Visit) -> None:
        nonlocal sent
        await visit.begin_stream()
        for _ in range(2000):
            await visit.chunk(b"x" * 65536)
            sent += 65536

        await visit.end_stream()

    async def work() -> None:
        nonlocal sent
        async with engine(script) as there, gateway() as here:
            here.supervisor.show(serving=there.endpoint())
            client = await Client.open(here.port, receive_buffer=32768)
            await client.send(post(CHAT, {"stream": True}))
            await client.head()
            before = -1
            while before != sent:
                before = sent
                await asyncio.sleep(0.2)

            # What is under way sits in the kernel's socket buffers, not in the gateway.
            assert sent < 40 * 2**20
            assert (await ask(here.port, get("/health"))).status == 200
            total = len(await client.chunks())
            assert total == 2000 * 65536
            client.close()

    drive(work())


def test_the_clients_next_request_uses_the_same_connections() -> None:
    async def work() -> None:
        async with engine(echo) as there, gateway() as here:
            here.supervisor.show(serving=there.endpoint())
            client = await Client.open(here.port)
            for number in range(150):
                await client.send(post(CHAT, {"n": number}))
                assert (await client.answer()).json == {"n": number}

            client.close()
            assert there.connections == 1

    drive(work())


def test_pipelined_requests_are_answered_in_order() -> None:
    async def work() -> None:
        async with engine(echo) as there, gateway() as here:
            here.supervisor.show(serving=there.endpoint())
            client = await Client.open(here.port)
            await client.send(b"".join(post(CHAT, {"n": number}) for number in range(5)))
            assert [(await client.answer()).json["n"] for _ in range(5)] == list(range(5))
            client.close()

    drive(work())


def test_a_chunked_request_body_is_reframed() -> None:
    async def work() -> None:
        async with engine(echo) as there, gateway() as here:
            here.supervisor.show(serving=there.endpoint())
            head = f"POST {CHAT} HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
            answer = await ask(here.port, head + b'3\r\n{"a\r\n4;x=y\r\n":1}\r\n0\r\nTrailer: z\r\n\r\n')
            assert answer.body == b'{"a":1}'
            assert there.visits[0].headers["content-length"] == "7"
            assert "transfer-encoding" not in there.visits[0].headers

    drive(work())


def test_expect_continue_is_answered_before_the_body_is_sent() -> None:
    async def work() -> None:
        async with engine(echo) as there, gateway() as here:
            here.supervisor.show(serving=there.endpoint())
            client = await Client.open(here.port)
            request = post(CHAT, b"{}", "Expect: 100-continue")
            await client.send(request[:-2])
            assert (await client.head())[0] == 100
            await client.send(request[-2:])
            assert (await client.answer()).body == b"{}"
            assert "expect" not in there.visits[0].headers
            client.close()

    drive(work())


def test_an_http_1_0_client_gets_a_stream_that_ends_with_the_connection() -> None:
    async def script(visit: Visit) -> None:
        await visit.begin_stream()
        await visit.chunk(b"data: 1\n\n")
        await visit.end_stream()

    async def work() -> None:
        async with engine(script) as there, gateway() as here:
            here.supervisor.show(serving=there.endpoint())
            body = b'{"stream":true}'
            head = f"POST {CHAT} HTTP/1.0\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n".encode()
            answer = await ask(here.port, head + body)
            assert "transfer-encoding" not in answer.headers
            assert answer.body == b"data: 1\n\n"

    drive(work())


@pytest.mark.parametrize("when", ["before the first byte", "in mid-stream"])
def test_the_engine_is_told_at_once_that_the_client_has_left(when: str) -> None:
    noticed: list[float] = []

    async def script(visit: Visit) -> None:
        if when == "in mid-stream":
            await visit.begin_stream()
            await visit.chunk(b"data: 1\n\n")

        await visit.gone()
        noticed.append(time.monotonic())
        visit.hang_up()

    async def work() -> None:
        async with engine(script) as there, gateway() as here:
            here.supervisor.show(serving=there.endpoint())
            client = await Client.open(here.port)
            await client.send(post(CHAT, {"stream": True}))
            await until(lambda: there.visits)
            if when == "in mid-stream":
                await client.head()
                await client.chunk()

            left = time.monotonic()
            client.close()
            await until(lambda: noticed)
            assert in_time(noticed[0] - left, 1.0)
            await until(lambda: here.supervisor.records)
            assert here.supervisor.records[0].outcome == "client_gone"
            assert here.dispatcher.in_flight("i-1") == 0

    drive(work())


def test_a_thousand_clients_that_leave_leak_nothing() -> None:
    async def script(visit: Visit) -> None:
        await visit.begin_stream()
        await visit.chunk(b"data: 1\n\n")
        await visit.gone()
        visit.hang_up()

    async def leave(port: int, gate: asyncio.Semaphore) -> None:
        async with gate:
            client = await Client.open(port)
            await client.send(post(CHAT, {"stream": True}))
            await client.head()
            client.writer.transport.abort()

    async def work() -> None:
        async with engine(script) as there, gateway() as here:
            here.supervisor.show(serving=there.endpoint())
            gate = asyncio.Semaphore(50)
            await asyncio.gather(*(leave(here.port, gate) for _ in range(1000)))
            await until(lambda: len(here.supervisor.records) == 1000)
            await until(lambda: there.open == 0)
            assert {record.outcome for record in here.supervisor.records} == {"client_gone"}
            assert (here.dispatcher.in_flight("i-1"), here.dispatcher.active, here.dispatcher.queued) == (0, 0, 0)

    drive(work())


@pytest.mark.parametrize("streams", [False, True])
def test_the_engines_own_figures_are_recorded(streams: bool) -> None:
    async def script(visit: Visit) -> None:
        if not streams:
            await visit.answer(TIMINGS)
            return

        await visit.begin_stream()
        for number in range(300):
            await visit.chunk(b"data: " + json.dumps({"n": number, "text": '"timings":{' * 20}).encode() + b"\n\n")

        await visit.chunk(b"data: " + TIMINGS + b"\n\n")
        await visit.chunk(b"data: [DONE]\n\n")
        await visit.end_stream()

    async def work() -> None:
        supervisor = Supervised()
        async with engine(script) as there, gateway(supervisor) as here:
            supervisor.show(serving=there.endpoint())
            before = time.monotonic()
            await ask(here.port, post(CHAT, {"stream": streams}))
            await until(lambda: supervisor.records)
            record = supervisor.records[0]
            assert (record.instance, record.route, record.status, record.outcome) == ("i-1", CHAT, 200, "complete")
            assert (record.prompt_tokens, record.prompt_ms) == (7, 12.5)
            assert (record.output_tokens, record.output_ms) == (40, 400.0)
            assert (record.draft_tokens, record.draft_accepted) == (30, 21)
            assert (record.profile, record.engine, record.build) == ("demo", "upstream", None)
            assert before <= record.started <= record.started + record.total_s <= time.monotonic()

    drive(work())


def test_the_first_token_of_a_stream_is_neither_its_headers_nor_a_comment_nor_its_opening() -> None:
    opening = {"choices": [{"delta": {"role": "assistant", "content": None}}]}
    token_sent: list[float] = []
    read = asyncio.Event()

    async def script(visit: Visit) -> None:
        await visit.begin_stream()
        await visit.chunk(b":\n\n")
        await visit.chunk(b"data: " + json.dumps(opening).encode() + b"\n\n")
        await read.wait()
        token_sent.append(time.monotonic())
        await visit.chunk(b'data: {"choices":[{"delta":{"content":"a"}}]}\n\ndata: [DONE]\n\n')
        await visit.end_stream()

    async def work() -> None:
        supervisor = Supervised()
        async with engine(script) as there, gateway(supervisor) as here:
            supervisor.show(serving=there.endpoint())
            client = await Client.open(here.port)
            await client.send(post(CHAT, {"stream": True}))
            await client.head()
            assert (await client.chunk()).startswith(b":")
            read.set()
            await client.chunks()
            await until(lambda: supervisor.records)
            record = supervisor.records[0]
            assert record.first_token_s is not None
            assert token_sent[0] <= record.started + record.first_token_s <= record.started + record.total_s

    drive(work())


def test_a_whole_answer_has_no_time_to_its_first_token() -> None:
    async def work() -> None:
        supervisor = Supervised()
        async with engine(lambda visit: visit.answer(TIMINGS)) as there, gateway(supervisor) as here:
            supervisor.show(serving=there.endpoint())
            await ask(here.port, post(CHAT, {}))
            await until(lambda: supervisor.records)
            assert supervisor.records[0].first_token_s is None

    drive(work())


def test_waiting_for_an_instance_to_be_idle_ends_with_its_last_request() -> None:
    go = asyncio.Event()

    async def script(visit: Visit) -> None:
        await go.wait()
        await visit.answer(b"{}")

    async def work() -> None:
        async with engine(script) as there, gateway() as here:
            here.supervisor.show(serving=there.endpoint())
            asked = [asyncio.ensure_future(ask(here.port, post(CHAT, {}))) for _ in range(3)]
            await until(lambda: here.dispatcher.in_flight("i-1") == 3)
            assert not await here.dispatcher.wait_idle("i-1", 0.05)
            here.supervisor.show(progress="switching")
            go.set()
            assert await here.dispatcher.wait_idle("i-1", 10.0)
            assert [answer.status for answer in await asyncio.gather(*asked)] == [200] * 3

    drive(work())


def test_stopping_lets_a_stream_end_within_its_time() -> None:
    go = asyncio.Event()

    async def script(visit: Visit) -> None:
        await visit.begin_stream()
        await visit.chunk(b"data: 1\n\n")
        await go.wait()
        await visit.chunk(b"data: [DONE]\n\n")
        await visit.end_stream()

    async def work() -> None:
        async with engine(script) as there, gateway() as here:
            here.supervisor.show(serving=there.endpoint())
            client = await Client.open(here.port)
            await client.send(post(CHAT, {"stream": True}))
            await client.head()
            stopping = asyncio.ensure_future(here.gateway.stop(10.0))
            await asyncio.sleep(0)
            go.set()
            assert await client.chunks() == b"data: 1\n\ndata: [DONE]\n\n"
            assert await client.reader.read() == b""
            await stopping

    drive(work())


def test_stopping_tells_a_stream_that_does_not_end() -> None:
    async def script(visit: Visit) -> None:
        await visit.begin_stream()
        await visit.chunk(b"data: 1\n\n")
        await visit.gone()
        visit.hang_up()

    async def work() -> None:
        async with engine(script) as there, gateway() as here:
            here.supervisor.show(serving=there.endpoint())
            client = await Client.open(here.port)
            await client.send(post(CHAT, {"stream": True}))
            await client.head()
            await client.chunk()
            stopping = asyncio.ensure_future(here.gateway.stop(0.05))
            told = await client.chunks()
            assert b"shutting_down" in told
            assert b"[DONE]" not in told
            await stopping

    drive(work())


def test_a_request_on_an_open_connection_is_refused_while_the_gateway_drains() -> None:
    go = asyncio.Event()

    async def script(visit: Visit) -> None:
        await go.wait()
        await visit.answer(b"{}")

    async def work() -> None:
        async with engine(script) as there, gateway(config=GatewayOptions()) as here:
            here.supervisor.show(serving=there.endpoint())
            busy, open_before = await Client.open(here.port), await Client.open(here.port)
            await busy.send(post(CHAT, {}))
            await until(lambda: there.visits)
            await open_before.send(get("/health"))
            assert (await open_before.answer()).status == 200
            here.gateway.stop_accepting()
            await open_before.send(post(CHAT, {}))
            refused = await open_before.answer()
            assert (refused.status, refused.headers["connection"]) == (503, "close")
            assert refused.json["error"]["code"] == "shutting_down"
            go.set()
            assert (await busy.answer()).status == 200

    drive(work())
