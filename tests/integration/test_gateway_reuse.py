"""Kept connections that the engine closes: what it may have done is never asked of it twice while it lives."""

from __future__ import annotations

import asyncio
import json
import socket
import struct
import threading
from collections.abc import Callable, Iterator

import pytest

from orchestrator.adapters.http1 import UpstreamError, UpstreamPool
from orchestrator.gateway.config import GatewayOptions
from tests.integration.gateway_support import PATIENCE_S, Visit, ask, drive, engine, gateway, get, post, until

CHAT = "/v1/chat/completions"
SOON = GatewayOptions(recover_s=0.2)
"""Nobody tells this gateway that its engine is gone: it need not wait long for it."""

OK = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"


async def closes(visit: Visit) -> None:
    visit.writer.close()


async def resets(visit: Visit) -> None:
    visit.hang_up()


async def ends_its_side_alone(visit: Visit) -> None:
    visit.writer.write_eof()
    await visit.gone()


async def closes_after_an_interim_answer(visit: Visit) -> None:
    await visit.send(b"HTTP/1.1 100 Continue\r\n\r\n")
    visit.writer.close()


async def closes_in_its_head(visit: Visit) -> None:
    await visit.send(b"HTTP/1.1 200 OK\r\nContent-")
    visit.writer.close()


async def closes_a_moment_later(visit: Visit) -> None:
    await asyncio.sleep(0.1)
    visit.writer.close()


WAYS = [
    closes, resets, ends_its_side_alone, closes_after_an_interim_answer, closes_in_its_head, closes_a_moment_later
]  # fmt: skip


@pytest.mark.parametrize("path", [CHAT, "/completion", "/v1/messages"])
@pytest.mark.parametrize("end", WAYS, ids=lambda each: each.__name__)
def test_what_an_engine_read_and_did_not_answer_is_not_asked_again_while_it_lives(
    path: str, end: Callable[[Visit], object]
) -> None:
    async def script(visit: Visit) -> None:
        if json.loads(visit.body)["n"] == 2:
            await end(visit)  # type: ignore[misc]
        else:
            await visit.answer(visit.body)

    async def work() -> None:
        async with engine(script) as there, gateway(config=SOON) as here:
            here.supervisor.show(serving=there.endpoint())
            assert (await ask(here.port, post(path, {"n": 1}))).status == 200
            answer = await ask(here.port, post(path, {"n": 2}))
            assert answer.status == 502
            assert [json.loads(visit.body)["n"] for visit in there.visits] == [1, 2]
            assert [visit.connection for visit in there.visits] == [1, 1]
            assert (await ask(here.port, post(path, {"n": 3}))).json == {"n": 3}

    drive(work())


async def streams(visit: Visit) -> None:
    await visit.begin_stream()
    await visit.chunk(b'data: {"n":1}\n\n')
    await visit.chunk(b"data: [DONE]\n\n")
    await visit.end_stream()


async def streams_and_promises_to_stay(visit: Visit) -> None:
    await visit.send(
        b"HTTP/1.1 200 OK\r\nConnection: keep-alive\r\nKeep-Alive: timeout=5, max=100\r\n"
        b"Content-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
        b"e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n"
    )


async def streams_an_end_in_parts(visit: Visit) -> None:
    await visit.begin_stream()
    await visit.chunk(b"data: [DONE]\n\n")
    await visit.send(b"0\r\n")
    await asyncio.sleep(0.05)
    await visit.send(b"\r\n")


async def sends_json_in_chunks(visit: Visit) -> None:
    await visit.send(
        b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
        b'8\r\n{"n": 1}\r\n0\r\n\r\n'
    )


async def refuses(visit: Visit) -> None:
    await visit.answer(b'{"error":{"message":"no"}}', status="400 Bad Request")


async def says_that_it_closes(visit: Visit) -> None:
    await visit.send(OK.replace(b"\r\n", b"\r\nConnection: close\r\n", 1))


async def speaks_an_older_http(visit: Visit) -> None:
    await visit.send(OK.replace(b"HTTP/1.1", b"HTTP/1.0"))


