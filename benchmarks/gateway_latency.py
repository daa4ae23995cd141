"""The cost of the gateway: the same requests sent to an engine directly and through it, in interleaved blocks.

Three processes beside this one share the machine: a fast engine stand-in, the gateway, and nothing else of ours. Blocks
alternate as direct, gateway, gateway, direct, so that a drift of the machine hits both sides alike. CPU time is the
gateway process's own, from the kernel's scheduler, in nanoseconds.

    python -m benchmarks.gateway_latency
    python -m benchmarks.gateway_latency --engine http://127.0.0.1:8081 --path /completion --body '{"prompt":"a"}'
    python -m benchmarks.gateway_latency --proxy './other-proxy --listen {listen} --to {upstream}'
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import shlex
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast
from urllib.parse import urlsplit

import httptools
import uvloop

from orchestrator.adapters.log.store import InstanceLog
from orchestrator.gateway.config import GatewayOptions
from orchestrator.gateway.contract import Endpoint, Finished, Model, RoutingView
from orchestrator.gateway.dispatch import Dispatcher
from orchestrator.gateway.server import Gateway

CHUNK_BYTES = 158
"""Size of one event of a chat completion stream with a short model name."""

SENT = b'data: {"sent":'

REPLY = json.dumps(
    {
        "choices": [{"finish_reason": "stop", "index": 0, "message": {"role": "assistant", "content": "word " * 20}}],
        "usage": {"prompt_tokens": 9, "completion_tokens": 20},
        "timings": {"prompt_n": 9, "prompt_ms": 1.5, "predicted_n": 20, "predicted_ms": 80.0},
    },
    separators=(",", ":"),
).encode()


class EngineStandIn(asyncio.Protocol):
    """Answers at once, or streams events at a fixed interval; no faster server can be written in Python."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._parser = httptools.HttpRequestParser(self)
        self._transport: asyncio.Transport
        self._body = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_body(self, data: bytes) -> None:
        self._body += data

    def on_message_complete(self) -> None:
        wanted, self._body = json.loads(self._body or b"{}"), b""
        if wanted.get("stream"):
            head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
            self._transport.write(head)
            self._stream(wanted["chunks"], wanted["interval_s"], hashlib.sha256())
        else:
            head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(REPLY)
            self._transport.write(head + REPLY)

    def _stream(self, left: int, interval_s: float, seen: hashlib._Hash) -> None:
        if left:
            # As llama-server's own stream: an event that carries a token, so that the gateway stops looking for one.
            event = (SENT + b'%d,"content":"' % time.monotonic_ns()).ljust(CHUNK_BYTES - 4, b".") + b'"}\n\n'
            seen.update(event)
            self._chunk(event)
            self._loop.call_later(interval_s, self._stream, left - 1, interval_s, seen)
        else:
            self._chunk(b": sha256 %b\n\n" % seen.hexdigest().encode())
            self._transport.write(b"0\r\n\r\n")

    def _chunk(self, data: bytes) -> None:
        self._transport.write(b"%x\r\n%b\r\n" % (len(data), data))


