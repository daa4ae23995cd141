from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from orchestrator.adapters.store.lock import DaemonLock, read_holder
from orchestrator.core.errors import OrchError

HOLDS = """
import sys, time
from orchestrator.adapters.store.lock import DaemonLock
lock = DaemonLock(sys.argv[1])
lock.acquire(start_ticks=42)
sys.stdout.write("locked\\n"); sys.stdout.flush()
time.sleep(1000)
"""


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "state" / "daemon.lock")


def test_a_second_daemon_is_told_the_pid_of_the_first_within_a_second(path: str) -> None:
    first = subprocess.Popen([sys.executable, "-c", HOLDS, path], stdout=subprocess.PIPE)
    assert first.stdout is not None
    try:
        assert first.stdout.readline() == b"locked\n"
        begun = time.monotonic()
        with pytest.raises(OrchError, match=f"pid {first.pid}"):
            DaemonLock(path).acquire()

        assert time.monotonic() - begun < 1.0
        named = read_holder(path)
        assert named is not None
        assert (named["pid"], named["start_ticks"]) == (first.pid, 42)
    finally:
        first.kill()
        first.communicate()

    assert read_holder(path) is None
    DaemonLock(path).acquire()  # free at once after SIGKILL


def test_nobody_holds_a_lock_that_was_never_taken(path: str) -> None:
    assert read_holder(path) is None


def test_looking_at_the_holder_does_not_take_the_lock(path: str) -> None:
    lock = DaemonLock(path)
    lock.acquire()
    lock.release()
    assert read_holder(path) is None
    lock.acquire()
    named = read_holder(path)
    assert named is not None
    assert named["pid"] == os.getpid()
    lock.release()


@pytest.mark.parametrize("content", ["", '{"pid": 1', "[]", "\x00\x01"])
def test_a_torn_lock_file_still_keeps_the_second_daemon_out(path: str, content: str) -> None:
    lock = DaemonLock(path)
    lock.acquire()
    Path(path).write_text(content)
    assert read_holder(path) == {}
    with pytest.raises(OrchError, match="pid unknown"):
        DaemonLock(path).acquire()

    lock.release()


def test_what_an_earlier_holder_wrote_is_replaced(path: str) -> None:
    lock = DaemonLock(path)
    lock.acquire()
    Path(path).write_text("x" * 5000)
    lock.release()
    lock.acquire()
    assert json.loads(Path(path).read_text())["pid"] == os.getpid()
    lock.release()


def test_children_do_not_inherit_the_lock(path: str) -> None:
    lock = DaemonLock(path)
    lock.acquire()
    with subprocess.Popen(["/bin/cat"], stdin=subprocess.PIPE, close_fds=False) as child:
        targets = set()
        for name in os.listdir(f"/proc/{child.pid}/fd"):
            with contextlib.suppress(FileNotFoundError):  # closed since it was listed: the lock would not be
                targets.add(os.readlink(f"/proc/{child.pid}/fd/{name}"))

        lock.release()
        assert path not in targets
        assert read_holder(path) is None


def test_a_planted_link_is_refused_and_its_target_unchanged(tmp_path: Path) -> None:
    target = tmp_path / "precious"
    target.write_text("mine")
    link = tmp_path / "daemon.lock"
    link.symlink_to(target)
    with pytest.raises(OrchError, match="cannot open the lock file"):
        DaemonLock(str(link)).acquire()

    assert target.read_text() == "mine"
