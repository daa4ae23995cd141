"""A core task that dies ends the daemon, and the watchdog hears only of a daemon that is whole."""

from __future__ import annotations

import subprocess
import sys

import anyio
import pytest

from orchestrator.daemon.process.heartbeat import CoreTaskDied, CoreTasks, Heartbeat
from tests.unit.daemon.running_owner import until

PERIOD_S = 0.3


async def for_ever() -> None:
    await anyio.sleep_forever()


async def fails() -> None:
    raise ValueError("a bug")


async def ends() -> None:
    pass


@pytest.mark.asyncio
async def test_a_core_task_that_fails_ends_its_group_with_its_name_and_reason(caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(ExceptionGroup) as caught:
        async with anyio.create_task_group() as tasks:
            core = CoreTasks(tasks)
            core.start("owner", for_ever)
            core.start("watcher", fails)

    [died] = caught.value.exceptions
    assert isinstance(died, CoreTaskDied)
    assert died.message == "the task `watcher` died: ValueError('a bug')"
    assert "ValueError: a bug" in caplog.text
    assert core.running == set()


@pytest.mark.asyncio
async def test_a_core_task_that_returns_has_died_too() -> None:
    with pytest.raises(ExceptionGroup) as caught:
        async with anyio.create_task_group() as tasks:
            CoreTasks(tasks).start("owner", ends)

    [died] = caught.value.exceptions
    assert isinstance(died, CoreTaskDied)
    assert died.message == "the task `owner` ended, and should not"


@pytest.mark.asyncio
async def test_a_core_task_that_is_cancelled_is_no_death() -> None:
    async with anyio.create_task_group() as tasks:
        core = CoreTasks(tasks)
        core.start("owner", for_ever)
        await anyio.lowlevel.checkpoint()
        assert core.running == {"owner"}
        tasks.cancel_scope.cancel()

    assert core.running == set()


@pytest.mark.asyncio
async def test_each_ping_follows_a_proof_of_life() -> None:
    said: list[str] = []
    enough = anyio.Event()

    async def prove() -> None:
        said.append("proof")

    def ping() -> None:
        said.append("ping")
        if said.count("ping") == 3:
            enough.set()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(Heartbeat(prove, CoreTasks(tasks), ping, PERIOD_S).run)
        with anyio.fail_after(20):
            await enough.wait()

        tasks.cancel_scope.cancel()

    assert said[:6] == ["proof", "ping"] * 3


@pytest.mark.asyncio
async def test_an_owner_that_takes_no_event_is_not_reported_alive(caplog: pytest.LogCaptureFixture) -> None:
    proofs, pings = 0, 0
    enough = anyio.Event()

    async def prove() -> None:
        nonlocal proofs
        proofs += 1
        if proofs == 3:
            enough.set()

        await anyio.sleep_forever()

    def ping() -> None:
        nonlocal pings
        pings += 1

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(Heartbeat(prove, CoreTasks(tasks), ping, PERIOD_S).run)
        with anyio.fail_after(20):
            await enough.wait()

        tasks.cancel_scope.cancel()

    assert pings == 0
    assert "the owner has taken no event for 0.1 s" in caplog.text


@pytest.mark.asyncio
async def test_a_missing_core_task_silences_the_watchdog_and_is_named(caplog: pytest.LogCaptureFixture) -> None:
    pings = 0

    async def prove() -> None:
        raise AssertionError("no proof is asked for while a task is missing")

    def ping() -> None:
        nonlocal pings
        pings += 1

    async with anyio.create_task_group() as tasks:
        core = CoreTasks(tasks)
        core.running |= {"owner", "watcher"}
        heartbeat = Heartbeat(prove, core, ping, PERIOD_S)
        core.running.discard("watcher")
        tasks.start_soon(heartbeat.run)
        await until(lambda: "watcher is gone" in caplog.text)
        tasks.cancel_scope.cancel()

    assert pings == 0


def test_an_end_that_takes_too_long_is_cut_off_with_the_threads_places() -> None:
    program = (
        "import threading; from orchestrator.daemon.process.heartbeat import end_within\n"
        "end_within(0.1); threading.Event().wait(30)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=50, check=False)
    assert done.returncode == 1
    assert "the daemon did not end in time" in done.stderr
    assert "Thread 0x" in done.stderr


def test_an_end_in_time_is_not_disturbed() -> None:
    program = "from orchestrator.daemon.process.heartbeat import end_within; end_within(30)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=25, check=False)
    assert (done.returncode, done.stderr) == (0, "")
