from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.adapters.systemd.notify import (
    MAX_STATUS,
    VARIABLES,
    ManagerVariables,
    Notifier,
    own_unit,
    status_field,
    take_variables,
)


@pytest.fixture(params=["path", "abstract"])
def address(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    path = str(tmp_path / "notify")
    return path if request.param == "path" else "@" + path[1:]


@pytest.fixture
def manager(address: str) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind("\0" + address[1:] if address[0] == "@" else address)
        listener.setblocking(False)
        yield listener


def received(manager: socket.socket) -> list[str]:
    messages = []
    while True:
        try:
            messages.append(manager.recv(65536).decode())
        except BlockingIOError:
            return messages


def test_a_message_arrives_as_its_fields(address: str, manager: socket.socket) -> None:
    notifier = Notifier(address)
    assert notifier.connected
    assert notifier.send("READY=1", "STATUS=all is well")
    assert received(manager) == ["READY=1\nSTATUS=all is well"]
    notifier.close()


def test_a_manager_that_does_not_read_blocks_nobody_and_is_told_in_order_later(
    address: str, manager: socket.socket
) -> None:
    notifier = Notifier(address)
    fillers = 0
    while notifier.try_send("WATCHDOG=1"):
        fillers += 1

    assert not notifier.send("RELOADING=1")
    assert not notifier.send("READY=1")
    assert not notifier.try_send("STATUS=old by then")
    assert received(manager) == ["WATCHDOG=1"] * fillers
    assert notifier.flush()
    assert received(manager) == ["RELOADING=1", "READY=1"]
    notifier.close()


def test_a_manager_that_is_gone_costs_one_line_in_the_log(
    address: str, manager: socket.socket, caplog: pytest.LogCaptureFixture
) -> None:
    notifier = Notifier(address)
    manager.close()
    if address[0] == "/":
        os.unlink(address)

    for _ in range(100):
        assert notifier.send("WATCHDOG=1")

    assert len(caplog.records) == 1
    notifier.close()


@pytest.mark.parametrize("address", ["", "vsock:2:1234", "relative", "@", "/"])
def test_without_a_usable_address_nothing_is_sent(address: str) -> None:
    notifier = Notifier(address)
    assert not notifier.connected
    assert not notifier.send("READY=1") and not notifier.try_send("WATCHDOG=1")
    notifier.close()


def test_the_variables_are_taken_from_the_environment() -> None:
    environment = {
        "NOTIFY_SOCKET": "/run/n",
        "WATCHDOG_PID": "7",
        "WATCHDOG_USEC": "30000000",
        "LISTEN_PID": "7",
        "LISTEN_FDS": "2",
        "LISTEN_FDNAMES": "gateway:control",
        "LISTEN_PIDFDID": "1",
        "PATH": "/bin",
    }
    assert set(environment) - {"PATH"} == set(VARIABLES)
    assert take_variables(environment, 7) == ManagerVariables("/run/n", 30.0, ("2", "gateway:control"), None)
    assert environment == {"PATH": "/bin"}


def test_what_is_meant_for_another_process_is_taken_away_and_not_heeded() -> None:
    environment = {"WATCHDOG_PID": "8", "WATCHDOG_USEC": "30000000", "LISTEN_PID": "8", "LISTEN_FDS": "1"}
    assert take_variables(environment, 7) == ManagerVariables()
    assert environment == {}


def test_a_watchdog_without_a_pid_is_for_whoever_reads_it() -> None:
    assert take_variables({"WATCHDOG_USEC": "500000"}, 7).watchdog_s == 0.5


@pytest.mark.parametrize("text", ["", "0", "-1", "1.5", "x", str(2**64), "١"])
def test_a_watchdog_s_time_that_is_none_is_ignored(text: str) -> None:
    assert take_variables({"WATCHDOG_USEC": text}, 7).watchdog_s is None


def test_sockets_without_a_pid_are_nobody_s() -> None:
    assert take_variables({"LISTEN_FDS": "1"}, 7).sockets is None


@pytest.mark.parametrize(
    ("cgroup", "unit"),
    [
        ("0::/system.slice/orch.service", ("orch.service", "system")),
        ("0::/system.slice/orch.service/daemon", ("orch.service", "system")),
        ("0::/user.slice/user-1000.slice/user@1000.service/app.slice/orch.service", ("orch.service", "user")),
        ("12:pids:/system.slice/orch.service\n1:name=systemd:/system.slice/orch.service", ("orch.service", "system")),
        ("0::/user.slice/user-1000.slice/session-2.scope", None),
        ("0::/", None),
    ],
)
def test_a_process_knows_its_unit_by_its_control_group(
    tmp_path: Path, cgroup: str, unit: tuple[str, str] | None
) -> None:
    path = tmp_path / "cgroup"
    path.write_text(cgroup + "\n")
    assert own_unit(str(path)) == unit


def test_a_status_is_one_line_of_bounded_length() -> None:
    assert status_field("two\nlines\r\n and\tmore") == "STATUS=two lines and more"
    assert "\x1b" not in status_field("a \x1b[31mred\x1b[0m word\x07")
    assert len(status_field("x" * 1000)) == len("STATUS=") + MAX_STATUS
