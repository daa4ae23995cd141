"""The daemon's two listening sockets."""

from __future__ import annotations

import os
import socket
import stat

from orchestrator.core.errors import OrchError


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
    """The control socket, 0600 from birth. Only called with the daemon's lock held: a live one is never replaced."""
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
