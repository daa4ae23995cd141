"""Sockets that the service manager holds: scenario 35. The test holds them as systemd does, or systemd's own tool."""

from __future__ import annotations

import http.client
import os
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.busy import in_time
from tests.faults.lab import Lab, make_workshop, new_lab
from tests.integration.service_manager import SERVE, new_manager, serve_under
from tests.support import ORCH, PATIENCE_S, ROOT, until

RESTARTS = 20
CLIENTS = 4


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> str:
    return make_workshop(str(tmp_path_factory.mktemp("workshop")))


@pytest.fixture
def lab(workshop: str) -> Iterator[Lab]:
    with new_lab(workshop) as lab:
        yield lab


@pytest.fixture
def gateway() -> Iterator[socket.socket]:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        sock.listen(1024)
        yield sock


@pytest.fixture
def control(lab: Lab) -> Iterator[socket.socket]:
    path = os.path.join(lab.root, "run", "control.sock")
    os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(path)
        sock.listen(128)
        yield sock


def activated(lab: Lab, *listeners: socket.socket, names: str) -> subprocess.Popen[bytes]:
    env = {"LISTEN_FDS": str(len(listeners)), "LISTEN_FDNAMES": names}
    return serve_under(lab, env, own_pid=("LISTEN_PID",), listeners=listeners)


class Clients:
    """Asks all the time, each time on a connection of its own, and counts how it went."""

    def __init__(self, port: int, count: int = CLIENTS) -> None:
        self.outcomes: Counter[str] = Counter()
        self._port = port
        self._ended = threading.Event()
        self._threads = [threading.Thread(target=self._ask, daemon=True) for _ in range(count)]
        for thread in self._threads:
            thread.start()

    def _ask(self) -> None:
        while not self._ended.is_set():
            connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=PATIENCE_S)
            try:
                connection.request("GET", "/v1/models")
                response = connection.getresponse()
                response.read()
                outcome = str(response.status)
            except (OSError, http.client.HTTPException) as error:
                outcome = repr(error)
            finally:
                connection.close()

            self.outcomes[outcome] += 1

    def until_served(self, more: int) -> None:
        """Wait until so many more have been answered."""
        before = self.outcomes["200"]
        until(lambda: self.outcomes["200"] >= before + more, f"{more} more are served")

    def end(self) -> Counter[str]:
        self._ended.set()
        for thread in self._threads:
            thread.join(PATIENCE_S)

        return self.outcomes


@pytest.mark.timeout(180)
def test_twenty_restarts_under_load_refuse_nobody(lab: Lab, gateway: socket.socket, control: socket.socket) -> None:
    clients = Clients(gateway.getsockname()[1])
    pids = set()
    with new_manager() as manager:
        for _ in range(RESTARTS):
            after = len(manager.messages)
            lab.env["NOTIFY_SOCKET"] = manager.address
            daemon = activated(lab, gateway, control, names="gateway:control")
            manager.wait("READY", after=after)
            clients.until_served(2 * CLIENTS)
            pids.add(daemon.pid)
            lab.end()
            assert daemon.returncode == 0, lab.daemon_log()

        activated(lab, gateway, control, names="gateway:control")
        outcomes = clients.end()

    assert len(pids) == RESTARTS
    assert set(outcomes) == {"200"}, outcomes


@pytest.mark.timeout(120)
def test_a_completion_that_comes_between_two_daemons_is_served_by_the_second(
    lab: Lab, gateway: socket.socket, control: socket.socket
) -> None:
    lab.model("m")
    activated(lab, gateway, control, names="gateway:control")
    until(lab.answers, "the daemon answers")
    lab.up("m")
    lab.ready("m")
    for number in range(3):
        url = lab.url
        lab.end()
        waiting = [lab.begin_asking(f"w{number}-{index}") for index in range(5)]
        activated(lab, gateway, control, names="gateway:control")
        for request in waiting:
            request.result().check_complete(8)

        assert lab.url == url
        lab.ready("m")


def test_a_stop_lets_the_running_stream_end_and_leaves_new_clients_to_the_next_daemon(
    lab: Lab, gateway: socket.socket, control: socket.socket
) -> None:
    lab.model("m", [{"tokens_s": 40}, {}])
    daemon = activated(lab, gateway, control, names="gateway:control")
    until(lab.answers, "the daemon answers")
    lab.up("m")
    lab.ready("m")
    stream = lab.begin_asking("s", 80, stream=True)
    until(lambda: lab.requests("m", "accepted"), "the stream runs")
    daemon.send_signal(signal.SIGTERM)
    until(lambda: "running requests may end" in lab.daemon_log(), "it is heeded")
    until(lambda: not listens(daemon.pid, gateway), "it has let its listener go")
    assert not stream.done
    late = lab.begin_asking("late")
    stream.result().check_complete(80)
    assert daemon.wait(PATIENCE_S) == 0
    assert not late.done
    activated(lab, gateway, control, names="gateway:control")
    late.result().check_complete(8)


