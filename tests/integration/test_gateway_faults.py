"""Engines that lie, break off or die: an error before the first byte, a visible end after it, no connection reused."""

from __future__ import annotations

import asyncio
import json

import pytest

from orchestrator.gateway.config import GatewayOptions
from orchestrator.gateway.contract import Refusal
from tests.integration.gateway_support import Client, Visit, ask, drive, engine, gateway, post, until

CHAT = "/v1/chat/completions"
SOON = GatewayOptions(recover_s=0.2)
"""Nobody tells this gateway that its engine is gone: it need not wait long for it."""

OK = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"

CLOSED = {"nothing at all": b"", "half a head": b"HTTP/1.1 200 OK\r\nContent-"}

MALFORMED = {
    "not HTTP": b"<html>\r\n\r\n",
    "a length that is no number": OK + b"Content-Length: abc\r\n\r\n{}",
    "two lengths": OK + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}",
    "a length beside chunks": OK + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "an unknown coding": OK + b"Transfer-Encoding: gzip\r\n\r\nxx",
    "a megabyte of header": OK + b"X: " + b"a" * 2**20 + b"\r\nContent-Length: 2\r\n\r\n{}",
    "a header without an end": OK + b"X: " + b"a" * 2**20,
    "a header of 40 KB in one piece": OK + b"X: " + b"a" * 40_000 + b"\r\nContent-Length: 2\r\n\r\n{}",
    "a CR in a header": OK + b"X: a\rSet-Cookie: evil\r\nContent-Length: 2\r\n\r\n{}",
    "a bare LF in a header": OK + b"X: a\nSet-Cookie: evil\r\nContent-Length: 2\r\n\r\n{}",
    "a NUL in a header": OK + b"X: a\0b\r\nContent-Length: 2\r\n\r\n{}",
    "a folded header": OK + b"X: a\r\n b\r\nContent-Length: 2\r\n\r\n{}",
    "an upgrade": b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n",
}


@pytest.mark.parametrize("name", [*CLOSED, *MALFORMED])
def test_a_broken_answer_is_an_error_with_its_cause(name: str) -> None:
    async def script(visit: Visit) -> None:
        if name in CLOSED:
            await visit.send(CLOSED[name])
            visit.writer.close()
        else:
            await visit.send(MALFORMED[name])
            await visit.gone()  # it keeps the connection: the error is found in what it said

    async def work() -> None:
        async with engine(script) as there, gateway(config=SOON) as here:
            here.supervisor.show(serving=there.endpoint())
            here.supervisor.show(refusal=None, progress="loading demo, attempt 2")
            here.supervisor.show(serving=there.endpoint())
            answer = await ask(here.port, post(CHAT, {}))
            assert answer.status == 502
            assert answer.json["error"]["code"] == ("engine_died" if name in CLOSED else "engine_protocol")
            assert answer.json["error"]["message"]
            assert 0 < int(answer.headers["retry-after"]) <= 120
            await until(lambda: there.open == 0)
            assert "set-cookie" not in answer.headers
            assert len(there.visits) == 1
            assert here.dispatcher.in_flight("i-1") == 0

    drive(work())


LONG = b'{"a":"' + b"x" * (2 << 20)
"""More of a whole answer than the gateway holds back until it is complete."""


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("a body shorter than its length", OK + b"Content-Length: %d\r\n\r\n%b" % (2 * len(LONG), LONG)),
        ("a chunk that is no chunk", OK + b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%b}\r\nzz\r\n" % (len(LONG), LONG)),
        ("chunks without an end", OK + b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n" % (len(LONG), LONG)),
    ],
)
def test_a_body_that_breaks_is_cut_where_the_client_sees_it(name: str, data: bytes) -> None:
    async def script(visit: Visit) -> None:
        await visit.send(data)
        visit.writer.close()

    async def work() -> None:
        async with engine(script) as there, gateway(config=SOON) as here:
            here.supervisor.show(serving=there.endpoint())
            client = await Client.open(here.port)
            await client.send(post(CHAT, {}))
            status, headers = await client.head()
            assert status == 200
            with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
                await (client.chunks() if "transfer-encoding" in headers else client.reader.readexactly(2 * len(LONG)))

            await until(lambda: here.supervisor.records)
            assert here.supervisor.records[0].outcome == "error"

    drive(work())


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        (CHAT, b'data: {"error":{'),
        ("/completion", b'data: {"error":{'),
        ("/v1/responses", b"event: response.failed\n"),
        ("/v1/messages", b"event: error\n"),
    ],
)
def test_an_engine_that_dies_in_mid_stream_ends_in_an_event_and_no_done(path: str, expected: bytes) -> None:
    async def script(visit: Visit) -> None:
        await visit.begin_stream()
        await visit.chunk(b'data: {"n":1}\n\ndata: {"n"')
        visit.hang_up()

    async def work() -> None:
        async with engine(script) as there, gateway() as here:
            here.supervisor.show(serving=there.endpoint())
            asked = asyncio.ensure_future(ask(here.port, post(path, {"stream": True})))
            await until(lambda: there.visits)
            here.supervisor.show(refusal=Refusal("out of device memory on CUDA0", "crashed", None))
            answer = await asked
            assert answer.status == 200
            before, event, rest = answer.body.rsplit(b"\n\n", 2)
            assert before == b'data: {"n":1}\n\ndata: {"n"'
            assert rest == b""
            assert (event + b"\n").startswith(expected)
            assert b"out of device memory on CUDA0" in event
            json.loads(event.split(b"data: ")[1])
            assert b"[DONE]" not in answer.body

    drive(work())


