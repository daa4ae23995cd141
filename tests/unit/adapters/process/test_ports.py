from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from orchestrator.adapters.process.ports import (
    HIGH_PORT,
    LOW_PORT,
    can_listen,
    free_port,
    listener_pids,
    owned_by,
    port_is_free,
)
from orchestrator.core.errors import OrchError
from tests.support import ROOT

LISTENS = ROOT / "tests" / "fakes" / "listens.py"


@contextmanager
def server(port: int, *options: str) -> Iterator[int]:
    process = subprocess.Popen([sys.executable, LISTENS, str(port), *options], stdout=subprocess.PIPE)
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == b"listening\n"
        yield process.pid
    finally:
        process.kill()
        process.communicate()


def listening(address: str, family: socket.AddressFamily = socket.AF_INET) -> socket.socket:
    sock = socket.socket(family)
    sock.bind((address, free_port()))
    sock.listen()
    return sock


def test_a_free_port_can_be_bound_and_is_in_the_range() -> None:
    port = free_port()
    assert LOW_PORT <= port <= HIGH_PORT
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", port))


def test_ports_promised_to_others_are_not_given_out() -> None:
    low = free_port()
    assert free_port(exclude={low + 1, low + 2}, low=low, high=low + 2) == low


def test_a_range_without_a_free_port_is_an_error_that_says_so() -> None:
    with listening("127.0.0.1") as sock:
        port = sock.getsockname()[1]
        with pytest.raises(OrchError, match="no free port"):
            free_port(low=port, high=port)


def test_a_port_shared_with_reuseport_is_not_free() -> None:
    port = free_port()
    with server(port, "--share"):
        assert not port_is_free(port)

    assert port_is_free(port)


@pytest.mark.parametrize("address", ["127.0.0.1", "0.0.0.0"])
def test_a_listener_is_found_by_its_socket(address: str) -> None:
    with listening(address) as sock:
        port = sock.getsockname()[1]
        assert listener_pids(port) == {os.getpid()}
        assert owned_by(port, {os.getpid()}) is True


def test_a_listener_on_every_ipv6_address_takes_ipv4_connections_too() -> None:
    with listening("::", socket.AF_INET6) as sock:
        assert owned_by(sock.getsockname()[1], {os.getpid()}) is True


def test_a_port_without_a_listener_belongs_to_nobody() -> None:
    port = free_port()
    assert listener_pids(port) == set()
    assert owned_by(port, {os.getpid()}) is None


def test_a_connection_is_not_a_listener() -> None:
    with listening("127.0.0.1") as sock:
        port = sock.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)) as client:
            assert listener_pids(client.getsockname()[1]) == set()


def test_a_stranger_on_the_port_is_not_taken_for_ours() -> None:
    port = free_port()
    with server(port) as stranger:
        assert owned_by(port, {os.getpid()}) is False
        assert listener_pids(port) == {stranger}
        assert listener_pids(port, {os.getpid()}) == set()


def test_a_stranger_who_shares_the_port_with_ours_is_noticed() -> None:
    port = free_port()
    with server(port, "--share") as ours, server(port, "--share") as stranger:
        assert owned_by(port, {ours}) is False
        assert owned_by(port, {ours, stranger}) is True
        assert listener_pids(port) == {ours, stranger}


def test_a_process_that_is_gone_owns_nothing() -> None:
    gone = subprocess.Popen(["/bin/true"])
    gone.wait()
    with listening("127.0.0.1") as sock:
        assert owned_by(sock.getsockname()[1], {gone.pid}) is False


def test_the_kernel_lists_listeners_before_connections() -> None:
    """What the early end of the search relies on: it does not read ten thousand connections."""
    with (
        listening("127.0.0.1") as first,
        listening("127.0.0.1") as second,
        socket.create_connection(first.getsockname()),
        socket.create_connection(second.getsockname()),
        open("/proc/net/tcp", encoding="ascii") as table,
    ):
        states = [row.split()[3] for row in table][1:]

    listeners = states.count("0A")
    assert 2 <= listeners < len(states)
    assert states[:listeners] == ["0A"] * listeners


def test_the_gateway_could_listen_where_connections_only_linger_but_not_beside_a_server() -> None:
    with socket.socket() as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the gateway's own
        port = free_port()
        server.bind(("127.0.0.1", port))
        server.listen()
        assert not can_listen("127.0.0.1", port)
        assert not can_listen("localhost", port)
        with socket.create_connection(("127.0.0.1", port)) as client:
            accepted, _ = server.accept()
            accepted.close()  # this end waits in TIME_WAIT
            client.recv(1)

    assert can_listen("127.0.0.1", port)
