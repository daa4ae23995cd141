from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from uuid import uuid4

import pytest
import uvloop

from orchestrator.adapters.process import linux, reaper
from orchestrator.adapters.process.child import Exit, spawn
from orchestrator.adapters.process.guard import OrphanGuard, home_id, sweep_leftovers
from orchestrator.adapters.process.spawning import SHIM
from orchestrator.adapters.store.lock import DaemonLock, read_holder
from tests.busy import in_time
from tests.integration.processes import FAKES, INSTANCE, Lines, alive, shell, until, zombies
from tests.support import PATIENCE_S
from tests.support import until as until_sync

EVERY_LOOP = pytest.mark.parametrize("runner", ["asyncio", "uvloop"], indirect=True)

ROOT = Path(__file__).parents[2]


@pytest.fixture
def runner(request: pytest.FixtureRequest) -> Iterator[asyncio.Runner]:
    on_uvloop = getattr(request, "param", "uvloop") == "uvloop"
    with asyncio.Runner(loop_factory=uvloop.new_event_loop if on_uvloop else None) as made:
        yield made


@pytest.fixture(autouse=True)
def adopted_are_reaped() -> Iterator[None]:
    linux.become_subreaper()
    yield
    until_sync(lambda: not (reaper.reap_adopted() or zombies()), "the reaping of the adopted")


class LittleDaemon:
    def __init__(self, process: subprocess.Popen[bytes], daemon_id: str, home: str, guard: int) -> None:
        self.process = process
        self.tag = f"ORCH_DAEMON={daemon_id}".encode()
        self.home = home
        self.guard = guard

    def tagged(self) -> list[int]:
        return linux.find_tagged(self.tag)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


