"""A gateway between raw sockets: engines that are scripted byte by byte, and clients that see every byte."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import json
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, cast

import uvloop

from orchestrator.adapters.log.store import InstanceLog
from orchestrator.api.top_frames import HostFigures, Rates
from orchestrator.core.fleet.routing_states import ResidentRoute
from orchestrator.gateway.config import GatewayOptions
from orchestrator.gateway.contract import Endpoint, Finished, Model, Refusal, RoutingView
from orchestrator.gateway.dispatch import Dispatcher
from orchestrator.gateway.page.contract import PageFrame, PageModel, PagePoint
from orchestrator.gateway.server import Gateway

PATIENCE_S = 60.0
"""How long any wait may take before a test fails; nothing here is expected to come near it."""

DEMO = Model("demo", ("demo-alias", "org/demo"), "a small model", "loaded", 1700000000)
OTHER = Model("other", (), "another model", "unloaded", 1700000000)
LOADING = RoutingView(1, None, None, "loading demo", (DEMO, OTHER))

Script = Callable[["Visit"], Awaitable[None]]


def drive(work: Coroutine[Any, Any, None]) -> None:
    """Run a test's body on the daemon's event loop."""

    async def bounded() -> None:
        try:
            async with asyncio.timeout(PATIENCE_S * 2):
                await work
        finally:
            await _close_clients()

    uvloop.run(bounded())


class Supervised:
    """A supervisor whose view a test sets; it keeps the records of the requests that ended."""

    def __init__(self, view: RoutingView = LOADING) -> None:
        self._view = view
        self._changed = asyncio.Event()
        self.records: list[Finished] = []
        self.refusals: list[str] = []
        self.looks = 0

    def view(self) -> RoutingView:
        self.looks += 1
        return self._view

    async def changed(self, generation: int) -> RoutingView:
        while self._view.generation <= generation:
            await self._changed.wait()

        return self._view

    def finished(self, record: Finished) -> None:
        self.records.append(record)

    def refused(self, code: str) -> None:
        self.refusals.append(code)

    def show(self, *, serving: Endpoint | None = None, refusal: Refusal | None = None, progress: str = "") -> None:
        self._become(replace(self._view, serving=serving, refusal=refusal, progress=progress))

    def show_models(self, *models: Model) -> None:
        """Show these models; all else stays as it is."""
        self._become(replace(self._view, models=models))

    def show_beside(self, **others: ResidentRoute) -> None:
        """Show these residents beside the focus, which stays as it is."""
        self._become(replace(self._view, others=others))

    def _become(self, view: RoutingView) -> None:
        self._view = replace(view, generation=self._view.generation + 1)
        self._changed.set()
        self._changed = asyncio.Event()


@dataclass
class Visit:
    """One request as the engine received it, and the connection to answer on."""

    head: bytes
    body: bytes
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    connection: int

    @property
    def line(self) -> str:
        return self.head.split(b"\r\n")[0].decode()

    @property
    def headers(self) -> dict[str, str]:
        lines = self.head.decode("latin-1").split("\r\n")[1:]
        return {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines if line)}

    async def send(self, *parts: bytes) -> None:
        self.writer.writelines(parts)
        await self.writer.drain()

    async def answer(self, body: bytes, *, status: str = "200 OK", kind: str = "application/json") -> None:
        head = f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n"
        await self.send(head.encode() + body)

    async def begin_stream(self) -> None:
        await self.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")

    async def chunk(self, data: bytes) -> None:
        await self.send(b"%x\r\n%b\r\n" % (len(data), data))

    async def end_stream(self) -> None:
        await self.send(b"0\r\n\r\n")

    async def gone(self) -> None:
        """Return when the other side has closed."""
        with contextlib.suppress(ConnectionError):
            await self.reader.read()

    def hang_up(self) -> None:
        self.writer.transport.abort()


@dataclass
class Engine:
    """A scripted engine: every request is one visit."""

    script: Script
    port: int = 0
    visits: list[Visit] = field(default_factory=list)
    connections: int = 0
    open: int = 0

    def endpoint(self, instance: str = "i-1", profile: str = "demo") -> Endpoint:
        return Endpoint(instance, profile, "upstream", "127.0.0.1", self.port, "engine-secret")

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.open += 1
        connection = self.connections
        try:
            while not writer.is_closing():
                head = await reader.readuntil(b"\r\n\r\n")
                visit = Visit(head[:-2], b"", reader, writer, connection)
                visit.body = await reader.readexactly(int(visit.headers.get("content-length", "0")))
                self.visits.append(visit)
                await self.script(visit)
        except (asyncio.IncompleteReadError, ConnectionError):
            return  # the gateway closed its connection
        finally:
            self.open -= 1
            await _closed(writer)


@contextlib.asynccontextmanager
async def engine(script: Script) -> AsyncIterator[Engine]:
    made = Engine(script)
    tasks: set[asyncio.Task[None]] = set()

    def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.get_running_loop().create_task(made.serve(reader, writer))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    server = await asyncio.start_server(connected, "127.0.0.1", 0, limit=2**20, backlog=1024)
    made.port = server.sockets[0].getsockname()[1]
    try:
        yield made
    finally:
        server.close()
        for task in tuple(tasks):
            task.cancel()

        await asyncio.gather(*tasks, return_exceptions=True)


@dataclass
class Running:
    gateway: Gateway
    dispatcher: Dispatcher
    supervisor: Supervised
    port: int


class NotedRequests:
    """Notes what clients want loaded and unloaded.

    :ivar loaded: what is
    :ivar logs: by model; that of all engines for None
    """

    def __init__(self, *loaded: str, recent: Sequence[Finished] = ()) -> None:
        self.logs: dict[str | None, InstanceLog] = {None: InstanceLog()}
        self.own = InstanceLog()
        self.loaded = list(loaded)
        self._recent = recent

    async def load(self, profile: str) -> bool:
        if profile in self.loaded:
            return False

        self.loaded.append(profile)
        return True

    async def unload(self, profile: str | None) -> list[str]:
        ended = [name for name in self.loaded if profile in (None, name)]
        self.loaded = [name for name in self.loaded if name not in ended]
        return ended

    def recent(self) -> Sequence[Finished]:
        return self._recent

    def engine_log(self, profile: str | None) -> InstanceLog | None:
        return self.logs.get(profile)

    def own_log(self) -> InstanceLog:
        return self.own


class ShownPage:
    """What the gateway's page is given to show; a test changes it. Notes what is to be switched to."""

    def __init__(self, *models: PageModel) -> None:
        self.now = page_frame(*models)
        self.lines: list[str] = []
        self.made = 0
        self.switched: list[str] = []

    def change(self, **fields: Any) -> None:
        """Show other values for some fields."""
        self.now = cast(PageFrame, {**self.now, **fields})

    async def frame(self) -> PageFrame:
        self.made += 1
        return copy.deepcopy(self.now)

    def points(self) -> list[PagePoint]:
        return [PagePoint(at_s=1700000000.0, decode_tok_s=12.5)]

    def log_lines(self, after: int | None) -> tuple[int, Sequence[str]]:
        return len(self.lines) - 1, self.lines[0 if after is None else after + 1 :]

    async def switch(self, profile: str) -> None:
        self.switched.append(profile)


