"""Settings of the kernel that keep other users, and the disk, away from this process."""

from __future__ import annotations

import logging
import os
import resource
import socket
import struct

from orchestrator.core.errors import UsageError

_log = logging.getLogger(__name__)

ENOUGH_DESCRIPTORS = 65_536
"""Of 10⁹, which some container runtimes set, programs that walk over all descriptors never see the end."""

_CREDENTIALS = struct.Struct("iII")
"""pid, uid, gid: `struct ucred` of unix(7)."""


def dump_no_core() -> None:
    """Keep this process's memory (keys, prompts) off the disk when it crashes.

    A limit of 0 would still hand the memory to a program that core_pattern names; of 1 byte, neither (core(5)).
    """
    hard = resource.getrlimit(resource.RLIMIT_CORE)[1]
    limit = 0 if hard == 0 else 1
    resource.setrlimit(resource.RLIMIT_CORE, (limit, limit))


def check_privilege(unit: tuple[str, str] | None, *, allow_root: bool) -> None:
    """Refuse to be a service that runs as root: nothing here needs it, and an engine reads files that strangers made.

    :param unit: the unit whose main process this is, and whose manager started it
    :raises UsageError: when the system's manager runs this as root; a root shell or a container only gets a warning
    """
    if os.geteuid() != 0 or allow_root:
        return

    if unit is not None and unit[1] == "system":
        raise UsageError(
            f"the service {unit[0]} would run as root, and each engine with it",
            details=("in its unit: `User=`, found none or root",),
            hint="`orch service install --system` makes a unit with a user of its own; `daemon.allow_root` allows it",
        )

    _log.warning("this daemon and its engines run as root; a user of their own is enough")


def raise_descriptor_limit() -> int:
    """Take as many descriptors as the hard limit allows, up to what anybody needs.

    :return: how many this process may have
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= ENOUGH_DESCRIPTORS:
        return ENOUGH_DESCRIPTORS

    wanted = ENOUGH_DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, ENOUGH_DESCRIPTORS)
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    return wanted


def peer_uid(sock: socket.socket) -> int:
    """Return the user whose process is at the other end of a unix socket, as of its connecting."""
    credentials = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    return int(_CREDENTIALS.unpack(credentials)[1])
