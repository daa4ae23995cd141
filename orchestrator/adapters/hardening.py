"""What the kernel can do to keep other users, and the disk, away from this process."""

from __future__ import annotations

import resource
import socket
import struct

_CREDENTIALS = struct.Struct("iII")
"""pid, uid, gid: `struct ucred` of unix(7)."""


def dump_no_core() -> None:
    """Keep this process's memory (keys, prompts) off the disk when it crashes.

    A limit of 0 would still hand the memory to a program that core_pattern names; of 1 byte, neither (core(5)).
    """
    hard = resource.getrlimit(resource.RLIMIT_CORE)[1]
    limit = 0 if hard == 0 else 1
    resource.setrlimit(resource.RLIMIT_CORE, (limit, limit))


def peer_uid(sock: socket.socket) -> int:
    """The user whose process is at the other end of a unix socket, as of its connecting."""
    credentials = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    return int(_CREDENTIALS.unpack(credentials)[1])