LAST_ANSWERS = [
    streams, streams_and_promises_to_stay, streams_an_end_in_parts, sends_json_in_chunks, refuses, says_that_it_closes,
    speaks_an_older_http,
]  # fmt: skip


@pytest.mark.parametrize("stream", [False, True], ids=["then whole", "then a stream"])
@pytest.mark.parametrize("last", LAST_ANSWERS, ids=lambda each: each.__name__)
def test_no_request_is_lost_on_a_connection_that_the_engine_is_about_to_close(
    last: Callable[[Visit], object], stream: bool
) -> None:
    """llama-server closes after each stream, a moment after its end: here not before somebody asks again on it."""
    answered: set[int] = set()

    async def script(visit: Visit) -> None:
        if visit.connection in answered:
            visit.hang_up()
        elif json.loads(visit.body)["n"] % 2:
            answered.add(visit.connection)
            await last(visit)  # type: ignore[misc]
        elif stream:
            answered.add(visit.connection)
            await streams(visit)
        else:
            await visit.answer(visit.body)

    async def work() -> None:
        async with engine(script) as there, gateway(config=SOON) as here:
            here.supervisor.show(serving=there.endpoint())
            expected = 400 if last is refuses else 200
            for n in range(1, 9):
                answer = await ask(here.port, post(CHAT, {"n": n, "stream": stream, "prompt": "x" * 9000 * (n % 3)}))
                assert answer.status == (expected if n % 2 else 200), (n, answer.body)

            assert [json.loads(visit.body)["n"] for visit in there.visits] == list(range(1, 9))

    drive(work())


def test_whole_answers_leave_the_connection_to_the_next_request() -> None:
    async def work() -> None:
        async with engine(lambda visit: visit.answer(b"{}")) as there, gateway() as here:
            here.supervisor.show(serving=there.endpoint())
            for n in range(5):
                assert (await ask(here.port, post(CHAT, {"n": n}))).status == 200

            assert there.connections == 1

    drive(work())


@pytest.mark.parametrize("stream", [False, True])
def test_an_engine_that_was_turned_away_from_for_a_moment_gets_it_once(stream: bool) -> None:
    """It did not answer questions for a while, closed the connection, and answers again: it had not died."""
    held = asyncio.Event()

    async def script(visit: Visit) -> None:
        await held.wait()
        visit.writer.close()

    async def work() -> None:
        async with engine(script) as there, gateway(config=SOON) as here:
            here.supervisor.show(serving=there.endpoint("i-1"))
            asked = asyncio.ensure_future(ask(here.port, post(CHAT, {"stream": stream})))
            await until(lambda: there.visits)
            here.supervisor.show(progress="the engine does not answer")
            held.set()
            await until(lambda: here.dispatcher.queued == 1)
            here.supervisor.show(serving=there.endpoint("i-1"))
            answer = await asked
            assert answer.status == 502
            assert answer.json["error"]["code"] == "engine_died" and "lives" in answer.json["error"]["message"]
            assert len(there.visits) == 1

    drive(work())


def test_neither_is_a_question_that_changes_nothing() -> None:
    async def script(visit: Visit) -> None:
        if len(script_visits) == 1:
            visit.hang_up()
            return

        script_visits.append(visit)
        await visit.answer(b"{}")

    script_visits: list[Visit] = []

    async def work() -> None:
        async with engine(script) as there, gateway(config=SOON) as here:
            here.supervisor.show(serving=there.endpoint())
            assert (await ask(here.port, get("/props"))).status == 200
            assert (await ask(here.port, get("/props"))).status == 502
            assert len(there.visits) == 2

    drive(work())


