"""The daemon's listening sockets: its own, or those that a service manager holds for it."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import stat
from dataclasses import dataclass

from orchestrator.adapters.systemd.listen_fds import Passed
from orchestrator.core.addresses import is_loopback
from orchestrator.core.errors import OrchError

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Listeners:
    """The sockets that the daemon accepts connections on.

    :ivar hosts: the names or addresses of the gateway, the one that can be reached from farthest first
    :ivar control_path: of a control socket that we made, and remove at the end; None for a manager's
    """

    gateway: tuple[socket.socket, ...]
    control: socket.socket
    hosts: tuple[str, ...]
    control_path: str | None

    def close(self) -> None:
        """Close our descriptors. A manager's listeners live on in its own, with whoever waits there."""
        for sock in (*self.gateway, self.control):
            sock.close()

        if self.control_path is not None:
            with contextlib.suppress(FileNotFoundError):  # whoever took it away wanted the same
                os.unlink(self.control_path)


def open_listeners(host: str, port: int, control_path: str, passed: Passed) -> Listeners:
    """Take what was handed over, and bind the rest. Only called with the daemon's lock held.

    :raises OrchError: when an address is taken or not ours
    """
    gateway = passed.gateway or (bind_gateway(host, port),)
    addresses = [str(sock.getsockname()[0]) for sock in passed.gateway]
    if passed.control is None:
        try:
            control = bind_control(control_path)
        except BaseException:
            for sock in gateway:
                sock.close()

            raise
    else:
        control = passed.control
        path = control.getsockname()
        if path != control_path:
            _log.warning("the control socket handed over is `%s`; `orch` asks at %s", path, control_path)

    hosts = tuple(sorted(addresses, key=is_loopback)) or (host,)
    return Listeners(gateway, control, hosts, control_path if passed.control is None else None)


def bind_gateway(host: str, port: int) -> socket.socket:
    """:raises OrchError: when the address is taken or not ours"""
    family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    sock = socket.socket(family, kind, protocol)
    # Connections of an earlier daemon in TIME_WAIT do not keep the address; a live listener still does.
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        sock.bind(address)
        sock.listen(1024)
    except OSError as error:
        sock.close()
        raise OrchError(
            f"the gateway cannot listen on {host}:{port}: {error.strerror}",
            hint="stop what listens there, or set `gateway.port` (`orch config path` shows the file)",
        ) from None

    sock.setblocking(False)
    return sock


def bind_control(path: str) -> socket.socket:
    """Bind the control socket, 0600 from birth. Called with the daemon's lock held: a live one is never replaced."""
    if os.path.lexists(path):
        if not stat.S_ISSOCK(os.lstat(path).st_mode):
            raise OrchError("the control socket's place is taken by something else", details=(path,))

        os.unlink(path)

    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    mask = os.umask(0o177)
    try:
        sock.bind(path)
    finally:
        os.umask(mask)

    sock.listen(128)
    sock.setblocking(False)
    return sock


def url_of(sock: socket.socket) -> str:
    host, port = sock.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