class Always:
    """A supervisor with one instance that is always ready."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._view = RoutingView(1, endpoint, None, "", (Model("demo", (), "", "loaded", 0),))

    def view(self) -> RoutingView:
        return self._view

    async def changed(self, generation: int) -> RoutingView:
        await asyncio.Event().wait()
        return self._view

    def finished(self, record: Finished) -> None:
        return

    def refused(self, code: str) -> None:
        return


async def no_metrics() -> bytes:
    return b""


async def run_engine(port: int) -> None:
    server = await asyncio.get_running_loop().create_server(EngineStandIn, "127.0.0.1", port, backlog=1024)
    await server.serve_forever()


class NothingManaged:
    """No client asks for a model to be loaded here."""

    async def load(self, profile: str) -> bool:
        return False

    async def unload(self, profile: str | None) -> list[str]:
        return []

    def recent(self) -> Sequence[Finished]:
        return ()

    def engine_log(self, profile: str | None) -> InstanceLog | None:
        return None

    def own_log(self) -> InstanceLog:
        return InstanceLog()


async def run_gateway(port: int, upstream: str) -> None:
    host, _, upstream_port = upstream.rpartition(":")
    supervisor = Always(Endpoint("i-1", "demo", "stand-in", host, int(upstream_port), "key"))
    options = GatewayOptions()
    gateway = Gateway(options, Dispatcher(options, supervisor, supervisor), no_metrics, NothingManaged())
    await gateway.start([socket.create_server(("127.0.0.1", port), backlog=1024)])
    await asyncio.Event().wait()


class Client(asyncio.Protocol):
    """One keep-alive connection that sends a prepared request and times the answer."""

    def __init__(self, request: bytes) -> None:
        self._request = request
        self._parser = httptools.HttpResponseParser(self)
        self._transport: asyncio.Transport
        self._done: asyncio.Future[None] | None = None
        self._sent_at = 0
        self._parts: list[bytes] = []
        self.latencies_ms: list[float] = []
        self.delays_ms: list[float] = []
        self.bodies: list[bytes] = []
        self.refused = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._done is not None and not self._done.done():
            self._done.set_exception(ConnectionError("the connection was lost"))

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_headers_complete(self) -> None:
        self.refused += self._parser.get_status_code() != 200

    def on_body(self, data: bytes) -> None:
        now = time.monotonic_ns()
        self._parts.append(data)
        if data.startswith(SENT):
            # A read may bring several events; each carries the time at which it was sent.
            for event in data.split(b"\n\n"):
                if event.startswith(SENT):
                    self.delays_ms.append((now - int(event[len(SENT) : event.index(b",")])) / 1e6)

    def on_message_complete(self) -> None:
        self.latencies_ms.append((time.monotonic_ns() - self._sent_at) / 1e6)
        self.bodies.append(b"".join(self._parts))
        self._parts = []
        if self._done is not None and not self._done.done():
            self._done.set_result(None)

    async def ask(self) -> None:
        self._done = asyncio.get_running_loop().create_future()
        self._sent_at = time.monotonic_ns()
        self._transport.write(self._request)
        await self._done

    def forget(self) -> None:
        self.latencies_ms, self.delays_ms, self.bodies = [], [], []

    def close(self) -> None:
        self._transport.close()


def changed(body: bytes) -> bool:
    """Return whether an answer of the stand-in differs from what it sent."""
    if not body.startswith(SENT):
        return body != REPLY

    events, _, digest = body.rpartition(b": sha256 ")
    return hashlib.sha256(events).hexdigest().encode() != digest.strip()


@dataclass
class Side:
    """The measurements of one side: a list for each of its blocks."""

    latencies_ms: list[list[float]] = field(default_factory=list)
    delays_ms: list[list[float]] = field(default_factory=list)
    wrong: int = 0
    wall_s: float = 0.0
    cpu_ns: int = 0


@dataclass(frozen=True)
class Load:
    """One kind of block.

    :param rate: requests a second over all clients; None: each client asks again as soon as it has its answer
    """

    name: str
    clients: int
    requests_each: int
    rate: float | None
    request: bytes
    blocks: int


def cpu_ns(pid: int) -> int:
    """CPU time of all threads of a process (/proc/PID/task/TID/schedstat: time on the CPU, in nanoseconds)."""
    return sum(int(path.read_text().split()[0]) for path in Path(f"/proc/{pid}/task").glob("*/schedstat"))


async def run_block(load: Load, port: int, pid: int, side: Side, *, known: bool) -> None:
    loop = asyncio.get_running_loop()
    clients = [
        (await loop.create_connection(lambda: Client(load.request), "127.0.0.1", port))[1] for _ in range(load.clients)
    ]

    if load.requests_each > 1:
        # Connections and caches are warm before anything is counted.
        await asyncio.gather(*(client.ask() for client in clients))
        for client in clients:
            client.forget()

    async def work(client: Client, begin: float, interval_s: float) -> None:
        for number in range(load.requests_each):
            if interval_s:
                await asyncio.sleep(max(0.0, begin + number * interval_s - time.monotonic()))

            await client.ask()

    interval_s = load.clients / load.rate if load.rate else 0.0
    cpu, began = cpu_ns(pid), time.monotonic()
    each = interval_s / load.clients
    await asyncio.gather(*(work(client, began + each * index, interval_s) for index, client in enumerate(clients)))
    side.wall_s += time.monotonic() - began
    side.cpu_ns += cpu_ns(pid) - cpu
    side.latencies_ms.append([value for client in clients for value in client.latencies_ms])
    side.delays_ms.append([value for client in clients for value in client.delays_ms])
    for client in clients:
        client.close()
        side.wrong += client.refused + (sum(changed(body) for body in client.bodies) if known else 0)


def percentile(values: Sequence[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


def report(load: Load, direct: Side, through: Side) -> dict[str, float | int | str]:
    """Figures of one load, each the median over its blocks.

    `added` is the median, over pairs of neighbouring blocks, of the difference of their percentiles: a disturbance that
    hits one block of many does not decide the figure.
    """
    delays = any(direct.delays_ms)
    theirs, ours = (side.delays_ms if delays else side.latencies_ms for side in (direct, through))
    units = sum(map(len, ours))
    figures: dict[str, float | int | str] = {"load": load.name, "count": units}
    for share in (0.5, 0.99):
        pairs = [(percentile(one, share), percentile(other, share)) for one, other in zip(theirs, ours, strict=True)]
        name = f"p{share * 100:g}_ms"
        figures[f"direct_{name}"] = round(statistics.median(pair[0] for pair in pairs), 3)
        figures[f"through_{name}"] = round(statistics.median(pair[1] for pair in pairs), 3)
        figures[f"added_{name}"] = round(statistics.median(pair[1] - pair[0] for pair in pairs), 3)

    figures["cpu_us_per_chunk" if delays else "cpu_us_per_request"] = round(through.cpu_ns / units / 1000, 1)
    figures["per_s"] = round(units / through.wall_s)
    figures["direct_per_s"] = round(sum(map(len, theirs)) / direct.wall_s)
    figures["wrong"] = direct.wrong + through.wrong
    return figures


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        return int(sock.getsockname()[1])


def wait_until_listening(port: int, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 10.0
    while time.monotonic() < deadline and process.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1.0).close()
        except OSError:
            time.sleep(0.02)
        else:
            return

    raise SystemExit(f"`{shlex.join(map(str, cast(list[str], process.args)))}` does not listen on port {port}")


def request_bytes(path: str, body: bytes) -> bytes:
    head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nAuthorization: Bearer x\r\n"
    return head.encode() + b"User-Agent: bench\r\nAccept: */*\r\nContent-Length: %d\r\n\r\n" % len(body) + body


def loads(args: argparse.Namespace) -> list[Load]:
    if args.engine:
        request = request_bytes(args.path, args.body.encode())
        return [Load("engine, one client", 1, args.requests, None, request, 4)]

    path = "/v1/chat/completions"
    message = {"model": "demo", "messages": [{"role": "user", "content": "hello " * 40}]}
    small = request_bytes(path, json.dumps(message).encode())
    wanted = {"stream": True, "chunks": args.chunks, "interval_s": 0.002, **message}
    stream = request_bytes(path, json.dumps(wanted).encode())
    each = max(2, round(args.rate * args.seconds / args.clients))
    return [
        Load(f"paced, {args.rate:g}/s", args.clients, each, args.rate, small, 8),
        Load("closed loop", args.clients, 60, None, small, 4),
        Load(f"{args.streams} streams, a chunk each 2 ms", args.streams, 1, None, stream, 4),
    ]


async def measure(args: argparse.Namespace, engine: tuple[int, int], proxy: tuple[int, int]) -> list[dict[str, object]]:
    results: list[dict[str, object]] = []
    for load in loads(args):
        sides = (Side(), Side())
        for number in range(load.blocks):
            # Direct, through, through, direct: a drift of the machine hits both sides alike.
            for which in (0, 1) if number % 2 == 0 else (1, 0):
                port, pid = (engine, proxy)[which]
                await run_block(load, port, pid or proxy[1], sides[which], known=not args.engine)

        results.append(dict(report(load, *sides)))

    return results


def show(results: list[dict[str, object]]) -> None:
    for result in results:
        unit = "chunk" if "cpu_us_per_chunk" in result else "request"
        print(f"\n{result['load']} ({result['count']} {unit}s through the gateway)")
        for name in ("p50_ms", "p99_ms"):
            print(
                f"  {name[:3]}  direct {result[f'direct_{name}']:>8} ms   through {result[f'through_{name}']:>8} ms"
                f"   added {result[f'added_{name}']:>8} ms"
            )

        print(f"  CPU of the gateway: {result[f'cpu_us_per_{unit}']} us for each {unit}")
        print(f"  {unit}s a second: direct {result['direct_per_s']}, through {result['per_s']}")
        print(f"  answers changed or refused: {result['wrong']}")


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", type=int, default=50, help="keep-alive connections (default 50)")
    parser.add_argument("--rate", type=float, default=400.0, help="requests a second in the paced blocks (default 400)")
    parser.add_argument("--seconds", type=float, default=1.0, help="length of a paced block (default 1)")
    parser.add_argument("--streams", type=int, default=8, help="concurrent streams (default 8)")
    parser.add_argument("--chunks", type=int, default=500, help="chunks of one stream (default 500)")
    parser.add_argument("--engine", metavar="URL", help="a real engine instead of the stand-in")
    parser.add_argument("--path", default="/completion", help="with --engine: the route to ask")
    parser.add_argument("--body", default='{"prompt":"a","n_predict":1}', help="with --engine: the body to send")
    parser.add_argument("--requests", type=int, default=100, help="with --engine: requests in a block (default 100)")
    parser.add_argument(
        "--proxy", metavar="COMMAND", help="measure another proxy; {listen} and {upstream} are filled in"
    )
    parser.add_argument("--json", action="store_true", help="print figures as JSON")
    parser.add_argument("--role", choices=("engine", "gateway"), help=argparse.SUPPRESS)
    parser.add_argument("--listen", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--upstream", help=argparse.SUPPRESS)
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    args = parse(argv)
    if args.role == "engine":
        uvloop.run(run_engine(args.listen))
    elif args.role == "gateway":
        uvloop.run(run_gateway(args.listen, args.upstream))

    me = [sys.executable, __file__]
    processes: list[subprocess.Popen[bytes]] = []

    def start(command: list[str], port: int) -> int:
        processes.append(subprocess.Popen(command))
        wait_until_listening(port, processes[-1])
        return processes[-1].pid

    try:
        if args.engine:
            url = urlsplit(args.engine)
            engine = (url.port or 80, 0)
        else:
            port = free_port()
            engine = (port, start([*me, "--role", "engine", "--listen", str(port)], port))

        listen, upstream = free_port(), f"127.0.0.1:{engine[0]}"
        command = [*me, "--role", "gateway", "--listen", str(listen), "--upstream", upstream]
        if args.proxy:
            command = shlex.split(args.proxy.format(listen=listen, upstream=upstream))

        results = uvloop.run(measure(args, engine, (listen, start(command, listen))))
    finally:
        for process in processes:
            process.terminate()
            process.wait()

    if args.json:
        print(json.dumps(results))
    else:
        show(results)

    return 1 if any(result["wrong"] for result in results) else 0


if __name__ == "__main__":
    sys.exit(main())
