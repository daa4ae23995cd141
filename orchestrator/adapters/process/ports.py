"""Ports for engines: finding one that is really free, and knowing whose server answers on it.

The fork listens with SO_REUSEPORT: two of its processes share a port without an error, and the kernel deals the
connections out between them. Hence the plain bind as a probe, and the look at who owns the listening socket.
"""

from __future__ import annotations

import errno
import os
import random
import socket
from collections.abc import Collection, Iterable

from orchestrator.core.errors import OrchError

LOW_PORT = 20000
HIGH_PORT = 29999
"""Below the range for outgoing connections (32768 on): one of those cannot take the port before the engine does."""

LISTEN = "0A"
"""TCP_LISTEN in /proc/net/tcp (include/net/tcp_states.h)."""

HOST = "127.0.0.1"

_RECEIVES_LOOPBACK = frozenset({
    "0100007F",  # 127.0.0.1, in the byte order of a little-endian machine
    "7F000001",  # and of a big-endian one
    "00000000",
    "0" * 32,  # ::, which takes IPv4 as well
    "0000000000000000FFFF00000100007F",
    "00000000000000000000FFFF7F000001",
})  # fmt: skip


def port_is_free(port: int) -> bool:
    """Return whether nothing at all is bound there, not even a server that would share.

    A connection in TIME_WAIT counts as taken: an engine without SO_REUSEADDR would fail on it.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        try:
            probe.bind((HOST, port))
        except OSError:
            return False

        return True


def can_listen(host: str, port: int) -> bool:
    """Return whether a server could take this address, as the gateway does: connections in TIME_WAIT do not count.

    :raises OSError: when the address is not one of this machine's
    """
    family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    with socket.socket(family, kind, protocol) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(address)
        except OSError as error:
            if error.errno in (errno.EADDRINUSE, errno.EACCES):
                return False

            raise

        return True


def free_port(exclude: Collection[int] = (), *, low: int = LOW_PORT, high: int = HIGH_PORT) -> int:
    """Find a free port on the loopback address, at random, so that a port just given up is not met again at once.

    :param exclude: ports promised to others
    :raises OrchError: when the range has no free port
    """
    taken = set(exclude) | _reserved_ports()
    candidates = [port for port in range(low, high + 1) if port not in taken]
    random.shuffle(candidates)
    for port in candidates:
        if port_is_free(port):
            return port

    raise OrchError(
        "no free port for an engine",
        details=(f"127.0.0.1, ports {low} to {high}: {len(candidates)} tried, all in use",),
        hint="see what holds them with `ss -ltnp`",
    )


def listener_pids(port: int, pids: Iterable[int] | None = None) -> set[int]:
    """Return the processes that listen where a connection to 127.0.0.1:port would arrive.

    :param pids: look at these only; by default at every process that this user may look into
    """
    inodes = _listening_inodes(port)
    if not inodes:
        return set()

    if pids is None:
        pids = (int(name) for name in os.listdir("/proc") if name.isdigit())

    return {pid for pid in pids if inodes & (_socket_inodes(pid) or set())}


def owned_by(port: int, pids: Iterable[int]) -> bool | None:
    """Return whether these processes, and nobody else, listen on 127.0.0.1:port.

    :return: None when nobody listens, or when a process may not be looked into
    """
    strangers = _listening_inodes(port)
    if not strangers:
        return None

    unknown = False
    for pid in pids:
        inodes = _socket_inodes(pid)
        if inodes is None:
            unknown = True
        else:
            strangers -= inodes

        if not strangers:
            return True

    return None if unknown else False


def _listening_inodes(port: int) -> set[int]:
    inodes = set()
    wanted = f"{port:04X}"
    for name in ("/proc/net/tcp", "/proc/net/tcp6"):
        if not os.path.exists(name):
            continue  # a kernel without IPv6

        with open(name, encoding="ascii") as table:
            next(table, None)
            for row in table:
                fields = row.split()
                if fields[3] != LISTEN:
                    break  # the kernel lists the listening sockets first; connections may be tens of thousands

                address, _, hex_port = fields[1].partition(":")
                if hex_port == wanted and address in _RECEIVES_LOOPBACK:
                    inodes.add(int(fields[9]))

    return inodes


def _socket_inodes(pid: int) -> set[int] | None:
    """Return the inodes of a process's sockets; none for one that is gone, None for one we may not look into."""
    folder = f"/proc/{pid}/fd"
    inodes = set()
    try:
        for name in os.listdir(folder):
            try:
                target = os.readlink(f"{folder}/{name}")
            except FileNotFoundError:
                continue  # closed in the meantime

            if target.startswith("socket:["):
                inodes.add(int(target[8:-1]))
    except (FileNotFoundError, ProcessLookupError):
        return set()
    except PermissionError:
        return None

    return inodes


def _reserved_ports() -> set[int]:
    """Return the ports that the administrator keeps for something else, such as `8080,9000-9010`."""
    try:
        with open("/proc/sys/net/ipv4/ip_local_reserved_ports", encoding="ascii") as file:
            words = file.read().strip()
    except OSError:
        return set()  # not shown to this container

    reserved: set[int] = set()
    for word in filter(None, words.split(",")):
        first, _, last = word.partition("-")
        reserved.update(range(int(first), int(last or first) + 1))

    return reserved
