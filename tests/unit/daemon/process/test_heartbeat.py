"""A core task that dies ends the daemon, and the watchdog hears only of a daemon that is whole."""

from __future__ import annotations

import subprocess
import sys

import anyio
import pytest

from orchestrator.daemon.process import heartbeat
from orchestrator.daemon.process.heartbeat import CoreTaskDied, CoreTasks, Heartbeat
from tests.unit.daemon.running_owner import until

PERIOD_S = 0.3


async def for_ever() -> None:
    await anyio.sleep_forever()


async def fails() -> None:
    raise AssertionError("a bug")


def unsaid(kind: str, text: str) -> None:
    raise AssertionError((kind, text))


async def ends() -> None:
    pass


@pytest.mark.asyncio
async def test_a_core_task_that_fails_ends_its_group_with_its_name_and_reason(caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(ExceptionGroup) as caught:
        async with anyio.create_task_group() as tasks:
            core = CoreTasks(tasks, unsaid)
            core.start("owner", for_ever)
            core.start("watcher", fails)

    [died] = caught.value.exceptions
    assert isinstance(died, CoreTaskDied)
    assert died.message == "the task `watcher` died: AssertionError('a bug')"
    assert "AssertionError: a bug" in caplog.text
    assert core.running == set()


OUTSIDE = (
    OSError(28, "No space left on device"),
    RuntimeError("can't start new thread"),
    ValueError("an engine's answer"),
    UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte"),
    RecursionError("nested too deeply"),
    KeyError("missing"),
    MemoryError(),
    ExceptionGroup("of two tasks", [OSError(24, "Too many open files"), ValueError("no")]),
)


@pytest.mark.asyncio
@pytest.mark.parametrize("error", OUTSIDE, ids=lambda error: type(error).__name__)
async def test_a_core_task_outlives_what_comes_from_outside_and_says_so(
    error: Exception, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(heartbeat, "AGAIN_S", 0.01)
    said: list[tuple[str, str]] = []
    times = 0

    async def fails_twice() -> None:
        nonlocal times
        times += 1
        if times <= 2:
            raise error

        await anyio.sleep_forever()

    with anyio.fail_after(10):
        async with anyio.create_task_group() as tasks:
            core = CoreTasks(tasks, lambda kind, text: said.append((kind, text)))
            core.start("watcher", fails_twice)
            await until(lambda: times == 3)
            assert core.running == {"watcher"}
            tasks.cancel_scope.cancel()

    assert [kind for kind, _ in said] == ["task_failed"] * 2
    assert all("`watcher`" in text for _, text in said)
    assert caplog.text.count("Traceback") >= 2


@pytest.mark.asyncio
async def test_the_wait_grows_while_a_task_fails_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []
    sleep = anyio.sleep

    async def counted(delay_s: float) -> None:
        waits.append(delay_s)
        await sleep(0)

    async def fails_always() -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(anyio, "sleep", counted)
    async with anyio.create_task_group() as tasks:
        CoreTasks(tasks, lambda kind, text: None).start("watcher", fails_always)
        while len(waits) < 8:
            await sleep(0.001)

        tasks.cancel_scope.cancel()

    assert waits[:8] == [1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0, 30.0]


@pytest.mark.asyncio
async def test_the_owner_never_begins_again() -> None:
    async def fails_outside() -> None:
        raise OSError(5, "Input/output error")

    with pytest.raises(ExceptionGroup):
        async with anyio.create_task_group() as tasks:
            CoreTasks(tasks, unsaid).start("owner", fails_outside, again=False)


@pytest.mark.asyncio
async def test_a_core_task_that_returns_has_died_too() -> None:
    with pytest.raises(ExceptionGroup) as caught:
        async with anyio.create_task_group() as tasks:
            CoreTasks(tasks, unsaid).start("owner", ends)

    [died] = caught.value.exceptions
    assert isinstance(died, CoreTaskDied)
    assert died.message == "the task `owner` ended, and should not"


@pytest.mark.asyncio
async def test_a_core_task_that_is_cancelled_is_no_death() -> None:
    async with anyio.create_task_group() as tasks:
        core = CoreTasks(tasks, unsaid)
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
        tasks.start_soon(Heartbeat(prove, CoreTasks(tasks, unsaid), ping, PERIOD_S).run)
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
        tasks.start_soon(Heartbeat(prove, CoreTasks(tasks, unsaid), ping, PERIOD_S).run)
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
        core = CoreTasks(tasks, unsaid)
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
