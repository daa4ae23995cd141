"""Mutated requests at a gateway in front of an engine that counts: what reaches the engine is what a strict reader of
the same bytes sees, framed anew, with our key and none of the client's."""

from __future__ import annotations

import asyncio
import logging
import random
import re
import socket
from collections import Counter
from dataclasses import dataclass, field
from typing import cast

from orchestrator.adapters.http1 import HttpLimits
from orchestrator.gateway.config import GatewayOptions
from orchestrator.gateway.contract import Endpoint
from orchestrator.gateway.dispatch import Dispatcher
from orchestrator.gateway.errors import GatewayError
from orchestrator.gateway.routes import ENGINE_ROUTES, find_route
from orchestrator.gateway.server import Gateway
from tests.integration.gateway_support import DEMO, OTHER, NotedRequests, Supervised, metrics_page
from tests.security.reference_http import Seen, requests

SECRET = "engine-secret"
LIMITS = HttpLimits(
    body_bytes=100_000, header_timeout_s=0.2, body_timeout_s=0.2, body_rate=1 << 20, idle_timeout_s=2.0, linger_s=0.2
)
PATIENCE_S = 20.0

INSIDE = b"POST /completion HTTP/1.1\r\nHost: localhost\r\nX-Inside: 1\r\nContent-Length: 2\r\n\r\n{}"
"""A request inside a body: an engine that sees it was lied to about where the body ends."""

SECRETS = b"Authorization: Bearer client-secret\r\nX-Api-Key: client-secret\r\nCookie: client-secret\r\n"
CHUNKS = b'5\r\n{"a":\r\n3;x=y\r\n 1}\r\n0\r\nX-Trailer: a\r\n\r\n'
OFFER = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAEAAEAA\r\n"
EXPECTING = b"Expect: 100-continue\r\nContent-Length: 2\r\n\r\n{}"
SEEDS = (
    b"POST /completion HTTP/1.1\r\nHost: localhost\r\nContent-Length: 17\r\n\r\n" + b'{"prompt":"hello"',
    b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\n" + SECRETS + b"Content-Length: 2\r\n\r\n{}",
    b"POST /completion HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n" + CHUNKS,
    b"POST /tokenize HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n%b" % (len(INSIDE), INSIDE),
    b"POST /completion HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n"
    % (len(INSIDE), INSIDE),
    b"GET /props?a=b HTTP/1.1\r\nHost: localhost\r\nConnection: keep-alive, X-Gone\r\nX-Gone: 1\r\n\r\n",
    b"GET /v1/models HTTP/1.1\r\nHost: 127.0.0.1:8080\r\n\r\n",
    b"HEAD /health HTTP/1.1\r\nHost: [::1]\r\n\r\n",
    b"POST /upstream/demo/completion HTTP/1.0\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n{}",
    b"POST http://localhost/completion HTTP/1.1\r\nHost: localhost\r\n" + EXPECTING,
    b"POST /completion HTTP/1.1\r\nHost: localhost\r\n%bContent-Length: %d\r\n\r\n%b" % (OFFER, len(INSIDE), INSIDE),
    b"POST /completion HTTP/1.1\r\nHost: localhost\r\n" + OFFER + b"Transfer-Encoding: chunked\r\n\r\n" + CHUNKS,
)
TOKENS = (
    b"\r", b"\n", b"\r\n", b"\r\n\r\n", b"\0", b" ", b"\t", b":", b",", b";", b"-", b"+", b"\xff", b"\x0b", b"\x85",
    b"0\r\n\r\n", b"HTTP/1.0", b"HTTP/1.1", b"Content-Length: 0\r\n", b"Content-Length: 5\r\n", b"Content-Length:\r\n",
    b"Content_Length: 5\r\n", b"Transfer-Encoding: chunked\r\n", b"Transfer-Encoding: gzip, chunked\r\n",
    b"Transfer-Encoding : chunked\r\n", b"Transfer-Encoding:\x0bchunked\r\n", b"Connection: close\r\n",
    b"Connection: content-length\r\n", b"Connection: Upgrade\r\nUpgrade: h2c\r\n", b"Expect: 100-continue\r\n",
    b"Host: evil.example\r\n", b"Trailer: content-length\r\n", b" folded\r\n", b"0x", b"0", b"00", b"1" * 20, b"+5",
    b"5, 5", b"ffffffffffffffff", INSIDE, b"/../", b"%2e%2e", b"//", b"#", b"?",
)  # fmt: skip
END = b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
"""Sent behind each case: where both sides agree about the end of the case, it ends the connection at once."""

