"""What a service manager hears, on a socket of its own."""

from __future__ import annotations

import os
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import anyio
import pytest

from orchestrator.adapters.systemd.notify import Notifier
from orchestrator.daemon.fleet.engine_run import EngineRuns
from orchestrator.daemon.fleet.owner import Owner
from orchestrator.daemon.fleet.router import Router
from orchestrator.daemon.process.manager_link import EXTEND_S, ManagerLink, status_line
from tests.unit.core.fleet.lifecycle_machine import BAD_MODEL, machine_in
from tests.unit.daemon.running_owner import NotedEffects, make_failed, request_start, running_owner, until

URL = "http://127.0.0.1:8080"
READY = f"READY=1\nMAINPID={os.getpid()}"


@dataclass
class Heard:
    """A link whose owner runs, and the manager's end of its socket."""

    link: ManagerLink
    owner: Owner
    effects: NotedEffects
    manager: socket.socket | None

    def messages(self) -> list[str]:
        """Return what was sent since the last time."""
        found: list[str] = []
        while self.manager is not None:
            try:
                found.append(self.manager.recv(4096).decode())
            except BlockingIOError:
                break

        return found


@pytest.fixture
def manager() -> Iterator[socket.socket]:
    name = f"\0orch-test-{os.getpid()}-{os.urandom(4).hex()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(name)
        sock.setblocking(False)
        yield sock


@asynccontextmanager
async def linked(manager: socket.socket | None) -> AsyncIterator[Heard]:
    notifier = Notifier("@" + manager.getsockname()[1:].decode() if manager is not None else "")
    try:
        async with running_owner() as (owner, effects):
            link = ManagerLink(notifier, owner, Router(owner, EngineRuns(), on_request=True), URL)
            assert link.connected is (manager is not None)
            yield Heard(link, owner, effects, manager)
    finally:
        notifier.close()


@pytest.mark.asyncio
async def test_ready_is_said_with_the_process_and_one_line_of_status(manager: socket.socket) -> None:
    async with linked(manager) as heard:
        heard.link.ready()
        assert heard.messages() == [f"{READY}\nSTATUS=no model is loaded; {URL}"]


@pytest.mark.asyncio
async def test_nothing_is_ready_once_the_daemon_stops(manager: socket.socket) -> None:
    async with linked(manager) as heard:
        heard.link.stopping()
        heard.link.ready()
        assert heard.messages() == [f"STOPPING=1\nSTATUS=stopping; no model is loaded; {URL}"]


@pytest.mark.asyncio
async def test_a_reload_ends_in_ready_with_what_was_wrong(manager: socket.socket) -> None:
    async with linked(manager) as heard:
        heard.link.ready()
        heard.messages()
        heard.link.reloading()
        heard.link.reloaded("orch.toml is wrong")
        reloading, remark, ready = heard.messages()
        assert reloading.startswith("RELOADING=1\nMONOTONIC_USEC=")
        assert remark == f"STATUS=orch.toml is wrong; no model is loaded; {URL}"
        assert ready == f"{READY}\n{remark}"


@pytest.mark.asyncio
async def test_a_reload_before_ready_does_not_say_ready(manager: socket.socket) -> None:
    async with linked(manager) as heard:
        heard.link.reloaded("")
        assert not any("READY" in each for each in heard.messages())


@pytest.mark.asyncio
async def test_a_remark_goes_when_the_state_is_another_one(manager: socket.socket) -> None:
    async with linked(manager) as heard:
        heard.link.remark("something is odd")
        await make_failed(heard.owner, heard.effects)
        heard.link.ready()
        remark, ready = heard.messages()
        assert remark.startswith("STATUS=something is odd; ")
        assert ready.endswith(f"STATUS=a@upstream failed: the file is no GGUF; {URL}")


@pytest.mark.asyncio
async def test_the_status_follows_the_state(manager: socket.socket) -> None:
    async with linked(manager) as heard, anyio.create_task_group() as tasks:
        tasks.start_soon(heard.link.follow)
        await heard_message(heard, f"STATUS=no model is loaded; {URL}")
        await make_failed(heard.owner, heard.effects)
        await heard_message(heard, f"STATUS=a@upstream failed: the file is no GGUF; {URL}")
        tasks.cancel_scope.cancel()


@pytest.mark.asyncio
async def test_a_manager_that_was_busy_is_told_the_status_later_though_nothing_changes(manager: socket.socket) -> None:
    async with linked(manager) as heard, anyio.create_task_group() as tasks:
        while heard.link.connected and heard.link._notifier.try_send("WATCHDOG=1"):
            pass  # until its queue is full

        tasks.start_soon(heard.link.follow)
        await anyio.wait_all_tasks_blocked()
        assert set(heard.messages()) == {"WATCHDOG=1"}
        await heard_message(heard, f"STATUS=no model is loaded; {URL}")
        tasks.cancel_scope.cancel()


async def heard_message(heard: Heard, message: str) -> None:
    await until(lambda: message in heard.messages())


@pytest.mark.asyncio
async def test_a_model_that_does_not_come_up_is_a_failed_start_and_meanwhile_time_is_asked_for(
    manager: socket.socket,
) -> None:
    async with linked(manager) as heard:
        instance = await request_start(heard.owner, heard.effects)
        found = []

        async def wait() -> None:
            found.append(await heard.link.until_loaded())

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(wait)
            await heard_message(heard, f"EXTEND_TIMEOUT_USEC={round(EXTEND_S * 1e6)}")
            assert instance and not found
            await make_failed(heard.owner, heard.effects)

        assert found == [BAD_MODEL]


@pytest.mark.asyncio
async def test_without_a_start_nothing_is_waited_for(manager: socket.socket) -> None:
    async with linked(manager) as heard:
        assert await heard.link.until_loaded() is None


@pytest.mark.asyncio
async def test_without_a_manager_everything_is_silent() -> None:
    async with linked(None) as heard:
        heard.link.ready()
        heard.link.ping()
        async with heard.link.more_time():
            heard.link.stopping()

        assert heard.messages() == []


@pytest.mark.parametrize(
    ("state", "line"),
    [
        ("stopped", f"no model is loaded; {URL}"),
        ("starting", f"loading a; {URL}"),
        ("ready", f"loading a; {URL}"),
    ],
)
def test_the_line_says_the_progress_while_there_is_one(state: str, line: str) -> None:
    assert status_line(machine_in(state).state, "loading a", URL) == line


def test_the_line_says_how_many_serve_beside_the_one_in_focus() -> None:
    assert status_line(machine_in("ready").state, "ready a", URL, beside=2) == f"ready a; 2 more are ready; {URL}"
