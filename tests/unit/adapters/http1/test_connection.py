"""The server's connection, fed by hand: what no real socket can be made to do at will."""

from __future__ import annotations

import asyncio
import gc
import random
import tracemalloc

import pytest

from orchestrator.adapters.http1 import Headers, HttpLimits, Request, Response, body_budget
from orchestrator.adapters.http1.connection import Connection
from orchestrator.adapters.http1.hub import Hub

POST = b"POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello"
CHUNKED = b"POST /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"
GET = b"GET /x?y HTTP/1.1\r\nHost: a\r\nConnection: keep-alive\r\n\r\n"
INSERTED = (
    b"\r", b"\n", b"\r\n", b"\0", b" ", b"\t", b":", b",", b";", b"-", b"+", b"\xff", b"0\r\n\r\n", b"HTTP/1.0",
    b"Content-Length: 0\r\n", b"Transfer-Encoding: chunked\r\n", b"Expect: 100-continue\r\n", GET,
)  # fmt: skip


class Wire(asyncio.Transport):
    """Keeps what was written."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""
        self.closed = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written += bytes(data)

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        return

    def is_closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        self.closed = True

    def abort(self) -> None:
        self.closed = True

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        return


class Answering:
    """Answers each request, and counts them."""

    def __init__(self) -> None:
        self.answered = 0

    async def __call__(self, request: Request, response: Response) -> None:
        await request.body()
        self.answered += 1
        response.send(200, [], b"ok")


def connect(hub: Hub[Connection]) -> tuple[Connection, Wire]:
    connection, wire = Connection(hub), Wire()
    connection.connection_made(wire)
    return connection, wire


async def turns(count: int) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


@pytest.mark.asyncio
@pytest.mark.parametrize("how", ["lost", "eof, then lost"])
async def test_a_client_that_leaves_before_the_handlers_first_step_is_forgotten(how: str) -> None:
    hub: Hub[Connection] = Hub(Answering(), HttpLimits())
    connection, _ = connect(hub)
    connection.data_received(GET)
    if how != "lost":
        connection.eof_received()

    connection.connection_lost(None)
    await turns(4)
    assert hub.connections == set()


@pytest.mark.asyncio
async def test_a_broken_body_that_comes_before_the_handlers_first_step_is_refused_once() -> None:
    handler = Answering()
    hub: Hub[Connection] = Hub(handler, HttpLimits())
    connection, wire = connect(hub)
    connection.data_received(CHUNKED[:-10])
    connection.data_received(b"garbage")
    await turns(4)
    connection.connection_lost(None)
    await turns(4)
    assert wire.written.count(b"HTTP/1.1 400 ") == 1
    assert handler.answered == 0
    assert hub.connections == set()


TRAILERS = (
    b"X-Trailer: t\r\n", b"Content-Encoding: gzip\r\n", b"Origin: https://evil.example\r\n", b"Host: evil\r\n",
    b"Authorization: Bearer evil\r\n", b"Connection: content-type\r\n", b"Expect: 100-continue\r\n",
    b"".join(b"X-%d: a\r\n" % number for number in range(200)),
)  # fmt: skip


@pytest.mark.asyncio
@pytest.mark.parametrize("trailer", TRAILERS)
@pytest.mark.parametrize("apart", [False, True], ids=["in one read", "byte by byte"])
async def test_trailers_are_dropped(trailer: bytes, apart: bool) -> None:
    seen: list[Headers] = []

    async def handler(request: Request, response: Response) -> None:
        body = await request.body()
        seen.append(request.headers)
        response.send(200, [], body)

    connection, wire = connect(Hub(handler, HttpLimits()))
    data = CHUNKED.removesuffix(b"\r\n") + trailer + b"\r\n" + GET
    for part in [data[at : at + 1] for at in range(len(data))] if apart else [data]:
        connection.data_received(part)

    await turns(8)
    assert seen == [
        [(b"host", b"a"), (b"transfer-encoding", b"chunked")],
        [(b"host", b"a"), (b"connection", b"keep-alive")],
    ]
    assert wire.written.count(b"HTTP/1.1 200 ") == 2


@pytest.mark.asyncio
@pytest.mark.parametrize("endless", [b"a", b"X-A: b\r\n", b"X-A: " + b"b" * 100], ids=["name", "fields", "value"])
async def test_a_trailer_without_an_end_is_refused(endless: bytes) -> None:
    connection, wire = connect(Hub(Answering(), HttpLimits()))
    connection.data_received(CHUNKED.removesuffix(b"\r\n"))
    for _ in range(20):
        connection.data_received(endless * (1000 // len(endless)))

    await turns(4)
    assert wire.written.startswith(b"HTTP/1.1 431 ")


@pytest.mark.asyncio
async def test_small_chunks_are_joined_as_they_come() -> None:
    bodies: list[bytes] = []

    async def handler(request: Request, response: Response) -> None:
        bodies.append(await request.body())

    connection, _ = connect(Hub(handler, HttpLimits()))
    connection.data_received(CHUNKED.partition(b"5\r\n")[0])
    expected = b"".join(b"%06d" % number for number in range(50_000))
    tracemalloc.start()
    for at in range(0, len(expected), 6):
        connection.data_received(b"6\r\n%b\r\n" % expected[at : at + 6])

    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    connection.data_received(b"0\r\n\r\n")
    await turns(4)
    assert bodies == [expected]
    assert held < 2 * len(expected)


BODY_KIB = 1024


async def half_a_body(hub: Hub[Connection]) -> tuple[Connection, Wire]:
    """A client that has announced a body and sent the half of it."""
    connection, wire = connect(hub)
    head = b"POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % (BODY_KIB << 10)
    connection.data_received(head)
    connection.data_received(b"x" * (BODY_KIB << 9))
    await turns(4)
    return connection, wire


@pytest.mark.asyncio
@pytest.mark.parametrize("how", ["announced", "in chunks"])
async def test_all_bodies_together_have_a_bound(how: str) -> None:
    hub: Hub[Connection] = Hub(Answering(), HttpLimits(body_bytes=BODY_KIB << 10, bodies_bytes=5 * BODY_KIB << 9))
    held = [await half_a_body(hub) for _ in range(4)]
    assert all(not wire.written for _, wire in held)
    connection, wire = connect(hub)
    connection.data_received(CHUNKED.partition(b"5\r\n")[0] if how == "in chunks" else POST.replace(b"5", b"1000000"))
    for _ in range(15):
        connection.data_received(b"10000\r\n" + b"x" * 65536 + b"\r\n" if how == "in chunks" else b"")
        await turns(2)

    assert wire.written.startswith(b"HTTP/1.1 503 ")
    assert b"\r\nretry-after: " in wire.written

    small, wire = connect(hub)
    small.data_received(POST)  # small ones always fit
    await turns(4)
    assert wire.written.startswith(b"HTTP/1.1 200 ")

    for each, _ in held:
        each.connection_lost(None)

    connection.connection_lost(None)
    await turns(4)
    assert hub.bodies.held_bytes == 0
    whole, wire = await half_a_body(hub)
    whole.data_received(b"x" * (BODY_KIB << 9))
    await turns(4)
    assert wire.written.startswith(b"HTTP/1.1 200 ")
    assert hub.bodies.held_bytes == 0


@pytest.mark.asyncio
async def test_a_body_is_freed_when_its_client_leaves_and_not_by_the_collector() -> None:
    hub: Hub[Connection] = Hub(Answering(), HttpLimits())
    gc.disable()
    tracemalloc.start()
    try:
        connection, _ = connect(hub)
        connection.data_received(b"POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 9000000\r\n\r\n")
        for _ in range(64):
            connection.data_received(b"x" * 65536)

        await turns(4)
        assert tracemalloc.get_traced_memory()[0] > 4 << 20
        connection.connection_lost(None)
        await turns(4)
        assert tracemalloc.get_traced_memory()[0] < 1 << 20
    finally:
        tracemalloc.stop()
        gc.enable()


@pytest.mark.asyncio
async def test_memory_is_given_back_once_after_large_bodies(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[float] = []
    monkeypatch.setattr(body_budget, "give_back_memory", lambda: given.append(1.0))
    monkeypatch.setattr(body_budget, "_GIVE_BACK_AFTER_S", 0.01)
    budget = body_budget.BodyBudget(100 << 20)
    for size in (1000, 10 << 20, 10 << 20):
        budget.grow(0, size)
        budget.release(size)

    await asyncio.sleep(0.05)
    assert given == [1.0]


@pytest.mark.asyncio
async def test_at_the_limit_idle_connections_go_and_those_without_a_key_first() -> None:
    waiting = asyncio.Event()

    async def handler(request: Request, response: Response) -> None:
        request.authenticated = request.header(b"authorization") is not None
        if request.method == "POST":
            await waiting.wait()

        response.send(200, [], b"ok")

    hub: Hub[Connection] = Hub(handler, HttpLimits(connections=3), make_room="idle")
    at_work, friend, idle = connect(hub), connect(hub), connect(hub)
    at_work[0].data_received(POST)
    friend[0].data_received(GET.replace(b"Host", b"Authorization: k\r\nHost"))
    await turns(4)
    dribbling = connect(hub)
    assert [wire.closed for _, wire in (at_work, friend, idle, dribbling)] == [False, False, True, False]
    dribbling[0].data_received(GET[:9])
    busy = connect(hub)
    assert [wire.closed for _, wire in (at_work, friend, dribbling, busy)] == [False, False, True, False]
    busy[0].data_received(POST)
    await turns(4)
    busiest = connect(hub)  # nobody else is left: a key keeps no place that is not used
    assert [wire.closed for _, wire in (at_work, friend, busy, busiest)] == [False, True, False, False]
    busiest[0].data_received(POST)
    await turns(4)
    assert connect(hub)[1].closed
    assert not any(wire.closed for _, wire in (at_work, busy, busiest))
    waiting.set()
    await turns(4)
    assert at_work[1].written.startswith(b"HTTP/1.1 200 ")


@pytest.mark.asyncio
@pytest.mark.parametrize("seed", range(4))
async def test_mutated_requests_never_get_an_answer_too_many(seed: int) -> None:
    chance = random.Random(seed)
    for _ in range(1000):
        data = bytearray(chance.choice((POST, CHUNKED, GET)))
        if chance.random() < 0.3:
            data += chance.choice((POST, CHUNKED, GET))

        mutate(data, chance)
        handler = Answering()
        hub: Hub[Connection] = Hub(handler, HttpLimits())
        connection, wire = connect(hub)
        cuts = [0, *sorted(chance.randrange(len(data) + 1) for _ in range(chance.choice((0, 0, 2)))), len(data)]
        for begin, end in zip(cuts, cuts[1:], strict=False):
            if end > begin:
                connection.data_received(bytes(data[begin:end]))

        await turns(8)
        assert wire.written.count(b"HTTP/1.1 200 ") == handler.answered, bytes(data)
        assert wire.written.count(b"HTTP/1.1 4") + wire.written.count(b"HTTP/1.1 5") <= 1, bytes(data)
        connection.connection_lost(None)
        await turns(4)
        assert hub.connections == set(), bytes(data)


def mutate(data: bytearray, chance: random.Random) -> None:
    for _ in range(chance.randint(1, 3)):
        at = chance.randrange(len(data))
        kind = chance.random()
        if kind < 0.5:
            data[at:at] = chance.choice(INSERTED)
        elif kind < 0.7:
            del data[at : min(at + chance.randint(1, 4), len(data) - 1)]
        else:
            data[at] = chance.randrange(256)
