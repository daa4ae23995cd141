from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.adapters.systemd.listen_fds import Passed, adopt_sockets
from orchestrator.core.errors import UsageError
from orchestrator.daemon.process.sockets import open_listeners

FIRST = 200
"""A test's own descriptors may be where systemd's would be."""


@contextlib.contextmanager
def handed(*sockets: socket.socket) -> Iterator[None]:
    """Put these at consecutive descriptors; whatever is there at the end is closed."""
    for index, sock in enumerate(sockets):
        os.dup2(sock.fileno(), FIRST + index, inheritable=True)

    try:
        yield
    finally:
        for index in range(len(sockets)):
            with contextlib.suppress(OSError):
                os.close(FIRST + index)


def listening(family: int = socket.AF_INET, address: object = ("127.0.0.1", 0)) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    sock.bind(address)  # type: ignore[arg-type]  # one of two kinds of address
    sock.listen()
    return sock


@pytest.fixture
def gateway() -> Iterator[socket.socket]:
    with listening() as sock:
        yield sock


@pytest.fixture
def control(tmp_path: Path) -> Iterator[socket.socket]:
    with listening(socket.AF_UNIX, str(tmp_path / "control.sock")) as sock:
        yield sock


def refused(count: str, names: str | None) -> str:
    with pytest.raises(UsageError) as caught:
        adopt_sockets(count, names, FIRST)

    assert caught.value.hint is not None
    return " ".join((caught.value.message, *caught.value.details))


@pytest.mark.parametrize("names", ["control:gateway", None], ids=["named", "by kind"])
def test_sockets_are_known_by_name_or_kind_and_closed_on_exec(
    gateway: socket.socket, control: socket.socket, names: str | None
) -> None:
    with handed(control, gateway):
        passed = adopt_sockets("2", names, FIRST)
        assert passed.control is not None
        assert passed.control.getsockname() == control.getsockname()
        assert [sock.getsockname() for sock in passed.gateway] == [gateway.getsockname()]
        assert not os.get_inheritable(FIRST) and not os.get_inheritable(FIRST + 1)
        code = f"import os; os.fstat({FIRST})"
        child = subprocess.run([sys.executable, "-c", code], close_fds=False, stderr=subprocess.DEVNULL)
        assert child.returncode != 0
        passed.close()

    with socket.create_connection(gateway.getsockname(), timeout=5):
        pass  # the manager's copy still listens


def test_two_addresses_can_both_be_the_gateway_s(gateway: socket.socket) -> None:
    with listening() as second, handed(gateway, second):
        passed = adopt_sockets("2", "gateway:gateway", FIRST)
        assert len(passed.gateway) == 2
        passed.close()


def test_a_control_socket_must_be_a_unix_socket(gateway: socket.socket) -> None:
    with handed(gateway):
        assert "must be a unix socket" in refused("1", "control")


def test_the_gateway_cannot_be_a_unix_socket(control: socket.socket) -> None:
    with handed(control):
        assert "this is a unix socket" in refused("1", "gateway")


def test_a_name_that_means_nothing_here_is_refused_with_those_that_do(gateway: socket.socket) -> None:
    with handed(gateway):
        found = refused("1", "orch.socket")
        assert "orch.socket" in found and "gateway, control" in found


def test_a_datagram_socket_is_refused() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock, handed(sock):
        assert "no stream socket" in refused("1", "gateway")


def test_a_connection_is_refused(gateway: socket.socket) -> None:
    with socket.create_connection(gateway.getsockname()) as sock, handed(sock):
        assert "does not listen" in refused("1", "gateway")


def test_a_file_is_refused() -> None:
    fd = os.open("/dev/null", os.O_RDONLY)
    os.dup2(fd, FIRST)
    os.close(fd)
    try:
        assert "no socket" in refused("1", "gateway")
    finally:
        os.close(FIRST)


def test_a_descriptor_that_is_not_open_is_refused() -> None:
    assert f"descriptor {FIRST}" in refused("1", "gateway")


def test_two_control_sockets_are_refused(control: socket.socket, tmp_path: Path) -> None:
    with listening(socket.AF_UNIX, str(tmp_path / "second")) as second, handed(control, second):
        assert "2 control sockets" in refused("2", None)


def test_names_and_sockets_must_be_as_many(gateway: socket.socket) -> None:
    with handed(gateway):
        assert "2 names for 1 sockets" in refused("1", "gateway:control")


@pytest.mark.parametrize("count", ["", "0", "-1", "x", "1000000", "1 "])
def test_a_count_that_is_none_is_refused(count: str) -> None:
    assert "LISTEN_FDS" in refused(count, None)


def test_what_is_handed_over_is_not_bound_and_not_unlinked(
    gateway: socket.socket, control: socket.socket, tmp_path: Path
) -> None:
    path = str(tmp_path / "control.sock")
    with handed(gateway, control):
        passed = adopt_sockets("2", "gateway:control", FIRST)
        listeners = open_listeners("127.0.0.1", gateway.getsockname()[1], path, passed)
        assert listeners.hosts == ("127.0.0.1",)
        listeners.close()

    assert os.path.exists(path)
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(path)


def test_what_is_not_handed_over_is_bound_and_removed_at_the_end(gateway: socket.socket, tmp_path: Path) -> None:
    path = str(tmp_path / "own.sock")
    with handed(gateway):
        listeners = open_listeners("127.0.0.1", 0, path, adopt_sockets("1", None, FIRST))
        assert listeners.gateway[0].getsockname() == gateway.getsockname()
        assert os.path.exists(path)
        listeners.close()

    assert not os.path.exists(path)


def test_the_address_that_is_reached_from_farthest_comes_first(gateway: socket.socket, tmp_path: Path) -> None:
    with listening(address=("0.0.0.0", 0)) as wide, handed(gateway, wide):
        listeners = open_listeners("127.0.0.1", 0, str(tmp_path / "c"), adopt_sockets("2", None, FIRST))
        assert listeners.hosts == ("0.0.0.0", "127.0.0.1")
        listeners.close()


def test_nothing_handed_over_means_that_the_daemon_opens_its_own(tmp_path: Path) -> None:
    listeners = open_listeners("127.0.0.1", 0, str(tmp_path / "c"), Passed())
    assert len(listeners.gateway) == 1 and listeners.hosts == ("127.0.0.1",)
    listeners.close()
