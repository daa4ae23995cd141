"""The daemon is killed, started twice, or finds what an earlier one left: scenarios 23, 26 to 30, and 33."""

from __future__ import annotations

import os
import random
import re
import signal
import socket
import stat
import subprocess
import sys
import time

import pytest

from orchestrator.adapters.store.state_file import load_state
from orchestrator.daemon.process.daemon import HEARD_S
from tests.busy import in_time
from tests.faults.lab import ROOT, Lab, new_lab
from tests.support import ORCH, PATIENCE_S, alive, until

GONE_S = 2.0
LATE = (
    b"POST /completion HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: 15\r\n\r\n"
    b'{"prompt": "a"}'
)
K = 3


def kill(lab: Lab) -> float:
    """Kill the daemon. Seconds until nothing of it is left."""
    assert lab.daemon is not None
    began = time.monotonic()
    lab.daemon.kill()
    lab.daemon.wait()
    until(lambda: not lab.tagged(), "nothing is left", GONE_S * K)
    return time.monotonic() - began


# 23 and 26. SIGKILL.


@pytest.mark.parametrize("faults", [{}, {"grandchild": "setsid", "ignore_term": True}], ids=["plain", "stubborn"])
def test_nothing_outlives_a_killed_daemon_and_the_next_one_is_clean(lab: Lab, faults: dict[str, object]) -> None:
    lab.fake("wrapped", "upstream", wrapper="{} &\nwait")
    lab.model("m", [faults, {}], engine="wrapped")
    lab.serve("m")
    lab.ready("m")
    assert in_time(kill(lab), GONE_S * K)
    lab.serve()  # what ran is started again
    lab.ready("m")
    lab.ask("r").check_complete(8)
    assert len(lab.starts("m")) == 2


def test_what_killed_writers_left_is_swept_at_the_next_start(lab: Lab) -> None:
    left = [
        lab.write(f"{directory}/.file.abcd_123.tmp", "half") for directory in ("config", "config/profiles", "state")
    ]
    lab.serve()
    assert not [path for path in left if os.path.exists(path)]


def test_a_daemon_that_dies_while_it_starts_an_engine_leaves_no_second_copy(lab: Lab) -> None:
    lab.model("m", [{"load_s": 30.0}, {}])
    lab.serve("m")
    first = until(lambda: lab.starts("m"), "the engine was started")[0]["pid"]
    kill(lab)
    assert not alive(first)
    lab.serve("m")
    lab.ready("m")
    assert len(lab.starts("m")) == 2


# 27 and 28. Two daemons.


def test_a_daemon_of_another_home_disturbs_nothing(lab: Lab, workshop: str) -> None:
    lab.run("m", faults={"tokens_s": 50})
    stream = lab.begin_asking("s", 150, stream=True)
    until(lambda: lab.requests("m", "accepted"), "the stream runs")
    with new_lab(workshop) as other:
        other.run("m")
        other.ask("r").check_complete(8)
        assert not set(other.tagged()) & set(lab.tagged())
        kill(other)

    stream.result().check_complete(150)


def test_a_second_daemon_of_the_same_home_is_refused_and_the_first_loses_nothing(lab: Lab) -> None:
    status = lab.run("m", faults={"tokens_s": 50})
    stream = lab.begin_asking("s", 100, stream=True)
    until(lambda: lab.requests("m", "accepted"), "the stream runs")
    done = lab.orch("serve", check=False)
    assert done.returncode == 5
    assert str(status["daemon_pid"]) in done.stderr
    stream.result().check_complete(100)
    held = [os.readlink(f"/proc/{status['pid']}/fd/{name}") for name in os.listdir(f"/proc/{status['pid']}/fd")]
    assert not any("lock" in target for target in held)
    kill(lab)
    lab.serve()
    lab.ready("m")


# 29. The control socket.


def test_a_socket_that_a_dead_daemon_left_is_replaced_by_one_that_only_we_may_use(lab: Lab) -> None:
    lab.run("m")
    kill(lab)
    path = os.path.join(lab.root, "run", "control.sock")
    assert stat.S_ISSOCK(os.lstat(path).st_mode)
    lab.serve()
    assert stat.S_IMODE(os.lstat(path).st_mode) == 0o600
    lab.ready("m")


def test_something_else_in_the_sockets_place_is_named_and_kept(lab: Lab) -> None:
    path = lab.write("run/control.sock", "precious")
    done = lab.orch("serve", check=False)
    assert done.returncode == 1
    assert path in done.stderr
    with open(path, encoding="utf-8") as file:
        assert file.read() == "precious"


def test_a_home_whose_path_is_too_long_for_a_socket_is_an_error_that_says_so(lab: Lab) -> None:
    deep = os.path.join(lab.root, "d" * 60, "e" * 60)
    done = subprocess.run(
        [*ORCH, "serve"], env={**lab.env, "ORCH_HOME": deep}, capture_output=True, text=True, timeout=PATIENCE_S
    )
    assert done.returncode != 0
    assert "Traceback" not in done.stderr
    assert "107" in done.stderr or "too long" in done.stderr


# 30. A torn state file.


@pytest.mark.parametrize(
    ("content", "kept"),
    [
        (b"", True),
        (b"\x00\xff garbage", True),
        (b'{"version": 1, "wan', True),
        (b"[1, 2]", True),
        (b'{"version": 1, "last": {"profile": 7}, "wanted": {"engine": "x"}}', False),
    ],
)
def test_a_state_file_that_cannot_be_read_does_not_keep_the_daemon_from_starting(
    lab: Lab, content: bytes, kept: bool
) -> None:
    path = lab.write("state/state.json", "")
    with open(path, "wb") as file:
        file.write(content)

    lab.run("m")
    lab.ask("r").check_complete(8)
    if kept:
        with open(f"{path}.bad", "rb") as file:
            assert file.read() == content


