"""The client against a small real server on a unix socket, which says exactly the bytes that it is told to."""

from __future__ import annotations

import json
import os
import socket
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from orchestrator.api.client import request, stream
from orchestrator.core.errors import NotRunningError, OrchError, TimedOutError, UsageError

Answer = Callable[[socket.socket], object]


@pytest.fixture
def path() -> Iterator[str]:
    """A short one: socket paths end at 108 bytes."""
    with tempfile.TemporaryDirectory(prefix="orch-") as folder:
        yield os.path.join(folder, "control.sock")


@contextmanager
def daemon(path: str, answer: Answer) -> Iterator[list[bytes]]:
    """Serves one connection: keeps the request, hands the connection to `answer`, closes it."""
    requests: list[bytes] = []

    def serve() -> None:
        connection, _ = listener.accept()
        with connection:
            requests.append(read_request(connection))
            answer(connection)

    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield requests
        finally:
            thread.join(10)
            assert not thread.is_alive()


def read_request(connection: socket.socket) -> bytes:
    data = b""
    while b"\r\n\r\n" not in data:
        data += connection.recv(65536)

    head, _, body = data.partition(b"\r\n\r\n")
    length = next((int(line[15:]) for line in head.split(b"\r\n") if line.startswith(b"Content-Length:")), 0)
    while len(body) < length:
        body += connection.recv(65536)

    return head + b"\r\n\r\n" + body


def says(*parts: bytes) -> Answer:
    def answer(connection: socket.socket) -> None:
        for part in parts:
            connection.sendall(part)

    return answer


def ok(body: bytes) -> bytes:
    return b"HTTP/1.0 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)


def failure(status: bytes, code: int) -> bytes:
    error = {"message": "it failed", "details": ["here", "there"], "hint": "run `orch logs`", "code": code}
    return b"HTTP/1.0 " + status + b"\r\n\r\n" + json.dumps({"error": error}).encode()


def test_the_body_of_the_answer_is_returned(path: str) -> None:
    with daemon(path, says(ok(b'{"state": "ready"}'))) as requests:
        assert request(path, "/v1/status?after=1") == b'{"state": "ready"}'

    assert requests == [b"GET /v1/status?after=1 HTTP/1.0\r\nHost: orch\r\n\r\n"]


def test_a_request_with_a_body_is_a_post(path: str) -> None:
    body = json.dumps({"profile": "ä"}).encode() * 20_000
    with daemon(path, says(ok(b"{}"))) as requests:
        request(path, "/v1/up", body)

    head, _, sent = requests[0].partition(b"\r\n\r\n")
    assert head.split(b"\r\n") == [
        b"POST /v1/up HTTP/1.0",
        b"Host: orch",
        b"Content-Type: application/json",
        b"Content-Length: %d" % len(body),
    ]
    assert sent == body


def test_an_answer_that_comes_byte_by_byte_is_put_together(path: str) -> None:
    answer = ok(b'{"state": "ready"}')
    with daemon(path, says(*(answer[i : i + 1] for i in range(len(answer))))):
        assert request(path, "/v1/status") == b'{"state": "ready"}'


def test_an_answer_without_a_length_ends_where_the_connection_ends(path: str) -> None:
    with daemon(path, says(b"HTTP/1.1 200 OK\r\n\r\n", b"one", b"two")):
        assert request(path, "/v1/status") == b"onetwo"


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (b"500 Internal Server Error", 1, OrchError),
        (b"400 Bad Request", 2, UsageError),
        (b"409 Conflict", 3, NotRunningError),
        (b"504 Gateway Timeout", 4, TimedOutError),
        (b"500 Internal Server Error", 99, OrchError),
    ],
)
@pytest.mark.parametrize("how", ["request", "stream"])
def test_a_failure_is_raised_as_what_its_exit_code_stands_for(
    path: str, status: bytes, code: int, kind: type[OrchError], how: str
) -> None:
    with daemon(path, says(failure(status, code))), pytest.raises(OrchError) as caught:
        request(path, "/v1/up", b"{}") if how == "request" else list(stream(path, "/v1/logs"))

    assert type(caught.value) is kind
    assert (caught.value.message, caught.value.details) == ("it failed", ("here", "there"))
    assert caught.value.hint == "run `orch logs`"


@pytest.mark.parametrize(
    "body", [b"<html>bad gateway</html>", b"[]", b'{"error": 1}', b'{"error": {"code": 1}}', b"\xff", b""]
)
def test_a_failure_that_is_none_of_ours_is_shown_as_it_is(path: str, body: bytes) -> None:
    with daemon(path, says(b"HTTP/1.0 502 Bad Gateway\r\n\r\n" + body)), pytest.raises(OrchError) as caught:
        request(path, "/v1/status")

    assert caught.value.message == f"the daemon answered 502: {body.decode(errors='replace')}"


