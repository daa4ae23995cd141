"""The service manager's half of sd_notify and socket activation, for tests: what systemd does, without systemd."""

from __future__ import annotations

import array
import contextlib
import fcntl
import os
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from tests.faults.lab import ROOT, Lab
from tests.support import ORCH, PATIENCE_S, until


@dataclass(frozen=True)
class Message:
    """One datagram: when it came (monotonic), from which process, and its fields in order."""

    at: float
    pid: int
    fields: tuple[tuple[str, str], ...]

    def __contains__(self, name: str) -> bool:
        return any(name == each for each, _ in self.fields)

    def __getitem__(self, name: str) -> str:
        return dict(self.fields)[name]


class Manager:
    """Listens on NOTIFY_SOCKET.

    :param on_message: called in the receiving thread, before the message counts as received
    """

    def __init__(self, address: str, on_message: Callable[[Message], None] = lambda message: None) -> None:
        self.address = address
        self.messages: list[Message] = []
        self._on_message = on_message
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        self._socket.bind("\0" + address[1:] if address[0] == "@" else address)
        self._thread = threading.Thread(target=self._receive, daemon=True)
        self._thread.start()

    def _receive(self) -> None:
        while True:
            data, ancillary, _, _ = self._socket.recvmsg(65536, 4096)
            if data == b"end":
                return

            pid = 0
            for level, kind, content in ancillary:
                assert level == socket.SOL_SOCKET
                if kind == socket.SCM_CREDENTIALS:
                    pid = struct.unpack("iII", content)[0]
                elif kind == socket.SCM_RIGHTS:  # or a client that sends BARRIER=1 waits for ever
                    passed = array.array("i")
                    passed.frombytes(content[: len(content) - len(content) % passed.itemsize])
                    for descriptor in passed:
                        os.close(descriptor)

            pairs = (line.partition("=") for line in data.decode().split("\n"))
            message = Message(time.monotonic(), pid, tuple((name, value) for name, _, value in pairs))
            self._on_message(message)
            self.messages.append(message)

    def of(self, name: str) -> list[Message]:
        return [message for message in self.messages if name in message]

    def wait(self, name: str, value: str = "", after: int = 0) -> Message:
        """The first message with this field, its value holding this text, beside the first `after` messages."""

        def found() -> Message | None:
            found = (each for each in self.messages[after:] if name in each and value in each[name])
            return next(found, None)

        message = until(found, f"{name} with `{value}`; there were {self.messages[after:]}")
        assert isinstance(message, Message)
        return message

    def close(self) -> None:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.sendto(b"end", self._socket.getsockname())

        self._thread.join(PATIENCE_S)
        self._socket.close()


@contextlib.contextmanager
def new_manager(kind: str = "path", on_message: Callable[[Message], None] = lambda message: None) -> Iterator[Manager]:
    """:param kind: `path`, or `abstract` for a name that is no file"""
    with tempfile.TemporaryDirectory(prefix="orch-n-") as directory:
        path = os.path.join(directory, "notify")
        manager = Manager(path if kind == "path" else f"@{path[1:]}", on_message)
        try:
            yield manager
        finally:
            manager.close()


SERVE = [*ORCH, "serve"]


def serve_under(
    lab: Lab,
    env: dict[str, str],
    *,
    words: Sequence[str] = SERVE,
    own_pid: Sequence[str] = (),
    listeners: Sequence[socket.socket] = (),
) -> subprocess.Popen[bytes]:
    """Start the daemon as systemd does: in a session of its own, sockets from descriptor 3 on.

    :param own_pid: variables that shall hold the daemon's pid
    """
    assignments = "".join(f"export {name}=$$; " for name in own_pid)
    # Each is first moved out of the way: the source of one may be the place of another.
    high = [fcntl.fcntl(sock.fileno(), fcntl.F_DUPFD_CLOEXEC, 100) for sock in listeners]
    moves = " ".join(f"{3 + index}<&{fd}" for index, fd in enumerate(high)) + "".join(f" {fd}<&-" for fd in high)
    line = f'{assignments}exec "$@" {moves if high else ""}'
    try:
        with open(os.path.join(lab.root, "daemon.log"), "ab") as log:
            lab.daemon = subprocess.Popen(
                ["bash", "-c", line, "bash", *words],
                env={**lab.env, **env},
                cwd=ROOT,
                stdout=log,
                stderr=log,
                start_new_session=True,
                pass_fds=high,
            )
    finally:
        for fd in high:
            os.close(fd)

    return lab.daemon


def python(code: str) -> list[str]:
    """The command that runs a daemon with something of it replaced."""
    return [sys.executable, "-c", code]
