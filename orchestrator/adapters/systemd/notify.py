"""The service manager's variables for a service, and the messages to it (sd_notify(3), systemd.exec(5)).

One datagram a message, `NAME=value` lines. The variables are read once and removed from the environment, so that no
child can speak for us or take our sockets. Nothing here blocks or raises into the daemon: a manager that does not
listen must not cost an answer.
"""

from __future__ import annotations

import logging
import os
import re
import socket
from collections import deque
from collections.abc import MutableMapping
from dataclasses import dataclass
from time import monotonic_ns

from orchestrator.core.terminal import neutralise, quote_text

_log = logging.getLogger(__name__)

VARIABLES = (
    "NOTIFY_SOCKET", "WATCHDOG_PID", "WATCHDOG_USEC", "LISTEN_PID", "LISTEN_PIDFDID", "LISTEN_FDS", "LISTEN_FDNAMES",
)  # fmt: skip
"""For the process that the manager started, and for nobody that this process starts."""

MAX_STATUS = 240
"""Characters; `systemctl status` shows one line."""

_KEPT = 16


@dataclass(frozen=True, slots=True)
class ManagerVariables:
    """The variables that the manager gave to this process.

    :ivar notify_socket: where it listens; empty when it does not
    :ivar watchdog_s: it must hear from us at least so often; None when it does not watch
    :ivar sockets: LISTEN_FDS and LISTEN_FDNAMES; None when there are none for us
    :ivar unit: the unit's name when the manager started this very process, and whose manager it is
    """

    notify_socket: str = ""
    watchdog_s: float | None = None
    sockets: tuple[str, str | None] | None = None
    unit: tuple[str, str] | None = None


def take_variables(environment: MutableMapping[str, str], pid: int) -> ManagerVariables:
    """Read the manager's variables, and remove them.

    What is meant for another process (its pid is named) counts as not given.
    """
    found = {name: environment.pop(name) for name in VARIABLES if name in environment}
    sockets = None
    if found.get("LISTEN_PID") == str(pid) and "LISTEN_FDS" in found:
        sockets = (found["LISTEN_FDS"], found.get("LISTEN_FDNAMES"))

    unit = None
    if environment.get("SYSTEMD_EXEC_PID") == str(pid):  # inherited by a terminal's children, where it is another's
        unit = own_unit()

    return ManagerVariables(found.get("NOTIFY_SOCKET", ""), _watchdog_s(found, pid), sockets, unit)


def _watchdog_s(found: dict[str, str], pid: int) -> float | None:
    """Return the watchdog's period as sd_watchdog_enabled(3) does: without WATCHDOG_PID it is for any process."""
    text = found.get("WATCHDOG_USEC", "")
    if found.get("WATCHDOG_PID", str(pid)) != str(pid) or not text:
        return None

    if not text.isascii() or not text.isdigit() or not 0 < int(text) < 2**64 - 1:
        _log.warning("WATCHDOG_USEC is no time: `%s`", quote_text(text, 64))
        return None

    return int(text) / 1e6


def own_unit(cgroups: str = "/proc/self/cgroup") -> tuple[str, str] | None:
    """Return the unit that this process belongs to, and `user` or `system` for the manager that runs it."""
    try:
        with open(cgroups, encoding="utf-8", errors="replace") as file:
            lines = file.read().splitlines()
    except OSError:
        return None

    for line in lines:
        found = re.search(r".*/([^/]+\.service)(?=/|$)", line.rpartition(":")[2])
        if found:
            return found.group(1), "user" if re.search(r"/user@\d+\.service/", line) else "system"

    return None


class Notifier:
    """Sends to the manager; silent without one.

    A message of the service's state that could not be sent, because the manager is busy, goes before the next one:
    `flush` when there is no next one.
    """

    def __init__(self, address: str) -> None:
        """:param address: NOTIFY_SOCKET: a path, or `@` and a name that is no file; empty for none"""
        self._address: str | bytes = ""
        self._socket: socket.socket | None = None
        self._owed: deque[bytes] = deque(maxlen=_KEPT)
        self._failed = ""
        if not address:
            return

        if address[0] not in "/@" or len(address) < 2:
            _log.warning("the service manager's socket cannot be used: `%s`", quote_text(address, 107))
            return

        self._address = b"\0" + os.fsencode(address[1:]) if address[0] == "@" else address
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setblocking(False)

    @property
    def connected(self) -> bool:
        """True when there is a manager to speak to."""
        return self._socket is not None

    def send(self, *fields: str) -> bool:
        """Tell it: `READY=1`. Kept and sent later when the manager is busy.

        :return: whether it was sent, with everything before it
        """
        if self._socket is None:
            return False

        self._owed.append("\n".join(fields).encode(errors="replace"))
        return self.flush()

    def try_send(self, *fields: str) -> bool:
        """Tell it, or forget it when the manager is busy: what is true now is not true later."""
        return self._socket is not None and self.flush() and self._deliver("\n".join(fields).encode(errors="replace"))

    def flush(self) -> bool:
        """Send what is owed.

        :return: whether nothing is owed any more
        """
        while self._owed:
            if not self._deliver(self._owed[0]):
                return False

            self._owed.popleft()

        return True

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _deliver(self, message: bytes) -> bool:
        """Send a message; False while it has to be tried again. One that can never arrive counts as sent."""
        assert self._socket is not None
        try:
            self._socket.sendto(message, self._address)
        except BlockingIOError:
            return False
        except OSError as error:  # no such socket: a manager that is gone will not come back to this address
            if error.strerror != self._failed:
                self._failed = error.strerror or str(error)
                _log.warning("the service manager cannot be told: %s", self._failed)
        else:
            self._failed = ""

        return True


def status_field(text: str) -> str:
    """Return `STATUS=` and one line, whatever the text holds."""
    line = neutralise(" ".join(text.split()))
    return "STATUS=" + (line if len(line) <= MAX_STATUS else line[: MAX_STATUS - 1] + "…")


def reloading_fields() -> tuple[str, str]:
    """Return the fields that announce a reload, to be sent at once: READY=1 answers them only if it is newer."""
    return "RELOADING=1", f"MONOTONIC_USEC={monotonic_ns() // 1000}"


def extend_field(seconds: float) -> str:
    """Return the field that asks for patience: there will be another message within so many seconds."""
    return f"EXTEND_TIMEOUT_USEC={round(seconds * 1e6)}"
