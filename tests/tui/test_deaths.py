"""The dashboard dies in each way: the daemon goes on, and the terminal is as it was where that can be."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import select
import signal
import struct
import subprocess
import termios
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support import ORCH, PATIENCE_S, Home, new_home, until

LEAVES = b"\x1b[?1049l"
"""Back from the alternate screen (xterm's control sequences, DECRST 1049)."""


class Terminal:
    """`orch top` as the leader of a session on a terminal of its own, which the test holds at the other end."""

    def __init__(self, home: Home, rows: int = 24, columns: int = 80, term: str | None = "xterm-256color") -> None:
        self.near, self.far = pty.openpty()
        fcntl.ioctl(self.far, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        self.before = termios.tcgetattr(self.far)
        # A size that somebody exported is not the terminal's.
        env = {name: value for name, value in home.env.items() if name != "TERM"} | {"COLUMNS": "99", "LINES": "33"}
        self.process = subprocess.Popen(
            [*ORCH, "top", "--interval", "0.2"],
            stdin=self.far, stdout=self.far, stderr=self.far, start_new_session=True,
            env=env if term is None else {**env, "TERM": term},
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )  # fmt: skip
        self.said = b""

    def shows(self, text: bytes) -> bool:
        self.read()
        return text in self.said

    def read(self) -> None:
        while self.near >= 0 and select.select([self.near], [], [], 0.05)[0]:
            try:
                self.said += os.read(self.near, 65536)
            except OSError:  # EIO: nobody is left at the far end
                return

    def ended(self) -> bool:
        self.read()  # it may be waiting for room to say good-bye
        return self.process.poll() is not None

    def hang_up(self) -> None:
        os.close(self.far)
        os.close(self.near)
        self.near = self.far = -1

    def close(self) -> None:
        self.process.kill()
        self.process.wait(PATIENCE_S)
        if self.near >= 0:
            self.hang_up()


def status(home: Home) -> dict[str, Any]:
    answer: dict[str, Any] = json.loads(home.orch("status", "--json", check=False).stdout)
    return answer


@pytest.fixture(scope="module")
def home() -> Iterator[Home]:
    with new_home() as home:
        home.serve()
        yield home


@pytest.fixture
def terminal(home: Home) -> Iterator[Terminal]:
    terminal = Terminal(home)
    try:
        until(lambda: terminal.shows(b"stopped"), "the first frame")
        yield terminal
    finally:
        terminal.close()
        assert status(home)["state"] == "stopped"  # the daemon goes on


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_signal_ends_it_and_the_terminal_is_as_it_was(terminal: Terminal, number: signal.Signals) -> None:
    assert termios.tcgetattr(terminal.far) != terminal.before
    terminal.process.send_signal(number)
    until(terminal.ended, f"it ends by {number.name}")
    assert termios.tcgetattr(terminal.far) == terminal.before
    assert terminal.shows(LEAVES)


def test_a_terminal_that_is_closed_ends_it(terminal: Terminal) -> None:
    terminal.hang_up()
    until(terminal.ended, "it ends with its terminal")


def test_a_kill_harms_nobody_else(terminal: Terminal) -> None:
    terminal.process.kill()
    until(terminal.ended, "it is dead")


def test_a_terminal_that_is_far_too_small_is_told_so(home: Home) -> None:
    terminal = Terminal(home, rows=5, columns=20)
    try:
        until(lambda: terminal.shows(b"60 x 18 cells"), "a word about the size")
        fcntl.ioctl(terminal.far, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
        terminal.process.send_signal(signal.SIGWINCH)
        until(lambda: terminal.shows(b"Speed"), "the panels, now that there is room")
        os.write(terminal.near, b"q")
        until(terminal.ended, "it ends")
        assert terminal.process.returncode == 0
    finally:
        terminal.close()


@pytest.mark.parametrize("term", [None, "dumb", "unheard-of"])
def test_without_a_known_terminal_type_it_works_or_says_why_not(home: Home, term: str | None) -> None:
    terminal = Terminal(home, term=term)
    try:
        until(lambda: terminal.shows(b"stopped") or terminal.ended(), "a frame, or the end")
        if terminal.ended():
            assert terminal.process.returncode == 2 and terminal.shows(b"hint: "), terminal.said
    finally:
        terminal.close()
