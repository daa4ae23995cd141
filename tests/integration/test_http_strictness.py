"""Bytes that two parsers could read in two ways, and clients that take their time: refused and closed."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from orchestrator.adapters.http1 import HttpLimits, HttpServer, Request, Response
from orchestrator.gateway.config import GatewayOptions
from tests.busy import in_time
from tests.integration.gateway_support import Client, Visit, ask, drive, engine, exchange, gateway, get, post, until

CHAT = b"/v1/chat/completions"
SMUGGLED = b"GET /v1/models HTTP/1.1\r\nHost: localhost\r\n\r\n"


def a_post(*lines: bytes, version: bytes = b"HTTP/1.1", host: bytes = b"Host: localhost\r\n") -> bytes:
    return b"POST " + CHAT + b" " + version + b"\r\n" + host + b"".join(line + b"\r\n" for line in lines) + b"\r\n"


CHUNKED = b"Transfer-Encoding: chunked"
H2C = (b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c", b"HTTP2-Settings: AAEAAEAAAAIAAAABAAMAAABk")
"""What Java's HttpClient sends with its first request."""

VECTORS: dict[str, tuple[bytes, int]] = {
    "length and chunks": (a_post(b"Content-Length: 6", CHUNKED) + b"0\r\n\r\nG", 400),
    "chunks and length": (a_post(CHUNKED, b"Content-Length: 6") + b"0\r\n\r\nG", 400),
    "two different lengths": (a_post(b"Content-Length: 0", b"Content-Length: 5") + b"hello", 400),
    "two equal lengths": (a_post(b"Content-Length: 5", b"Content-Length: 5") + b"hello", 400),
    "a list of lengths": (a_post(b"Content-Length: 5, 5") + b"hello", 400),
    "a signed length": (a_post(b"Content-Length: +5") + b"hello", 400),
    "a negative length": (a_post(b"Content-Length: -5") + b"hello", 400),
    "a hexadecimal length": (a_post(b"Content-Length: 0x5") + b"hello", 400),
    "an empty length": (a_post(b"Content-Length: ") + b"hello", 400),
    "a length beyond numbers": (a_post(b"Content-Length: 99999999999999999999999") + b"hello", 400),
    "a length with an underscore": (a_post(b"Content_Length: 5") + b"hello", 400),
    "a coding with an underscore": (a_post(b"Transfer_Encoding: chunked") + b"0\r\n\r\n", 400),
    "a space before the colon": (a_post(b"Transfer-Encoding : chunked") + b"0\r\n\r\n", 400),
    "an unknown coding": (a_post(b"Transfer-Encoding: xchunked") + b"0\r\n\r\n", 400),
    "chunked is not last": (a_post(b"Transfer-Encoding: chunked, gzip") + b"0\r\n\r\n", 400),
    "gzip before chunked": (a_post(b"Transfer-Encoding: gzip, chunked") + b"0\r\n\r\n", 400),
    "two codings": (a_post(CHUNKED, CHUNKED) + b"0\r\n\r\n", 400),
    "a coding on HTTP/1.0": (a_post(CHUNKED, version=b"HTTP/1.0") + b"0\r\n\r\n", 400),
    "a bare LF after the request line": (b"GET /health HTTP/1.1\nHost: localhost\r\n\r\n", 400),
    "a bare LF after a header": (b"GET /health HTTP/1.1\r\nHost: localhost\nX: y\r\n\r\n", 400),
    "a bare CR in a header": (a_post(b"X: a\rContent-Length: 5") + b"hello", 400),
    "a NUL in a header": (a_post(b"X: a\0b"), 400),
    "a folded header": (a_post(b"X: a\r\n b"), 400),
    "a folded first header": (b"GET /health HTTP/1.1\r\n Host: localhost\r\n\r\n", 400),
    "a chunk size with 0x": (a_post(CHUNKED) + b"0x5\r\nhello\r\n0\r\n\r\n", 400),
    "a chunk size with a sign": (a_post(CHUNKED) + b"+5\r\nhello\r\n0\r\n\r\n", 400),
    "a bare LF after a chunk size": (a_post(CHUNKED) + b"5\nhello\r\n0\r\n\r\n", 400),
    "a bare LF in a chunk extension": (a_post(CHUNKED) + b"5;a\nb\r\nhello\r\n0\r\n\r\n", 400),
    "a chunk longer than its size": (a_post(CHUNKED) + b"5\r\nhelloX\r\n0\r\n\r\n", 400),
    "no Host": (a_post(host=b""), 400),
    "two Hosts": (a_post(b"Host: localhost"), 400),
    "a target for another host": (b"GET http://evil.example/health HTTP/1.1\r\nHost: localhost\r\n\r\n", 400),
    "a target with a user": (b"GET http://a@localhost/health HTTP/1.1\r\nHost: localhost\r\n\r\n", 400),
    "a target of another scheme": (b"GET file:///etc/passwd HTTP/1.1\r\nHost: localhost\r\n\r\n", 400),
    "an asterisk for a target": (b"OPTIONS * HTTP/1.1\r\nHost: localhost\r\n\r\n", 400),
    "a fragment in the target": (b"GET /health#x HTTP/1.1\r\nHost: localhost\r\n\r\n", 400),
    "a high byte in the target": (b"GET /h\xff HTTP/1.1\r\nHost: localhost\r\n\r\n", 400),
    "a tab in the target": (b"GET /a\tb HTTP/1.1\r\nHost: localhost\r\n\r\n", 400),
    "HTTP/2": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
    "another version": (b"GET /health HTTP/3.0\r\nHost: localhost\r\n\r\n", 400),
    "HTTP/0.9 with headers": (b"GET /health HTTP/0.9\r\nHost: localhost\r\n\r\n", 505),
    "TRACE": (b"TRACE /health HTTP/1.1\r\nHost: localhost\r\n\r\n", 405),
    "CONNECT": (b"CONNECT localhost:443 HTTP/1.1\r\nHost: localhost:443\r\n\r\n", 405),
    "an upgrade with length and chunks": (a_post(*H2C, b"Content-Length: 6", CHUNKED) + b"0\r\n\r\nG", 400),
    "an upgrade with two lengths": (a_post(*H2C, b"Content-Length: 0", b"Content-Length: 5") + b"hello", 400),
    "an upgrade with a bad chunk": (a_post(*H2C, CHUNKED) + b"5\r\nhelloX\r\n0\r\n\r\n", 400),
    "an upgrade to WebSocket": (
        b"GET /v1/models HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
        400,
    ),
    "TLS": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\0" * 64, 400),
}