_NEVER_SENT = {
    b"transfer-encoding",
    b"connection",
    b"cookie",
    b"x-api-key",
    b"te",
    b"trailer",
    b"upgrade",
    b"http2-settings",
    b"expect",
}


@dataclass
class Report:
    """What a run found. `problems` are pairs of what is wrong and the bytes that were sent."""

    cases: int = 0
    forwarded: int = 0
    statuses: Counter[str] = field(default_factory=Counter)
    problems: list[tuple[str, bytes]] = field(default_factory=list)


def mutated(chance: random.Random) -> bytes:
    data = bytearray(chance.choice(SEEDS))
    if chance.random() < 0.4:
        data += chance.choice(SEEDS)

    for _ in range(chance.choice((0, 1, 1, 1, 2, 3, 5))):
        _mutate(data, chance)

    return bytes(data)


def _mutate(data: bytearray, chance: random.Random) -> None:
    at = chance.randrange(len(data))
    lines = [match.start() for match in re.finditer(rb"\r\n", data)] or [at]
    match chance.randrange(7):
        case 0:
            data[at:at] = chance.choice(TOKENS)
        case 1:  # where headers begin
            begin = chance.choice(lines) + 2
            data[begin:begin] = chance.choice(TOKENS)
        case 2:
            del data[at : min(at + chance.choice((1, 1, 2, 4, 16)), len(data) - 1)]
        case 3:
            data[at] = chance.randrange(256)
        case 4:  # something twice
            end = min(at + chance.randrange(1, 64), len(data))
            data[at:at] = data[at:end]
        case 5:  # another number
            numbers = [match.span() for match in re.finditer(rb"\d+", data)] or [(at, at)]
            begin, end = chance.choice(numbers)
            data[begin:end] = chance.choice((b"0", b"1", b"4", b"6", b"-1", b"0x5", b"+5", b"9" * 19))
        case _:
            data[at] ^= 0x20


class Engine(asyncio.Protocol):
    """Reads as strictly as it can, and answers each request with its number; `/props` gets more fields on its way."""

    def __init__(self, log: list[Seen], problems: list[str]) -> None:
        self._log = log
        self._problems = problems
        self._data = b""
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is no subclass

    def data_received(self, data: bytes) -> None:
        self._data += data
        while (end := self._data.find(b"\r\n\r\n")) >= 0:
            head = self._data[: end + 4]
            length = re.search(rb"\r\ncontent-length: (\d+)\r\n", head)
            size = len(head) + (int(length[1]) if length else 0)
            if len(self._data) < size:
                return

            seen = list(requests(self._data[:size]))
            if len(seen) == 1 and seen[0].complete:
                self._take(seen[0])
            else:
                self._problems.append(f"the engine was sent {self._data[:size]!r}")

            self._data = self._data[size:]

    def _take(self, seen: Seen) -> None:
        names = Counter(name for name, _ in seen.headers)
        path = seen.target.partition(b"?")[0].decode()
        if names & Counter(_NEVER_SENT):
            self._problems.append(f"the engine was sent {seen.headers}")

        if names[b"host"] != 1 or (b"authorization", f"Bearer {SECRET}".encode()) not in seen.headers:
            self._problems.append(f"the engine was sent {seen.headers}")

        if names[b"authorization"] != 1 or names[b"content-length"] != (seen.method == b"POST" or bool(seen.body)):
            self._problems.append(f"the engine was sent {seen.headers}")

        if path not in (*ENGINE_ROUTES, "/health", "/metrics", "/models", "/v1/models"):
            self._problems.append(f"the engine was asked for {path}")

        self._log.append(seen)
        body = b'{"engine":%d}' % len(self._log)
        self._transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))