def page_model(name: str, **more: Any) -> PageModel:
    """One model that is not loaded, with other values for some fields."""
    nothing: dict[str, Any] = {
        "name": name, "description": "", "names": [], "context_tokens": 4096, "size_bytes": 1 << 30,
        "state": "unloaded", "engine": None, "focus": False, "pinned": False, "idle_s": None, "in_flight": 0,
        "queued": 0, "device_mib": None, "host_mib": None, "waits": None, "cause": None, "hint": None, "progress": "",
        "ui": False,
    }  # fmt: skip
    return cast(PageModel, nothing | more)


def page_frame(*models: PageModel) -> PageFrame:
    """What the page shows where nothing happens."""
    return PageFrame(
        state="ready", profile="demo", engine="upstream", build="b1", progress="ready demo", cause=None, hint=None,
        notice=None, switching=False, queued=0, in_flight=0,
        rates=Rates(decode_tok_s=42.0, prompt_tok_s=None, draft_acceptance=0.7, processing=0, deferred=0, kv_used=None),
        gpus=[],
        host=HostFigures(
            memory_total_mib=16000, memory_available_mib=9000, swap_used_mib=0, pressure_some=None, pressure_full=None,
            model_mib=None, model_resident_mib=None, engine_rss_mib=700,
        ),
        models=[*models], requests=[],
    )  # fmt: skip