@asynccontextmanager
async def counting(limits: HttpLimits | None = None) -> AsyncIterator[tuple[int, list[Request]]]:
    """A server that keeps what it was asked."""
    asked: list[Request] = []

    async def handler(request: Request, response: Response) -> None:
        asked.append(request)
        response.send(200, [(b"content-type", b"text/plain")], await request.body())

    server = HttpServer(handler, limits)
    sock = socket.create_server(("127.0.0.1", 0))
    await server.serve(sock)
    try:
        yield sock.getsockname()[1], asked
    finally:
        await server.shutdown(0.0)


@pytest.mark.parametrize("name", VECTORS)
def test_an_ambiguous_request_is_refused_and_nothing_behind_it_is_read(name: str) -> None:
    data, status = VECTORS[name]

    async def answer(visit: Visit) -> None:
        await visit.answer(b"{}")

    async def work() -> None:
        async with engine(answer) as there, gateway() as here:
            here.supervisor.show(serving=there.endpoint())
            told = await exchange(here.port, data + SMUGGLED)
            assert told.startswith(b"HTTP/1.1 %d " % status)
            assert told.count(b"HTTP/1.1 ") == 1
            assert b"connection: close" in told
            assert there.visits == []

    drive(work())


@pytest.mark.parametrize("name", VECTORS)
def test_an_ambiguous_request_is_refused_when_it_comes_byte_by_byte(name: str) -> None:
    data, status = VECTORS[name]

    async def work() -> None:
        async with counting() as (port, asked):
            client = await Client.open(port)
            for at in range(len(data)):
                client.writer.write(data[at : at + 1])
                await asyncio.sleep(0)

            assert (await client.head())[0] == status
            # A broken chunk is found while the handler waits for the body; it never gets one.
            assert all(not request.complete for request in asked)

    drive(work())