@contextmanager
def little_daemon(*options: str, home: str | None = None) -> Iterator[LittleDaemon]:
    daemon_id, home = uuid4().hex, home or uuid4().hex
    process = subprocess.Popen(
        [sys.executable, FAKES / "little_daemon.py", daemon_id, home, *options],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert process.stdout is not None
    daemon = LittleDaemon(process, daemon_id, home, 0)
    try:
        daemon.guard = json.loads(process.stdout.readline())["guard"]
        yield daemon
    finally:
        daemon.kill()
        process.stdout.close()
        if daemon.guard and alive(daemon.guard):
            os.kill(daemon.guard, signal.SIGKILL)

        until_sync(lambda: not linux.kill_tagged(daemon.tag), "the end of what the test has started")


def test_nothing_outlives_a_daemon_that_is_killed_for_more_than_two_seconds() -> None:
    with little_daemon() as daemon:
        assert len(daemon.tagged()) >= 7  # four engines, of which one is a wrapper and two have let a grandchild go
        daemon.kill()
        until_sync(lambda: not daemon.tagged(), "no tagged process", 2.0)
        until_sync(lambda: not alive(daemon.guard), "the end of the guard", 3.0)


def test_the_guard_survives_what_is_sent_to_end_the_daemon() -> None:
    with little_daemon() as daemon:
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            os.kill(daemon.guard, number)

        daemon.kill()
        until_sync(lambda: not daemon.tagged(), "no tagged process", 2.0)


def test_a_daemon_without_a_guard_leaves_only_what_the_next_start_sweeps() -> None:
    with little_daemon("--no-guard") as daemon, little_daemon() as other_home:
        bystanders = set(other_home.tagged())
        daemon.kill()
        until_sync(lambda: len(daemon.tagged()) == 3, "engines dead with their parent, their grandchildren left")
        left = set(daemon.tagged())
        assert set(sweep_leftovers(daemon.home)) == left
        assert daemon.tagged() == []
        assert sweep_leftovers(daemon.home) == []
        assert set(other_home.tagged()) == bystanders
        assert other_home.process.poll() is None


def test_a_second_daemon_of_the_same_home_outlives_the_guard_of_the_first() -> None:
    with little_daemon() as first, little_daemon(home=first.home) as second:
        before = set(second.tagged())
        first.kill()
        until_sync(lambda: not alive(first.guard), "the end of the first guard", 3.0)
        assert first.tagged() == []
        assert set(second.tagged()) == before


def test_a_guard_that_is_killed_is_started_again_and_knows_what_the_first_knew(runner: asyncio.Runner) -> None:
    async def scenario() -> None:
        deaths: list[int] = []
        guard = OrphanGuard(uuid4().hex, uuid4().hex, on_death=lambda: deaths.append(guard.pid))
        await guard.start()
        # Without a tag: only by what the guard is told can it find this one.
        child = await spawn(shell("exec env -i sleep 1000"), Lines(), guard)
        await until(lambda: not linux.has_tag(child.pid, f"ORCH_INSTANCE={INSTANCE}".encode()), "the tag is gone")
        first = guard.pid
        os.kill(first, signal.SIGKILL)
        await until(lambda: guard.pid != first, "another guard")
        assert deaths == [first]
        await guard.close()
        assert await asyncio.wait_for(child.wait(), PATIENCE_S) == Exit(None, signal.SIGKILL)
        assert linux.children_of_self() == []

    runner.run(scenario())


@EVERY_LOOP
def test_a_guard_that_is_closed_has_killed_what_was_left_and_is_gone(runner: asyncio.Runner) -> None:
    async def scenario() -> None:
        guard = OrphanGuard(uuid4().hex, uuid4().hex)
        await guard.start()
        stopped = await spawn(shell("exec sleep 1000", "one"), Lines(), guard)
        forgotten = await spawn(shell("exec sleep 1000", "two"), Lines(), guard)
        assert await stopped.stop(1.0) == Exit(None, signal.SIGTERM)
        assert alive(guard.pid)
        await asyncio.gather(guard.close(), guard.close())
        assert not alive(guard.pid)
        assert await asyncio.wait_for(forgotten.wait(), PATIENCE_S) == Exit(None, signal.SIGKILL)

    runner.run(scenario())


def test_a_guard_that_no_longer_reads_is_replaced(runner: asyncio.Runner) -> None:
    async def scenario() -> None:
        guard = OrphanGuard(uuid4().hex, uuid4().hex)
        await guard.start()
        first = guard.pid
        os.kill(first, signal.SIGSTOP)
        for _ in range(5000):
            guard.track("x" * 60, 1 << 30, 1 << 30, 0)

        await until(lambda: guard.pid != first, "another guard")
        await guard.close()

    runner.run(scenario())


def test_the_guard_does_not_signal_a_process_that_it_was_told_wrong_about(runner: asyncio.Runner) -> None:
    async def scenario() -> None:
        innocent = _innocent()
        try:
            stat = linux.stat_of(innocent.pid)
            assert stat is not None
            guard = OrphanGuard(uuid4().hex, uuid4().hex)
            await guard.start()
            guard.track("reused", innocent.pid, innocent.pid, stat.start_ticks - 1)
            await guard.close()
            assert innocent.poll() is None
        finally:
            innocent.kill()
            innocent.communicate()

    runner.run(scenario())


def _innocent() -> subprocess.Popen[bytes]:
    return subprocess.Popen(["/bin/sleep", "1000"], stdin=subprocess.PIPE, start_new_session=True)


def test_an_engine_is_not_executed_when_the_daemon_died_before_it_could_be_told(tmp_path: Path) -> None:
    """The shim is held before its first instruction, its parent is killed, and then it goes on."""
    marker = tmp_path / "executed"
    report = tmp_path / "report"
    inner = f'kill -STOP $$; exec {sys.executable} -I -S {SHIM} "$PPID" 0 3 - -- /bin/touch {marker} 3>{report}'
    parent = subprocess.Popen(
        ["/bin/sh", "-c", 'sh -c "$0" & echo $!; wait', inner], stdout=subprocess.PIPE, start_new_session=True
    )
    assert parent.stdout is not None
    shim = int(parent.stdout.readline())
    until_sync(lambda: (stat := linux.stat_of(shim)) is not None and stat.state == "T", "the shim is held")
    parent.kill()
    parent.wait()
    with suppress(ProcessLookupError):
        os.kill(shim, signal.SIGCONT)

    until_sync(lambda: not alive(shim), "the end of the shim")
    parent.stdout.close()
    assert report.read_bytes() == b""
    assert not marker.exists()


def test_an_engine_dies_with_its_daemon_when_there_is_no_guard() -> None:
    with little_daemon("--no-guard") as daemon:
        engines = [pid for pid in daemon.tagged() if (stat := linux.stat_of(pid)) and stat.ppid == daemon.process.pid]
        assert len(engines) >= 4
        begun = time.monotonic()
        daemon.kill()
        until_sync(lambda: sum(map(alive, engines)) <= 1, "the engines")  # one is the grandchild that was adopted
        assert in_time(time.monotonic() - begun, 2.0)


def test_an_engine_does_not_hold_the_lock_of_the_daemon(runner: asyncio.Runner, tmp_path: Path) -> None:
    path = str(tmp_path / "daemon.lock")

    async def scenario() -> None:
        lock = DaemonLock(path)
        lock.acquire()
        child = await spawn(shell("exec sleep 1000"), Lines())
        lock.release()
        assert read_holder(path) is None
        await child.stop(1.0)

    runner.run(scenario())


def test_a_home_is_named_by_its_real_directory(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "state")
    assert home_id(str(tmp_path / "link")) == home_id(str(tmp_path / "state"))
    assert home_id(str(tmp_path / "state")) != home_id(str(tmp_path))