async def metrics_page() -> bytes:
    return b"orch_up 1\n"


@contextlib.asynccontextmanager
async def gateway(
    supervisor: Supervised | None = None,
    config: GatewayOptions | None = None,
    manager: NotedRequests | None = None,
    page: ShownPage | None = None,
) -> AsyncIterator[Running]:
    supervisor = supervisor or Supervised()
    options = config or GatewayOptions()
    dispatcher = Dispatcher(options, supervisor, supervisor)
    made = Gateway(options, dispatcher, metrics_page, manager or NotedRequests(), page)
    sock = socket.create_server(("127.0.0.1", 0))
    await made.start([sock])
    try:
        yield Running(made, dispatcher, supervisor, sock.getsockname()[1])
    finally:
        await made.stop(0.0)


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Client:
    """One connection to the gateway; closed at the latest when the test ends."""

    opened: ClassVar[list[Client]] = []

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.opened.append(self)

    @classmethod
    async def open(cls, port: int, *, receive_buffer: int | None = None) -> Client:
        sock = socket.socket()
        if receive_buffer is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)

        sock.setblocking(False)
        await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", port))
        return cls(*await asyncio.open_connection(sock=sock, limit=2**16))

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def head(self) -> tuple[int, dict[str, str]]:
        head = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        lines = head.split("\r\n")
        headers = {
            name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:] if line)
        }
        return int(lines[0].split(" ")[1]), headers

    async def chunk(self) -> bytes:
        """The next chunk of a chunked body; empty at its end."""
        size = int(await self.reader.readuntil(b"\r\n"), 16)
        return (await self.reader.readexactly(size + 2))[:-2]

    async def chunks(self) -> bytes:
        parts = []
        while part := await self.chunk():
            parts.append(part)

        return b"".join(parts)

    async def answer(self) -> Answer:
        status, headers = await self.head()
        if headers.get("transfer-encoding") == "chunked":
            return Answer(status, headers, await self.chunks())

        if "content-length" in headers:
            return Answer(status, headers, await self.reader.readexactly(int(headers["content-length"])))

        return Answer(status, headers, await self.reader.read())

    def close(self) -> None:
        self.writer.close()


def post(path: str, body: object, *headers: str, host: str = "127.0.0.1") -> bytes:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    kind = (
        () if any(line.lower().startswith("content-type") for line in headers) else ("Content-Type: application/json",)
    )
    lines = [f"POST {path} HTTP/1.1", f"Host: {host}", *kind, *headers, f"Content-Length: {len(data)}", "", ""]
    return "\r\n".join(lines).encode() + data


def get(path: str, *headers: str, host: str = "127.0.0.1", method: str = "GET") -> bytes:
    return "\r\n".join([f"{method} {path} HTTP/1.1", f"Host: {host}", *headers, "", ""]).encode()


async def ask(port: int, request: bytes) -> Answer:
    """One request on a connection of its own."""
    client = await Client.open(port)
    try:
        await client.send(request)
        return await client.answer()
    finally:
        client.close()


async def exchange(port: int, data: bytes) -> bytes:
    """Send bytes, and read until the server closes."""
    client = await Client.open(port)
    try:
        await client.send(data)
        async with asyncio.timeout(PATIENCE_S):
            return await client.reader.read()
    finally:
        client.close()


async def until(condition: Callable[[], object]) -> None:
    """Wait until a condition holds; it is about another task's progress, so it is looked at again and again."""
    async with asyncio.timeout(PATIENCE_S):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.002)


async def _closed(writer: asyncio.StreamWriter) -> None:
    writer.close()
    with contextlib.suppress(ConnectionError):
        await writer.wait_closed()


async def _close_clients() -> None:
    while Client.opened:
        await _closed(Client.opened.pop().writer)