def test_a_valid_request_ahead_of_a_broken_one_keeps_its_answer() -> None:
    async def work() -> None:
        async with counting() as (port, asked):
            told = await exchange(port, post("/a", b"one") + post("/b", b"two") + b"GARBAGE\r\n\r\n" + get("/c"))
            assert told.count(b"HTTP/1.1 200 ") == 2
            assert told.count(b"HTTP/1.1 ") == 2
            assert [request.path for request in asked] == ["/a", "/b"]

    drive(work())


OFFERS: dict[str, tuple[bytes, bytes]] = {
    "a length": (a_post(*H2C, b"Content-Length: %d" % len(SMUGGLED)) + SMUGGLED, SMUGGLED),
    "chunks": (a_post(*H2C, CHUNKED) + b"%x\r\n%b\r\n0\r\n\r\n" % (len(SMUGGLED), SMUGGLED), SMUGGLED),
    "no body": (a_post(*H2C), b""),
    "another order": (a_post(b"Content-Length: 2", *reversed(H2C)) + b"{}", b"{}"),
    "other spellings": (
        a_post(b"CONNECTION: x, upgrade", b"UPGRADE: H2C,TLS/1.0", b"Content-Length: 2") + b"{}",
        b"{}",
    ),
    "HTTP/1.0": (a_post(*H2C, b"Content-Length: 2", version=b"HTTP/1.0") + b"{}", b"{}"),
}


@pytest.mark.parametrize("whole", [True, False], ids=["whole", "byte by byte"])
@pytest.mark.parametrize("name", OFFERS)
def test_an_offer_of_another_protocol_is_ignored_and_the_body_ends_where_it_ends(name: str, whole: bool) -> None:
    data, body = OFFERS[name]

    async def work() -> None:
        async with counting() as (port, asked):
            client = await Client.open(port)
            behind = b"" if name == "HTTP/1.0" else data + a_post(b"Content-Length: 1", b"Connection: close") + b"x"
            sent = data + behind
            for at in range(0, len(sent), len(sent) if whole else 1):
                client.writer.write(sent[at : at + (len(sent) if whole else 1)])
                await asyncio.sleep(0)

            expected = [body, body, b"x"] if behind else [body]
            assert [(await client.answer()).body for _ in expected] == expected
            assert await client.reader.read() == b""
            assert all(request.header(b"upgrade") is None for request in asked)

    drive(work())


def test_an_offer_is_not_made_to_the_engine_and_its_connection_stays() -> None:
    async def answer(visit: Visit) -> None:
        await visit.answer(b"{}")

    async def work() -> None:
        async with engine(answer) as there, gateway() as here:
            here.supervisor.show(serving=there.endpoint())
            client = await Client.open(here.port)
            for _ in range(2):
                await client.send(a_post(*H2C, b"X-Mine: 1", b"Content-Length: 13") + b'{"prompt":""}')
                answer_ = await client.answer()
                assert answer_.status == 200
                assert "upgrade" not in answer_.headers

            assert [visit.body for visit in there.visits] == [b'{"prompt":""}'] * 2
            for visit in there.visits:
                assert visit.headers["x-mine"] == "1"
                assert not {"upgrade", "http2-settings", "connection"} & set(visit.headers)

    drive(work())


def test_an_absolute_target_for_our_own_host_is_a_path() -> None:
    async def work() -> None:
        async with counting() as (port, asked):
            told = await exchange(
                port, b"GET http://LOCALHOST/a?b=c HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
            )
            assert told.startswith(b"HTTP/1.1 200 ")
            assert (asked[0].path, asked[0].query) == ("/a", "b=c")

    drive(work())


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (get("/" + "a" * 9000), 414),
        (get("/", "X: " + "a" * 20_000), 431),
        (get("/", *[f"X-{number}: y" for number in range(2000)]), 431),
        (get("/", *[f"X-{number}: y" for number in range(101)]), 431),  # many, and not much
        (b"GET /" + b"a" * 128 * 1024, 414),
        (get("/", "X: " + "a" * 128 * 1024), 431),
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1001\r\n\r\n", 413),
        (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n" + b"64\r\n" + b"a" * 100 + b"\r\n", None),
        (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n" + b"3e9\r\n" + b"a" * 1001, 413),
    ],
)
def test_what_is_too_large_is_refused_early(data: bytes, status: int | None) -> None:
    async def work() -> None:
        async with counting(HttpLimits(body_bytes=1000, body_timeout_s=0.05, linger_s=0.2)) as (port, asked):
            told = await exchange(port, data)
            assert told.startswith(b"HTTP/1.1 %d " % (status or 408))
            assert all(not request.complete for request in asked)

    drive(work())


