from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

from orchestrator.adapters.process import linux
from tests.support import until

NAME = f"ORCH_TEST_LINUX={os.getpid()}"
NOBODY = 2**22 - 1
"""Above the largest pid of most systems."""


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    """A process with a tag, in a session of its own."""
    name, value = NAME.split("=")
    process = subprocess.Popen(
        [sys.executable, "-c", "import time; print(flush=True); time.sleep(600)"],
        env={**os.environ, name: value},
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    assert process.stdout is not None
    process.stdout.readline()
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


def test_a_process_is_told_by_its_stat(sleeper: subprocess.Popen[bytes]) -> None:
    stat = linux.stat_of(sleeper.pid)
    assert stat is not None
    assert (stat.pid, stat.ppid, stat.pgrp, stat.session) == (sleeper.pid, os.getpid(), sleeper.pid, sleeper.pid)
    assert not stat.dead and stat.start_ticks > 0
    assert linux.stat_of(NOBODY) is None


def test_a_process_that_ended_and_was_not_reaped_is_dead(sleeper: subprocess.Popen[bytes]) -> None:
    sleeper.kill()
    until(lambda: (stat := linux.stat_of(sleeper.pid)) is not None and stat.dead, "it is a zombie")
    sleeper.wait()
    assert linux.stat_of(sleeper.pid) is None


def test_only_the_process_that_is_meant_gets_a_signal(sleeper: subprocess.Popen[bytes]) -> None:
    stat = linux.stat_of(sleeper.pid)
    assert stat is not None
    assert not linux.send_to(sleeper.pid, stat.start_ticks + 1, signal.SIGKILL), "another one with the same pid"
    assert sleeper.poll() is None
    assert linux.send_to(sleeper.pid, stat.start_ticks, signal.SIGKILL)
    assert sleeper.wait(30) == -signal.SIGKILL
    assert not linux.send_to(sleeper.pid, stat.start_ticks, signal.SIGKILL)


def test_a_tag_is_the_whole_name_and_value(sleeper: subprocess.Popen[bytes]) -> None:
    assert linux.has_tag(sleeper.pid, NAME.encode())
    assert not linux.has_tag(sleeper.pid, NAME.encode()[:-1])
    assert linux.find_tagged(NAME.encode()) == [sleeper.pid]


def test_the_tagged_are_killed_but_for_those_that_are_spared(sleeper: subprocess.Popen[bytes]) -> None:
    assert linux.kill_tagged(NAME.encode(), spare=(sleeper.pid,)) == []
    assert sleeper.poll() is None
    assert linux.kill_tagged(NAME.encode()) == [sleeper.pid]
    assert sleeper.wait(30) == -signal.SIGKILL


def test_a_group_is_signalled_through_its_leader(sleeper: subprocess.Popen[bytes]) -> None:
    pidfd = os.pidfd_open(sleeper.pid)
    try:
        assert linux.send_group(pidfd, sleeper.pid, signal.SIGKILL)
        assert sleeper.wait(30) == -signal.SIGKILL
        assert not linux.send_group(pidfd, None, signal.SIGKILL), "nobody is left in it"
    finally:
        os.close(pidfd)


def test_children_are_listed(sleeper: subprocess.Popen[bytes]) -> None:
    assert sleeper.pid in linux.children_of_self()
    assert {os.getpid(), sleeper.pid} <= set(linux.all_pids())


def test_what_is_gone_from_proc_reads_as_nothing() -> None:
    assert linux.read_proc(f"/proc/{NOBODY}/stat") is None
    assert linux.read_proc("/proc/self/stat")
