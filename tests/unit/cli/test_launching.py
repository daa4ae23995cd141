"""A daemon for `orch up`: one that is there is used, one that ends at once is explained."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from orchestrator.adapters.paths import Paths, find_paths
from orchestrator.adapters.systemd.notify import VARIABLES
from orchestrator.cli import launching
from orchestrator.cli.launching import ensure_daemon
from orchestrator.core.errors import OrchError, TimedOutError
from tests.support import until


@pytest.fixture
def paths(monkeypatch: pytest.MonkeyPatch) -> Iterator[Paths]:
    """A short home of its own: socket paths end at 108 bytes."""
    home = tempfile.mkdtemp(prefix="orch-")
    monkeypatch.setenv("ORCH_HOME", home)
    yield find_paths()
    shutil.rmtree(home)


@pytest.fixture
def started(paths: Paths, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Makes a program that writes its environment, and then waits, stand in for the daemon; gives the file."""
    noted = os.path.join(paths.config, "environment.json")
    with stand_in(
        paths,
        monkeypatch,
        "import json, os, sys, time\n"
        f"told = {{'env': dict(os.environ), 'words': sys.argv[1:], 'session': os.getsid(0), 'pid': os.getpid()}}\n"
        f"json.dump(told, open({noted!r} + '.new', 'w'))\nos.rename({noted!r} + '.new', {noted!r})\n"
        "time.sleep(60)\n",
    ):
        yield noted


@contextlib.contextmanager
def stand_in(paths: Paths, monkeypatch: pytest.MonkeyPatch, code: str) -> Iterator[None]:
    """A program that runs in the daemon's place."""
    os.makedirs(paths.config, exist_ok=True)
    program = os.path.join(paths.config, "python")
    with open(program, "w", encoding="utf-8") as file:
        file.write(f"#!{sys.executable}\n{code}")

    os.chmod(program, 0o700)
    processes: list[subprocess.Popen[bytes]] = []

    class Kept(subprocess.Popen[bytes]):
        """Is not left to the collector: the command ends before its daemon, a test does not."""

        def __init__(self, *words: Any, **options: Any) -> None:
            super().__init__(*words, **options)
            processes.append(self)

    monkeypatch.setattr(sys, "executable", program)
    monkeypatch.setattr(subprocess, "Popen", Kept)
    yield
    for process in processes:
        process.kill()
        process.wait(20)


def test_a_daemon_that_answers_is_used(paths: Paths) -> None:
    os.makedirs(os.path.dirname(paths.control_socket))
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(paths.control_socket)
        listener.listen()

        def answer() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\n{}")

        thread = threading.Thread(target=answer)
        thread.start()
        assert ensure_daemon(paths) is False
        thread.join(20)


def test_a_daemon_that_ends_at_once_is_explained_by_its_own_words(paths: Paths) -> None:
    os.makedirs(paths.config)
    with open(os.path.join(paths.config, "orch.toml"), "w", encoding="utf-8") as file:
        file.write("[gateway]\nprot = 1\n")

    os.makedirs(paths.logs, mode=0o700)
    with open(os.path.join(paths.logs, "daemon.log"), "w", encoding="utf-8") as file:
        file.write("of an earlier daemon\n")

    with pytest.raises(OrchError) as caught:
        ensure_daemon(paths)

    assert caught.value.message == "the daemon ended at once with exit code 2"
    assert any("gateway.prot" in line for line in caught.value.details)
    assert "of an earlier daemon" not in caught.value.details


def test_a_daemon_has_a_session_of_its_own_nothing_of_a_service_manager_and_is_waited_for_only_so_long(
    paths: Paths, started: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in VARIABLES:
        monkeypatch.setenv(name, "1")

    monkeypatch.setattr(launching, "START_LIMIT_S", 1.0)
    with pytest.raises(TimedOutError, match=r"did not answer within \d+ s"):
        ensure_daemon(paths)

    until(lambda: os.path.exists(started), "it has started")
    with open(started, encoding="utf-8") as file:
        told = json.load(file)

    assert told["words"] == ["-m", "orchestrator", "serve", "--started-by-up"]
    assert told["session"] == told["pid"]
    assert not told["env"].keys() & set(VARIABLES)
    assert told["env"]["ORCH_HOME"] == os.environ["ORCH_HOME"]


ANSWERS = """
made = socket.socket(socket.AF_UNIX)
os.makedirs(os.path.dirname({path!r}), exist_ok=True)
made.bind({path!r})
made.listen()
while True:
    connection, _ = made.accept()
    connection.recv(65536)
    time.sleep({answers_after_s})
    try:
        connection.sendall(b"HTTP/1.0 200 OK\\r\\nContent-Length: 2\\r\\n\\r\\n{{}}")
    except OSError:
        pass
    connection.close()
"""


@pytest.mark.parametrize(
    ("before", "answers"),
    [
        ("while time.monotonic() < began + 3: pass", True),  # a busy machine
        ("while time.monotonic() < began + 3: time.sleep(0.0001); sum(range(2000))", True),
        ("time.sleep(30)", False),  # stands still
    ],
    ids=["busy", "halting", "still"],
)
def test_a_daemon_that_works_is_waited_for_longer_than_one_that_stands_still(
    paths: Paths, monkeypatch: pytest.MonkeyPatch, before: str, answers: bool
) -> None:
    monkeypatch.setattr(launching, "START_LIMIT_S", 1.0)
    code = f"import os, socket, time\nbegan = time.monotonic()\n{before}\n"
    with stand_in(paths, monkeypatch, code + ANSWERS.format(path=paths.control_socket, answers_after_s=0)):
        if answers:
            assert ensure_daemon(paths) is True
            return

        with pytest.raises(TimedOutError) as caught:
            ensure_daemon(paths)

        assert caught.value.hint is not None and "runs on (pid " in caught.value.hint


def test_a_daemon_that_works_for_ever_is_not_waited_for_for_ever(paths: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launching, "START_LIMIT_S", 1.0)
    monkeypatch.setattr(launching, "LONGEST_START_S", 2.0)
    with stand_in(paths, monkeypatch, "while True: pass\n"), pytest.raises(TimedOutError):
        ensure_daemon(paths)