def test_a_body_of_exactly_the_cap_is_taken() -> None:
    async def work() -> None:
        async with counting(HttpLimits(body_bytes=1000)) as (port, _):
            assert (await ask(port, post("/", b"a" * 1000))).body == b"a" * 1000

    drive(work())


def test_an_early_refusal_reaches_a_client_that_is_still_sending() -> None:
    async def work() -> None:
        async with counting(HttpLimits(body_bytes=1000)) as (port, _):
            client = await Client.open(port)
            await client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 8000000\r\n\r\n")
            for _ in range(80):
                client.writer.write(b"a" * 100_000)

            assert (await client.head())[0] == 413

    drive(work())


SLOW = {
    "nothing": b"",
    "half a request line": b"GET / HT",
    "half a head": b"GET / HTTP/1.1\r\nHost: localhost\r\nX-",
    "half a body": b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\nabc",
}


@pytest.mark.parametrize("name", SLOW)
def test_a_client_that_stops_in_the_middle_is_closed_at_its_deadline(name: str) -> None:
    limits = HttpLimits(header_timeout_s=0.2, body_timeout_s=0.2, idle_timeout_s=0.2, linger_s=0.2)

    async def work() -> None:
        async with counting(limits) as (port, asked):
            client = await Client.open(port)
            began = time.monotonic()
            await client.send(SLOW[name])
            told = await client.reader.read()
            assert in_time(time.monotonic() - began, 2.0)
            assert told == b"" or told.startswith(b"HTTP/1.1 408 ")
            assert all(not request.complete for request in asked)

    drive(work())