async def fuzz(cases: int, seed: int, workers: int = 32) -> Report:
    """Send that many mutated requests."""
    report = Report()
    complaints = _Complaints(report)
    logging.getLogger("orchestrator").addHandler(complaints)
    asyncio.get_running_loop().set_exception_handler(lambda _, context: report.problems.append((str(context), b"")))
    try:
        share = [cases // workers + (number < cases % workers) for number in range(workers)]
        await asyncio.gather(*(_work(report, count, seed * 1000 + at) for at, count in enumerate(share)))
    finally:
        logging.getLogger("orchestrator").removeHandler(complaints)

    return report


class _Complaints(logging.Handler):
    """A handler of a request that failed is a bug, whatever the client was told."""

    def __init__(self, report: Report) -> None:
        super().__init__(logging.ERROR)
        self._report = report

    def emit(self, record: logging.LogRecord) -> None:
        self._report.problems.append((self.format(record), b""))


async def _work(report: Report, cases: int, seed: int) -> None:
    """A gateway and an engine of its own, so that what arrives there is known to come from this case."""
    chance = random.Random(seed)
    log: list[Seen] = []
    wrong: list[str] = []
    server = await asyncio.get_running_loop().create_server(lambda: Engine(log, wrong), "127.0.0.1", 0)
    supervisor = Supervised()
    port = server.sockets[0].getsockname()[1]
    supervisor.show(serving=Endpoint("i-1", "demo", "upstream", "127.0.0.1", port, SECRET))
    options = GatewayOptions(limits=LIMITS)
    dispatcher = Dispatcher(options, supervisor, supervisor)
    gateway = Gateway(options, dispatcher, metrics_page, NotedRequests())
    sock = socket.create_server(("127.0.0.1", 0), backlog=64)
    address = sock.getsockname()
    await gateway.start([sock])
    try:
        for _ in range(cases):
            data = mutated(chance)
            del log[:], wrong[:]
            try:
                async with asyncio.timeout(PATIENCE_S):
                    told = await _exchange(address[1], data, chance)
            except TimeoutError:
                report.problems.append(("no end", data))
                continue

            report.cases += 1
            report.forwarded += len(log)
            report.statuses.update(match[1].decode() for match in re.finditer(rb"HTTP/1\.1 (\d{3}) ", told))
            report.problems += [(problem, data) for problem in (*wrong, *disagreements(data + END, log, told))]

        if dispatcher.active:
            report.problems.append((f"{dispatcher.active} requests never ended", b""))
    finally:
        server.close()
        await gateway.stop(0.0)


async def _exchange(port: int, data: bytes, chance: random.Random) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        cut = chance.randrange(len(data) + 1) if chance.random() < 0.3 else 0
        if cut:
            writer.write(data[:cut])
            await asyncio.sleep(0)

        writer.write(data[cut:] + END)
        return await reader.read()
    except ConnectionError:
        return b""
    finally:
        writer.transport.abort()


def disagreements(sent: bytes, reached: list[Seen], told: bytes) -> list[str]:
    """Where what reached the engine is not what a strict reader sees in what the client sent."""
    expected = [each for each in map(_at_the_engine, requests(sent)) if each is not None]
    at = 0
    for seen in reached:
        wanted = (seen.method, seen.target, seen.body)
        while at < len(expected) and expected[at] != wanted:
            at += 1

        if at == len(expected):
            return [f"the engine got {wanted}, expected only {expected}"]

        at += 1

    answers = [int(match[1]) for match in re.finditer(rb'\{"engine":(\d+)[,}]', told)]
    if answers != list(range(1, len(answers) + 1)) or len(answers) > len(reached):
        return [f"{len(reached)} requests reached the engine, and the client was told {answers}"]

    return []


def _at_the_engine(seen: Seen) -> tuple[bytes, bytes, bytes] | None:
    """Method, target and body as the engine should get them; None for what is not for an engine."""
    target = seen.target
    if not target.startswith(b"/"):
        target = b"/" + target.partition(b"://")[2].partition(b"/")[2]

    path, question, query = target.partition(b"?")
    try:
        match = find_route(seen.method.decode(), path.decode(), (DEMO, OTHER))
    except GatewayError:
        return None

    if not seen.complete or match.route.kind not in ("inference", "monitor"):
        return None

    suffix = question + query if query else b""
    return seen.method, match.path.encode() + suffix, seen.body