def listens(pid: int, sock: socket.socket) -> bool:
    return os.fstat(sock.fileno()).st_ino in inodes(pid)


def inodes(pid: int) -> set[int]:
    """Of the sockets that a process has open."""
    found = set()
    for name in os.listdir(f"/proc/{pid}/fd"):
        try:
            target = os.readlink(f"/proc/{pid}/fd/{name}")
        except FileNotFoundError:
            continue

        if target.startswith("socket:["):
            found.add(int(target[8:-1]))

    return found


def test_what_was_handed_over_is_used_kept_from_children_and_left_at_the_end(
    lab: Lab, gateway: socket.socket, control: socket.socket
) -> None:
    lab.model("m")
    daemon = activated(lab, control, gateway, names="control:gateway")
    until(lab.answers, "the daemon answers")
    assert lab.url == f"http://127.0.0.1:{gateway.getsockname()[1]}"
    assert listens(daemon.pid, gateway) and listens(daemon.pid, control)
    lab.up("m")
    lab.ready("m")
    children = [int(pid) for pid in Path(f"/proc/{daemon.pid}/task/{daemon.pid}/children").read_text().split()]
    assert len(children) >= 2
    for pid in {*children, *lab.tagged()} - {daemon.pid}:
        assert not listens(pid, gateway) and not listens(pid, control)
        assert b"LISTEN_" not in Path(f"/proc/{pid}/environ").read_bytes()

    lab.end()
    assert os.path.exists(control.getsockname())
    with socket.create_connection(gateway.getsockname(), timeout=5), socket.socket(socket.AF_UNIX) as client:
        client.connect(control.getsockname())


def test_sockets_for_another_process_are_not_taken(lab: Lab, gateway: socket.socket) -> None:
    env = {"LISTEN_FDS": "1", "LISTEN_FDNAMES": "gateway", "LISTEN_PID": "1"}
    daemon = serve_under(lab, env, listeners=[gateway])
    until(lab.answers, "the daemon answers")
    assert not lab.url.endswith(f":{gateway.getsockname()[1]}")
    assert daemon.poll() is None


@pytest.mark.parametrize(
    ("names", "said"), [("control", "must be a unix socket"), ("orch.socket", "allowed names: gateway, control")]
)
def test_a_socket_that_does_not_fit_is_a_mistake_in_the_unit(
    lab: Lab, gateway: socket.socket, names: str, said: str
) -> None:
    daemon = activated(lab, gateway, names=names)
    assert daemon.wait(PATIENCE_S) == 2
    assert said in lab.daemon_log() and "FileDescriptorName=" in lab.daemon_log()
    assert "Traceback" not in lab.daemon_log()


def test_an_address_that_others_reach_needs_a_key_whoever_opened_it(lab: Lab) -> None:
    with socket.socket() as wide:
        wide.bind(("0.0.0.0", 0))
        wide.listen()
        daemon = activated(lab, wide, names="gateway")
        assert daemon.wait(PATIENCE_S) == 2
        assert "0.0.0.0" in lab.daemon_log() and "api_key_file" in lab.daemon_log()


@pytest.mark.skipif(shutil.which("systemd-socket-activate") is None, reason="systemd-socket-activate is not installed")
def test_systemd_s_own_tool_starts_a_daemon_at_the_first_connection(lab: Lab) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]

    words = ["systemd-socket-activate", f"--listen=127.0.0.1:{port}", "--fdname=gateway"]
    names = ("ORCH_HOME", "PATH", "HOME")
    words += [f"--setenv={name}={lab.env[name]}" for name in names if name in lab.env]
    with open(os.path.join(lab.root, "daemon.log"), "ab") as log:
        lab.daemon = subprocess.Popen([*words, *SERVE], env=lab.env, cwd=str(ROOT), stderr=log)

    answer = until(lambda: ask_when_it_listens(port), "it listens")
    assert answer == 200
    assert lab.status()["daemon_pid"] == lab.daemon.pid  # the tool became the daemon
    assert lab.url == f"http://127.0.0.1:{port}"
    lab.end()
    assert lab.daemon.returncode == 0


def ask_when_it_listens(port: int) -> int | None:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE_S)
    try:
        connection.request("GET", "/health")
        return connection.getresponse().status
    except ConnectionRefusedError:
        return None
    finally:
        connection.close()


def test_a_second_daemon_leaves_the_sockets_of_the_first_alone(
    lab: Lab, gateway: socket.socket, control: socket.socket
) -> None:
    activated(lab, gateway, control, names="gateway:control")
    until(lab.answers, "the daemon answers")
    began = time.monotonic()
    done = subprocess.run([*ORCH, "serve"], env=lab.env, capture_output=True, text=True, timeout=PATIENCE_S)
    assert done.returncode == 5, done.stderr
    assert in_time(time.monotonic() - began, 10)
    assert lab.status()["state"] == "stopped"