@pytest.mark.parametrize(
    "begin", [b"GET / HTTP/1.1\r\nHost: a\r\nX: ", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9999\r\n\r\n"]
)
def test_dribbling_buys_no_time(begin: bytes) -> None:
    limits = HttpLimits(header_timeout_s=0.3, body_timeout_s=0.3, linger_s=0.2)

    async def work() -> None:
        async with counting(limits) as (port, _):
            client = await Client.open(port)
            await client.send(begin)
            ended = asyncio.ensure_future(client.reader.read())
            began = time.monotonic()
            while not ended.done():
                client.writer.write(b"a")
                await asyncio.sleep(0.01)

            assert (await ended).startswith(b"HTTP/1.1 408 ")
            assert in_time(time.monotonic() - began, 2.0)

    drive(work())


def test_five_hundred_stalled_clients_do_not_slow_a_good_one() -> None:
    limits = HttpLimits(header_timeout_s=1.0, linger_s=0.2)

    async def work() -> None:
        async with gateway(config=GatewayOptions(limits=limits)) as here:
            stalled = await asyncio.gather(*(Client.open(here.port) for _ in range(500)))
            for client in stalled:
                client.writer.write(b"GET /health HTTP/1.1\r\nHost: ")

            slowest = 0.0
            for _ in range(50):
                began = time.monotonic()
                assert (await ask(here.port, get("/health"))).status == 200
                slowest = max(slowest, time.monotonic() - began)

            assert in_time(slowest, 0.5)
            for client in stalled:
                assert (await client.reader.read()).startswith(b"HTTP/1.1 408 ")

    drive(work())


@asynccontextmanager
async def one_that_does_not_read(server: HttpServer) -> AsyncIterator[None]:
    """A client that has sent a request to a server, and reads nothing of the answer."""
    sock = socket.create_server(("127.0.0.1", 0))
    await server.serve(sock)
    client = await Client.open(sock.getsockname()[1], receive_buffer=4096)
    client.writer.transport.pause_reading()  # type: ignore[attr-defined]
    await client.send(get("/"))
    yield
    await server.shutdown(0.0)


def test_a_reader_that_never_reads_is_cut() -> None:
    gone = asyncio.Event()

    async def handler(request: Request, response: Response) -> None:
        response.start(200, [])
        try:
            while True:
                response.write(b"x" * 65536)
                await response.drain()
        finally:
            gone.set()

    async def work() -> None:
        server = HttpServer(handler, HttpLimits(write_timeout_s=0.2))
        async with one_that_does_not_read(server):
            await gone.wait()
            await until(lambda: server.connections == 0)

    drive(work())


def test_a_bounded_answer_does_not_wait_for_its_reader() -> None:
    written = asyncio.Event()

    async def handler(request: Request, response: Response) -> None:
        response.start(200, [])
        for _ in range(48):
            response.write(b"x" * 65536)
            await response.drain()

        written.set()

    async def work() -> None:
        server = HttpServer(handler)
        async with one_that_does_not_read(server):
            await written.wait()
            assert server.connections == 1

    drive(work())


def test_answers_that_nobody_takes_have_a_bound_together() -> None:
    async def handler(request: Request, response: Response) -> None:
        response.send(200, [], b"x" * (32 << 20))

    async def work() -> None:
        server = HttpServer(handler, HttpLimits(unsent_bytes=1 << 20, linger_s=0.2))
        async with one_that_does_not_read(server):
            await until(lambda: server.connections == 1)
            await until(lambda: server.connections == 0)

    drive(work())


def test_connections_beyond_the_limit_are_closed_at_once() -> None:
    async def work() -> None:
        async with counting(HttpLimits(connections=3)) as (port, _):
            first = [await Client.open(port) for _ in range(3)]
            for client in first:
                await client.send(get("/"))
                assert (await client.head())[0] == 200

            for _ in range(3):
                beyond = await Client.open(port)
                async with asyncio.timeout(HttpLimits().idle_timeout_s / 2):  # not for having had nothing to say
                    with contextlib.suppress(ConnectionError):
                        await beyond.send(get("/"))
                        assert await beyond.reader.read() == b""

            for client in first:
                await client.send(get("/"))

    drive(work())


def test_a_flood_of_garbage_is_one_line_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    async def work() -> None:
        async with counting() as (port, _):
            for _ in range(30):
                assert (await exchange(port, b"\x1b]0;evil\x07 secret\r\n\r\n")).startswith(b"HTTP/1.1 400 ")

    with caplog.at_level(logging.DEBUG, logger="orchestrator"):
        drive(work())

    assert len(caplog.records) == 1
    assert "secret" not in caplog.text
    assert "\x1b" not in caplog.text


def test_a_handler_that_fails_is_a_500_and_a_traceback_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    async def handler(request: Request, response: Response) -> None:
        raise RuntimeError("a bug")

    async def work() -> None:
        server = HttpServer(handler)
        sock = socket.create_server(("127.0.0.1", 0))
        await server.serve(sock)
        answer = await ask(sock.getsockname()[1], get("/"))
        assert answer.status == 500
        assert b"a bug" not in answer.body
        await server.shutdown(0.0)

    drive(work())
    assert "RuntimeError: a bug" in caplog.text


def test_a_unix_socket_serves_an_http_1_0_client_to_the_end_of_its_stream(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    path = tmp_path_factory.mktemp("s") / "s"

    async def handler(request: Request, response: Response) -> None:
        response.start(200, [(b"content-type", b"application/x-ndjson")])
        for number in range(3):
            response.write(b"%d\n" % number)
            await asyncio.sleep(0)

    async def work() -> None:
        sock = socket.socket(socket.AF_UNIX)
        sock.bind(str(path))
        server = HttpServer(handler)
        await server.serve(sock)
        reader, writer = await asyncio.open_unix_connection(str(path))
        writer.write(b"GET /events HTTP/1.0\r\n\r\n")
        head, _, body = (await reader.read()).partition(b"\r\n\r\n")
        assert b"transfer-encoding" not in head
        assert body == b"0\n1\n2\n"
        writer.close()
        await writer.wait_closed()
        await server.shutdown(0.0)

    drive(work())
