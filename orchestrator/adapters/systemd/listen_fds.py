"""Sockets that the service manager listens on and hands over (sd_listen_fds(3)).

The manager keeps its own copies: connections wait in the kernel while no daemon runs, so a restart refuses nobody.
Closing ours takes nothing away from it, and the name of a unix socket is its own to remove.
"""

from __future__ import annotations

import contextlib
import os
import socket
from dataclasses import dataclass

from orchestrator.core.errors import UsageError
from orchestrator.core.terminal import quote_text

FIRST = 3
"""SD_LISTEN_FDS_START."""

MAX_SOCKETS = 16

_HINT = "in the socket unit: `ListenStream=` an address and `FileDescriptorName=gateway`, or a path and `control`"


@dataclass(frozen=True, slots=True)
class Passed:
    """The listening sockets by what they are for; none means that the daemon opens its own."""

    gateway: tuple[socket.socket, ...] = ()
    control: socket.socket | None = None

    def close(self) -> None:
        for sock in (*self.gateway, *([self.control] if self.control else [])):
            sock.close()


def adopt_sockets(count: str, names: str | None, first: int = FIRST) -> Passed:
    """Take over the descriptors from `first` on. From here on no child inherits them.

    :param count: LISTEN_FDS
    :param names: LISTEN_FDNAMES, separated by colons: `gateway` or `control`. None: internet sockets are the
        gateway's, a unix socket is for control
    :raises UsageError: when one of them cannot be used; it says which, and what it is
    """
    if not count.isascii() or not count.isdigit() or not 1 <= int(count) <= MAX_SOCKETS:
        raise UsageError(f"LISTEN_FDS: expected 1 to {MAX_SOCKETS}, found `{quote_text(count, 64)}`", hint=_HINT)

    numbers = range(first, first + int(count))
    for number in numbers:
        with contextlib.suppress(OSError):  # one that is not open is named below
            os.set_inheritable(number, False)

    called = names.split(":") if names is not None else [""] * len(numbers)
    if len(called) != len(numbers):
        raise UsageError(f"LISTEN_FDNAMES has {len(called)} names for {len(numbers)} sockets", hint=_HINT)

    gateway: list[socket.socket] = []
    control: list[socket.socket] = []
    with contextlib.ExitStack() as on_error:
        for number, name in zip(numbers, called, strict=True):
            sock = on_error.enter_context(_listener(number, name))
            (control if sock.family == socket.AF_UNIX else gateway).append(sock)

        if len(control) > 1:
            raise UsageError(f"{len(control)} control sockets were handed over; there can be one", hint=_HINT)

        on_error.pop_all()

    return Passed(tuple(gateway), control[0] if control else None)


def _listener(number: int, name: str) -> socket.socket:
    where = f"descriptor {number}" + (f", `{quote_text(name, 64)}`" if name else "")
    if name not in ("", "gateway", "control"):
        details = (where, "allowed names: gateway, control")
        raise UsageError("the service manager handed over a socket of an unknown name", details=details, hint=_HINT)

    try:
        sock = socket.socket(fileno=number)
    except OSError as error:
        message = f"the service manager handed over something that is no socket: {error.strerror}"
        raise UsageError(message, details=(where,), hint=_HINT) from None

    found = _find_fault(sock, name)
    if found:
        sock.detach()  # not ours to close: what it really is, nobody knows
        raise UsageError(
            "the service manager handed over a socket that cannot be used", details=(f"{where}: {found}",), hint=_HINT
        )

    sock.setblocking(False)
    return sock


def _find_fault(sock: socket.socket, name: str) -> str | None:
    """Return the reason why a socket cannot be used; None when it can."""
    unix = sock.family == socket.AF_UNIX
    if not unix and sock.family not in (socket.AF_INET, socket.AF_INET6):
        return "neither an internet nor a unix socket"

    if sock.type != socket.SOCK_STREAM:
        return "no stream socket (`ListenStream=` makes one)"

    if not sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        return "it does not listen (`Accept=no` hands over the listener)"

    if name == "control" and not unix:
        return "the control socket must be a unix socket, and this one is reached by an address"

    if name == "gateway" and unix:
        return "the gateway's clients come by an address, and this is a unix socket"

    return None