def test_a_state_file_of_a_newer_orch_is_refused_and_left_alone(lab: Lab) -> None:
    path = lab.write("state/state.json", '{"version": 99}')
    done = lab.orch("serve", check=False)
    assert done.returncode == 2, "a service manager is not to try again"
    assert f"{path} was written by a newer orch" in done.stderr
    assert "version 99, this orch reads up to 1" in done.stderr
    with open(path, encoding="utf-8") as file:
        assert file.read() == '{"version": 99}'

    os.unlink(path)


def test_a_writer_killed_at_any_moment_leaves_the_old_state_or_the_new(lab: Lab) -> None:
    path = os.path.join(lab.root, "state", "state.json")
    code = (
        f"import sys; sys.path.insert(0, {ROOT!r}); from orchestrator.adapters.store.state_file import save_state\n"
        f"n = 0\nwhile True:\n    n += 1\n    save_state({path!r}, {{'n': n, 'again': n, 'long': 'x' * 50000}})\n"
    )
    for _ in range(15):
        writer = subprocess.Popen([sys.executable, "-S", "-c", code])
        until(lambda: os.path.exists(path), "the first write")
        time.sleep(random.uniform(0.05, 0.2))
        writer.kill()
        writer.wait()
        state, notice = load_state(path)
        assert notice is None
        assert state["n"] == state["again"]

    for name in os.listdir(os.path.dirname(path)):
        if name.startswith(".state.json."):
            os.unlink(os.path.join(os.path.dirname(path), name))  # what a killed writer cannot take away itself


# 33. Signals.


def test_sigterm_while_loading_ends_both(lab: Lab) -> None:
    lab.model("m", {"load_s": 60.0})
    lab.serve("m")
    until(lambda: lab.starts("m"), "the engine was started")
    assert in_time(terminate(lab), 10)
    assert lab.tagged() == []


@pytest.mark.parametrize("strategy", ["beside", "replace"])
def test_sigterm_while_switching_ends_everything(lab: Lab, strategy: str) -> None:
    lab.run("a")
    lab.model("b", {"load_s": 60.0})
    switch = lab.begin("switch", "b", "--strategy", strategy)
    until(lambda: lab.starts("b"), "the new engine was started")
    assert in_time(terminate(lab), 10)
    assert lab.tagged() == []
    assert switch.wait(PATIENCE_S) != 0
    switch.communicate()


def test_sigterm_lets_a_stream_end_and_refuses_new_requests(lab: Lab) -> None:
    lab.run("m", faults={"tokens_s": 50})
    stream = lab.begin_asking("s", 75, stream=True)
    until(lambda: lab.requests("m", "accepted"), "the stream runs")
    port = int(lab.url.rpartition(":")[2])
    with socket.create_connection(("127.0.0.1", port)) as connected:
        assert lab.daemon is not None
        lab.daemon.send_signal(signal.SIGTERM)
        until(lambda: refused(port), "no new connection is taken")
        time.sleep(2 * HEARD_S)  # who was let in just before may say what he wants
        connected.sendall(LATE)
        assert connected.recv(4096).startswith(b"HTTP/1.1 503 ")
        assert not stream.done

    assert lab.daemon.wait(PATIENCE_S) == 0
    stream.result().check_complete(75)


def refused(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port)).close()
    except ConnectionRefusedError:
        return True

    return False


def test_a_second_sigterm_cuts_running_requests_off(lab: Lab) -> None:
    lab.run("m", faults={"tokens_s": 10})
    stream = lab.begin_asking("s", 1000, stream=True)
    until(lambda: lab.requests("m", "accepted"), "the stream runs")
    assert lab.daemon is not None
    lab.daemon.send_signal(signal.SIGTERM)
    until(lambda: re.search("running requests may end", lab.daemon_log()), "the first one is heeded")
    assert in_time(terminate(lab), 5)
    answer = stream.result()
    assert "error" in answer.events[-1]


def test_a_closed_terminal_leaves_nothing(lab: Lab) -> None:
    lab.model("m")
    leader, terminal = os.openpty()
    with open(os.path.join(lab.root, "daemon.log"), "ab") as log:
        # setsid --ctty gives it this terminal, as a shell in a window has one.
        words = ["setsid", "--ctty", *ORCH, "serve"]
        lab.daemon = subprocess.Popen(words, env=lab.env, stdin=terminal, stdout=log, stderr=log)

    os.close(terminal)
    until(lab.answers, "the daemon answers")
    lab.up("m")
    lab.ready("m")
    os.close(leader)  # the kernel sends SIGHUP
    assert lab.daemon.wait(PATIENCE_S) == 0, lab.daemon_log()
    until(lambda: not lab.tagged(), "nothing is left", GONE_S * K)


def test_a_broken_pipe_does_not_end_the_daemon(lab: Lab) -> None:
    lab.run("m")
    assert lab.daemon is not None
    lab.daemon.send_signal(signal.SIGPIPE)
    lab.ask("r").check_complete(8)


def terminate(lab: Lab) -> float:
    """Seconds until the daemon has ended, well."""
    assert lab.daemon is not None
    began = time.monotonic()
    lab.daemon.send_signal(signal.SIGTERM)
    assert lab.daemon.wait(PATIENCE_S) == 0, lab.daemon_log()
    return time.monotonic() - began