COMPUTE = b'{"code":500,"message":"Compute error.","type":"server_error"}'


@pytest.mark.parametrize(
    ("path", "events", "status"),
    [
        (CHAT, b'data: {"error":%b}\n\n' % COMPUTE, 500),
        (CHAT, b'data: {"error":%b}\n\ndata: [DONE]\n\n' % COMPUTE, 500),
        (CHAT, b'data: {"error":{"code":400,"message":"too long","type":"exceed_context_size_error"}}\n\n', 400),
        ("/v1/completions", b'data: {"error":{"message":"no code"}}\r\n\r\n', 500),
        ("/completion", b'data: {"error":%b}\n\n' % COMPUTE, 500),
        ("/completion", b"error: %b\n\n" % COMPUTE, 500),
        ("/infill", b'data: {"error":"a text"}\n\n', 500),
        ("/v1/messages", b"event: error\ndata: %b\n\n" % COMPUTE, 500),
        ("/v1/messages", b'event: error\ndata: {"type":"error","error":{"type":"api_error","message":"x"}}\n\n', 500),
        ("/v1/responses", b'data: {"error":%b}\n\n' % COMPUTE, 500),
        ("/v1/responses", b'event: response.failed\ndata: {"type":"response.failed","response":{}}\n\n', 500),
    ],
)
@pytest.mark.parametrize("at_once", [False, True])
def test_a_stream_that_ends_in_an_error_is_no_complete_answer(
    path: str, events: bytes, status: int, at_once: bool
) -> None:
    async def script(visit: Visit) -> None:
        if at_once:
            head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Length: %d\r\n\r\n"
            await visit.send(head % len(events) + events)
            return

        await visit.begin_stream()
        for part in (b'data: {"content":"a"}\n\n', events[:15], events[15:]):
            await visit.chunk(part)
            await asyncio.sleep(0.01)

        await visit.end_stream()

    async def work() -> None:
        async with engine(script) as there, gateway() as here:
            here.supervisor.show(serving=there.endpoint())
            answer = await ask(here.port, post(path, {"stream": True}))
            assert (answer.status, answer.body[-len(events) :]) == (200, events)
            await until(lambda: here.supervisor.records)
            record = here.supervisor.records[0]
            assert (record.outcome, record.status, record.error_status) == ("error", 200, status)

    drive(work())


def test_a_stream_that_speaks_of_errors_is_complete() -> None:
    spoken = json.dumps({"content": 'event: error\ndata: {"error":{"code":500}}\n\nerror: {"error":1}'}).encode()

    async def script(visit: Visit) -> None:
        await visit.begin_stream()
        await visit.chunk(b"data: " + spoken + b'\n\ndata: {"error":null,"content":"","stop":true}\n\n')
        await visit.end_stream()

    async def work() -> None:
        async with engine(script) as there, gateway() as here:
            here.supervisor.show(serving=there.endpoint())
            await ask(here.port, post("/completion", {"stream": True}))
            await until(lambda: here.supervisor.records)
            assert here.supervisor.records[0].outcome == "complete"

    drive(work())


def test_the_cause_of_a_death_is_named_once_the_daemon_knows_it() -> None:
    async def script(visit: Visit) -> None:
        visit.hang_up()

    async def work() -> None:
        async with engine(script) as there, gateway() as here:
            here.supervisor.show(serving=there.endpoint())
            asked = asyncio.ensure_future(ask(here.port, post(CHAT, {})))
            await until(lambda: there.visits)
            here.supervisor.show(refusal=Refusal("an illegal instruction", "crashed", None))
            answer = await asked
            assert answer.status == 503
            assert "illegal instruction" in answer.json["error"]["message"]

    drive(work())


def test_a_fresh_connection_that_is_closed_is_not_tried_again() -> None:
    async def script(visit: Visit) -> None:
        visit.hang_up()

    async def work() -> None:
        async with engine(script) as there, gateway(config=SOON) as here:
            here.supervisor.show(serving=there.endpoint())
            answer = await ask(here.port, post(CHAT, {}))
            assert (answer.status, answer.json["error"]["code"]) == (502, "engine_died")
            assert there.connections == 1

    drive(work())


