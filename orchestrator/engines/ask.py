"""Runs an unknown program with an argument or two, and comes back whatever it does.

Its own process group is killed at the end, its output is capped, its input is empty, and nothing waits for a
grandchild that holds the pipes.
"""

from __future__ import annotations

import os
import selectors
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import IO, NamedTuple

TIMEOUT_S = 10.0

MAX_BYTES = 1024 * 1024
"""Both streams together; the longest real help text has 60 KB."""

_CHUNK = 64 * 1024

_POLL_S = 0.02
_ENDING_POLL_S = 0.002
"""A program whose streams are closed is about to end."""


class Answer(NamedTuple):
    """The output of a program, and how it ended.

    :param returncode: as Python gives it, -9 for SIGKILL; None when it was ended for taking too long or saying too much
    :param too_long: it printed more than is read
    """

    returncode: int | None
    stdout: str
    stderr: str
    too_long: bool = False

    @property
    def text(self) -> str:
        return f"{self.stdout}\n{self.stderr}"


def ask(
    path: str,
    words: Sequence[str],
    *,
    env: Mapping[str, str],
    cwd: str,
    timeout_s: float = TIMEOUT_S,
    enough: Sequence[bytes] = (),
) -> Answer:
    """Run `path words...`, and return what it prints and how it ends, within a time and a size.

    :param enough: it is ended as soon as one of its streams has a whole line with one of these
    :raises OSError: when the program cannot be started
    """
    process = subprocess.Popen(
        [path, *words],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=dict(env),
        cwd=cwd,
        start_new_session=True,
    )
    assert process.stdout is not None and process.stderr is not None
    with process.stdout, process.stderr:
        try:
            ended, too_long, output = _read(process, time.monotonic() + timeout_s, enough)
        finally:
            # The leader is not reaped yet, so its number cannot be anyone else's group.
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)

            process.wait()

    stdout, stderr = (bytes(part).decode("utf-8", "replace") for part in output)
    return Answer(process.returncode if ended else None, stdout, stderr, too_long)


def _read(
    process: subprocess.Popen[bytes], deadline: float, enough: Sequence[bytes]
) -> tuple[bool, bool, tuple[bytearray, bytearray]]:
    """:return: whether it ended by itself, whether it printed too much, and both streams"""
    streams: tuple[IO[bytes] | None, ...] = (process.stdout, process.stderr)
    output = (bytearray(), bytearray())
    with selectors.DefaultSelector() as selector:
        for stream, buffer in zip(streams, output, strict=True):
            assert stream is not None
            os.set_blocking(stream.fileno(), False)
            selector.register(stream, selectors.EVENT_READ, buffer)

        while time.monotonic() < deadline:
            # Looked at before reading: what an ended process wrote is in the pipes by now.
            ended = os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
            pause_s = _POLL_S if selector.get_map() else _ENDING_POLL_S
            ready = selector.select(0 if ended else pause_s)
            for key, _ in ready:
                chunk = os.read(key.fd, _CHUNK)
                key.data.extend(chunk)
                if not chunk:
                    selector.unregister(key.fileobj)

            if ready and any(mark in part[: part.rfind(b"\n") + 1] for mark in enough for part in output):
                return False, False, output

            if sum(map(len, output)) > MAX_BYTES:
                return False, True, output

            if ended and not ready:
                return True, False, output

    return False, False, output