@pytest.mark.parametrize("said", [b"", b"HT", b"HTTP/1.0 200 OK\r\nContent-Le"], ids=["nothing", "two", "half a head"])
@pytest.mark.parametrize("how", ["request", "stream"])
def test_a_connection_closed_without_an_answer_is_told_as_such(path: str, said: bytes, how: str) -> None:
    with daemon(path, says(said)), pytest.raises(OrchError, match="closed the connection without an answer"):
        request(path, "/v1/status") if how == "request" else list(stream(path, "/v1/logs"))


def test_an_answer_that_is_cut_short_is_not_taken_for_a_whole_one(path: str) -> None:
    with daemon(path, says(ok(b'{"state": "ready"}')[:-3])), pytest.raises(OrchError, match="in the middle of its"):
        request(path, "/v1/status")


def test_a_daemon_that_refuses_a_body_unread_is_still_heard(path: str) -> None:
    def refuse() -> None:
        connection, _ = listener.accept()
        connection.recv(100)
        connection.sendall(failure(b"413 Content Too Large", 2))
        connection.shutdown(socket.SHUT_RDWR)
        closed.wait(10)
        connection.close()

    closed = threading.Event()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        thread = threading.Thread(target=refuse)
        thread.start()
        with pytest.raises(UsageError, match="it failed"):
            request(path, "/v1/up", b"x" * (8 << 20))

        closed.set()
        thread.join(10)


def test_no_socket_means_that_no_daemon_runs(path: str) -> None:
    with pytest.raises(NotRunningError) as caught:
        request(path, "/v1/status")

    assert caught.value.details == (path,)
    assert caught.value.hint == "start one: `orch up PROFILE`"


def test_a_socket_that_a_killed_daemon_left_means_that_no_daemon_runs(path: str) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)

    assert os.path.exists(path)
    with pytest.raises(NotRunningError):
        list(stream(path, "/v1/logs"))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may connect to any socket")
def test_a_socket_of_another_user_is_told_as_such(path: str) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        os.chmod(path, 0)
        with pytest.raises(OrchError, match="another user"):
            request(path, "/v1/status")


def test_a_daemon_that_says_nothing_is_not_waited_for_for_ever(path: str) -> None:
    answered = threading.Event()
    with daemon(path, lambda connection: answered.wait(10)):
        with pytest.raises(TimedOutError, match=r"did not answer within 0\.05 s"):
            request(path, "/v1/status", timeout_s=0.05)

        answered.set()


def test_a_daemon_that_takes_no_connections_any_more_is_a_silent_one(path: str) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen(0)
        with socket.socket(socket.AF_UNIX) as first:
            first.connect(path)
            with pytest.raises(TimedOutError):
                request(path, "/v1/status", timeout_s=0.05)


HEAD = b"HTTP/1.0 200 OK\r\nContent-Type: application/x-ndjson\r\n\r\n"


@pytest.mark.parametrize(
    "parts",
    [
        (HEAD + b"one\ntwo\n\nfour\n",),
        (HEAD, b"on", b"e\ntw", b"o\n\nfour", b"\n"),
        (HEAD[:20], HEAD[20:] + b"one\n", b"two\n\nfour\n"),
    ],
)
def test_a_stream_gives_whole_lines_however_they_come(path: str, parts: tuple[bytes, ...]) -> None:
    with daemon(path, says(*parts)):
        assert list(stream(path, "/v1/logs")) == [b"one", b"two", b"", b"four"]


def test_a_line_of_a_stream_is_given_before_the_next_one_comes(path: str) -> None:
    read = threading.Event()

    def answer(connection: socket.socket) -> None:
        connection.sendall(HEAD + b"one\n")
        assert read.wait(10)
        connection.sendall(b"two\n")

    with daemon(path, answer):
        lines = stream(path, "/v1/logs?follow=1")
        assert next(lines) == b"one"
        read.set()
        assert list(lines) == [b"two"]


def test_a_stream_cut_in_the_middle_of_a_line_ends_with_the_last_whole_one(path: str) -> None:
    with daemon(path, says(HEAD + b'{"seq": 1}\n{"seq":')):
        assert list(stream(path, "/v1/logs")) == [b'{"seq": 1}']


def test_a_stream_that_is_left_closes_its_connection(path: str) -> None:
    def answer(connection: socket.socket) -> None:
        connection.sendall(HEAD + b"one\n")
        ends.append(connection.recv(1))

    ends: list[bytes] = []
    with daemon(path, answer):
        lines = stream(path, "/v1/logs?follow=1")
        assert next(lines) == b"one"
        lines.close()  # type: ignore[attr-defined]

    assert ends == [b""]
