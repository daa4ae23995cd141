"""Listeners that are opened, taken over, refused and given back."""

from __future__ import annotations

import os
import socket
import stat
import tempfile
from collections.abc import Iterator

import pytest

from orchestrator.adapters.systemd.listen_fds import Passed
from orchestrator.core.errors import OrchError
from orchestrator.daemon.process.sockets import bind_control, bind_gateway, open_listeners, url_of


@pytest.fixture
def path() -> Iterator[str]:
    """A short one: socket paths end at 108 bytes."""
    with tempfile.TemporaryDirectory(prefix="orch-") as folder:
        yield os.path.join(folder, "control.sock")


def test_what_was_not_handed_over_is_bound_and_given_back(path: str) -> None:
    listeners = open_listeners("127.0.0.1", 0, path, Passed())
    [gateway] = listeners.gateway
    assert listeners.hosts == ("127.0.0.1",)
    assert url_of(gateway).startswith("http://127.0.0.1:")
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
    with socket.create_connection(gateway.getsockname(), 5), socket.socket(socket.AF_UNIX) as client:
        client.connect(path)

    listeners.close()
    assert not os.path.exists(path)
    assert gateway.fileno() == listeners.control.fileno() == -1


def test_a_managers_sockets_are_used_and_its_path_is_left_in_place(path: str) -> None:
    gateway, control = bind_gateway("127.0.0.1", 0), bind_control(path)
    listeners = open_listeners("192.0.2.1", 1, path, Passed((gateway,), control))
    assert listeners.gateway == (gateway,)
    assert listeners.control is control
    assert listeners.hosts == ("127.0.0.1",)
    listeners.close()
    assert os.path.exists(path)


def test_of_the_hosts_handed_over_the_one_that_reaches_farthest_is_first(path: str) -> None:
    gateways = (bind_gateway("127.0.0.1", 0), bind_gateway("0.0.0.0", 0))
    listeners = open_listeners("127.0.0.1", 0, path, Passed(gateways))
    assert listeners.hosts == ("0.0.0.0", "127.0.0.1")
    listeners.close()


def test_a_control_socket_elsewhere_is_said_since_the_commands_do_not_find_it(
    path: str, caplog: pytest.LogCaptureFixture
) -> None:
    control = bind_control(path)
    open_listeners("127.0.0.1", 0, "/elsewhere.sock", Passed((), control)).close()
    assert f"the control socket handed over is `{path}`; `orch` asks at /elsewhere.sock" in caplog.text


def test_a_port_that_is_taken_is_named_with_what_to_do() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(OrchError) as caught:
            bind_gateway("127.0.0.1", port)

    assert caught.value.message == f"the gateway cannot listen on 127.0.0.1:{port}: Address already in use"
    assert "gateway.port" in (caught.value.hint or "")


def test_an_address_of_another_machine_is_refused() -> None:
    with pytest.raises(OrchError, match=r"192\.0\.2\.1:0"):
        bind_gateway("192.0.2.1", 0)


def test_a_dead_daemons_control_socket_is_replaced(path: str) -> None:
    bind_control(path).close()
    sock = bind_control(path)
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(path)
        assert client.getpeername() == sock.getsockname() == path

    sock.close()


@pytest.mark.parametrize("make", [lambda path: open(path, "w").close(), os.mkdir, lambda path: os.symlink("x", path)])
def test_anything_else_in_the_control_sockets_place_is_kept_and_the_gateway_let_go(path: str, make: object) -> None:
    assert callable(make)
    make(path)
    before = os.lstat(path)
    gateway = bind_gateway("127.0.0.1", 0)
    with pytest.raises(OrchError, match="taken by something else") as caught:
        open_listeners("127.0.0.1", 0, path, Passed((gateway,)))

    assert caught.value.details == (path,)
    assert os.lstat(path) == before
    assert gateway.fileno() == -1


def test_an_address_of_ip_version_6_is_written_in_brackets() -> None:
    try:
        sock = bind_gateway("::1", 0)
    except OrchError as error:
        pytest.skip(f"no IPv6 here: {error.message}")

    with sock:
        assert url_of(sock) == f"http://[::1]:{sock.getsockname()[1]}"