@pytest.mark.parametrize("says_so", [True, False])
def test_an_engine_may_close_after_a_number_of_requests(says_so: bool) -> None:
    served: dict[int, int] = {}

    async def script(visit: Visit) -> None:
        served[visit.connection] = served.get(visit.connection, 0) + 1
        last = served[visit.connection] == 10
        close = b"Connection: close\r\n" if last and says_so else b""
        await visit.send(OK, close, b"Content-Length: 2\r\n\r\n{}")
        if last:
            visit.writer.close()

    async def work() -> None:
        async with engine(script) as there, gateway() as here:
            here.supervisor.show(serving=there.endpoint())
            client = await Client.open(here.port)
            for _ in range(45):
                await client.send(post(CHAT, {}))
                assert (await client.answer()).status == 200

            assert there.connections == 5

    drive(work())


EVIL = OK + b'Content-Length: 6\r\n\r\n"evil"'


@pytest.mark.parametrize("later", [False, True])
@pytest.mark.parametrize("rest", [EVIL, EVIL[:-3], EVIL[:12], b"x", b"\0"])
def test_bytes_after_the_end_cost_the_connection_and_never_reach_the_next_client(rest: bytes, later: bool) -> None:
    async def script(visit: Visit) -> None:
        whole = OK + b"Content-Length: 2\r\n\r\n{}"
        await visit.send(whole if later else whole + rest)
        if later:
            await asyncio.sleep(0.02)
            await visit.send(rest)

        await visit.gone()

    async def work() -> None:
        async with engine(script) as there, gateway() as here:
            here.supervisor.show(serving=there.endpoint())
            for number in range(3):
                assert (await ask(here.port, post(CHAT, {}))).body == b"{}"
                await until(lambda: there.open == 0)
                assert there.connections == number + 1

    drive(work())


def test_a_connection_that_the_engine_says_it_will_close_is_not_used_again() -> None:
    async def script(visit: Visit) -> None:
        await visit.send(OK + b"Connection: close\r\nContent-Length: 2\r\n\r\n{}")  # and it does not

    async def work() -> None:
        async with engine(script) as there, gateway() as here:
            here.supervisor.show(serving=there.endpoint())
            for _ in range(3):
                assert (await ask(here.port, post(CHAT, {}))).body == b"{}"

            assert there.connections == 3

    drive(work())


def test_interim_responses_are_not_taken_for_the_answer() -> None:
    async def script(visit: Visit) -> None:
        await visit.send(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n")
        await visit.answer(b'{"a":1}')

    async def work() -> None:
        async with engine(script) as there, gateway() as here:
            here.supervisor.show(serving=there.endpoint())
            answer = await ask(here.port, post(CHAT, {}))
            assert (answer.status, answer.body) == (200, b'{"a":1}')
            assert "link" not in answer.headers

    drive(work())


def test_an_answer_that_ends_with_the_connection_is_whole() -> None:
    async def script(visit: Visit) -> None:
        await visit.send(OK + b'\r\n{"a":')
        await visit.send(b"1}")
        visit.writer.close()

    async def work() -> None:
        async with engine(script) as there, gateway() as here:
            here.supervisor.show(serving=there.endpoint())
            assert (await ask(here.port, post(CHAT, {}))).body == b'{"a":1}'

    drive(work())


def test_an_html_page_with_status_200_is_passed_on_as_it_is() -> None:
    async def script(visit: Visit) -> None:
        await visit.answer(b"<html>", kind="text/html")

    async def work() -> None:
        async with engine(script) as there, gateway() as here:
            here.supervisor.show(serving=there.endpoint())
            answer = await ask(here.port, post(CHAT, {}))
            assert (answer.headers["content-type"], answer.body) == ("text/html", b"<html>")

    drive(work())


def test_an_engine_with_few_threads_is_not_starved_by_idle_connections() -> None:
    threads = asyncio.Semaphore(2)
    held: dict[int, bool] = {}

    async def script(visit: Visit) -> None:
        # cpp-httplib: a connection has a thread from its first request until it is closed.
        if not held.get(visit.connection):
            await threads.acquire()
            held[visit.connection] = True
            asyncio.get_running_loop().create_task(release(visit))

        await visit.answer(b"{}")

    async def release(visit: Visit) -> None:
        await until(visit.reader.at_eof)
        threads.release()

    async def work() -> None:
        async with engine(script) as there, gateway() as here:
            here.supervisor.show(serving=there.endpoint())
            async with asyncio.timeout(3.0):
                answers = await asyncio.gather(*(ask(here.port, post(CHAT, {})) for _ in range(12)))

            assert [answer.status for answer in answers] == [200] * 12

    drive(work())