class Server:
    """An engine in a thread: it answers, and does with an idle connection what it is told, at once."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._connections: list[socket.socket] = []
        self._idle: list[socket.socket] = []
        self._answered = threading.Semaphore(0)
        self._left = threading.Semaphore(0)
        self.port = self._listener.getsockname()[1]
        self.accepted = 0
        self.read: list[bytes] = []
        self._accepting = threading.Thread(target=self._accept, daemon=True)
        self._accepting.start()

    def while_idle(self, act: Callable[[socket.socket], object], answered: int = 1) -> None:
        """Do something to each connection once so many were answered."""
        for _ in range(answered):
            assert self._answered.acquire(timeout=PATIENCE_S)

        while self._idle:
            act(self._idle.pop())

    def reset(self, connection: socket.socket) -> None:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.shutdown(socket.SHUT_RD)
        assert self._left.acquire(timeout=PATIENCE_S)  # the thread that reads holds it open otherwise
        connection.close()

    def stop_listening(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)  # the thread that accepts holds it open otherwise
        self._accepting.join()
        self._listener.close()

    def close(self) -> None:
        if self._accepting.is_alive():
            self.stop_listening()

        for each in self._connections:
            each.close()

    def _accept(self) -> None:
        while True:
            try:
                connection = self._listener.accept()[0]
            except OSError:
                return

            self.accepted += 1
            self._connections.append(connection)
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        try:
            while data := connection.recv(65536):
                self.read.append(data.partition(b"\r\n\r\n")[2])
                connection.sendall(OK)
                self._idle.append(connection)
                self._answered.release()
        except OSError:
            pass
        finally:
            self._left.release()


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server()
    yield made
    made.close()


IDLE_ENDS: dict[str, Callable[[Server, socket.socket], object]] = {
    "closed": lambda server, each: each.shutdown(socket.SHUT_RDWR),
    "half closed": lambda server, each: each.shutdown(socket.SHUT_WR),
    "an answer to nothing": lambda server, each: each.sendall(OK),
    "a stray byte": lambda server, each: each.sendall(b"\0"),
    "reset": lambda server, each: server.reset(each),
}


@pytest.mark.parametrize("end", IDLE_ENDS)
def test_a_connection_that_ended_before_its_reuse_is_passed_over_unseen(server: Server, end: str) -> None:
    async def work() -> None:
        pool = UpstreamPool("127.0.0.1", server.port)
        for body in (b"1", b"2"):
            response = await pool.request("POST", "/completion", [], body)
            assert response.status == 200
            assert response.complete
            # The loop is not asked meanwhile: it has not seen the end.
            server.while_idle(lambda each: IDLE_ENDS[end](server, each))

        assert server.read == [b"1", b"2"]
        assert server.accepted == 2
        pool.close()

    drive(work())


def test_all_connections_that_ended_are_passed_over(server: Server) -> None:
    async def work() -> None:
        pool = UpstreamPool("127.0.0.1", server.port)
        await asyncio.gather(*(pool.request("POST", "/completion", [], b"%d" % n) for n in range(5)))
        server.while_idle(lambda each: each.shutdown(socket.SHUT_RDWR), answered=5)
        assert pool.idle == 5
        assert (await pool.request("POST", "/completion", [], b"last")).status == 200
        assert sorted(server.read) == [b"0", b"1", b"2", b"3", b"4", b"last"]
        pool.close()

    drive(work())


def test_an_engine_that_is_gone_got_nothing(server: Server) -> None:
    async def work() -> None:
        pool = UpstreamPool("127.0.0.1", server.port)
        await pool.request("POST", "/completion", [], b"1")
        server.while_idle(lambda each: each.shutdown(socket.SHUT_RDWR))
        server.stop_listening()
        with pytest.raises(UpstreamError) as raised:
            await pool.request("POST", "/completion", [], b"2")

        assert raised.value.stage == "connect"
        pool.close()

    drive(work())


def test_a_connection_is_not_used_again_after_a_stream_as_the_engine_closes_it_whatever_its_head_says() -> None:
    """cpp-httplib in upstream b11434: `Keep-Alive: timeout=5, max=100`, the last chunk, and an end a moment later."""

    async def script(visit: Visit) -> None:
        head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n"
        await visit.send(head + b"Keep-Alive: timeout=5, max=100\r\n\r\n")
        await visit.send(b"e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n")
        await asyncio.sleep(0.02)
        visit.writer.close()

    async def work() -> None:
        async with engine(script) as there, gateway(config=SOON) as here:
            here.supervisor.show(serving=there.endpoint())
            for number in range(5):
                assert (await ask(here.port, post(CHAT, {"n": number, "stream": True}))).status == 200

            assert [visit.connection for visit in there.visits] == [1, 2, 3, 4, 5]

    drive(work())
