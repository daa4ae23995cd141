"""Starts that fail, hang, lie, or take long: scenarios 1, 14 to 18 and 20."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tests.busy import in_time
from tests.faults.lab import QUICK, Lab
from tests.support import until

BAD_MODEL = "gguf_init_from_reader: invalid magic characters: 'oops', expected 'GGUF'"
NO_LIBRARY = (
    "llama-server: error while loading shared libraries: libcudart.so.12: cannot open shared object file: "
    "No such file or directory"
)
STALL = QUICK.replace("drain_s = 5.0", "drain_s = 5.0\nload_stall_s = 1.0")


# 1. A bad model, a bad flag.


def test_a_bad_model_is_told_to_those_who_wait_and_not_tried_again(lab: Lab) -> None:
    lab.model("bad", {"load_s": 1.0, "die_at": "load", "say": [BAD_MODEL]})
    lab.serve("bad")
    until(lambda: lab.starts("bad"), "the engine was started")
    waiting = [lab.begin_asking(f"w{index}") for index in range(4)]
    answers = [each.result() for each in waiting]
    noticed_s = time.monotonic() - lab.starts("bad")[0]["time"] - 1.0
    assert [answer.status for answer in answers] == [424] * 4
    assert in_time(noticed_s, 3.0)
    error = answers[0].json["error"]
    assert "cannot use this model file" in error["message"] and "invalid magic" in error["message"]
    assert answers[0].headers["x-should-retry"] == "false"
    status = lab.state("failed")
    assert [attempt["outcome"] for attempt in status["attempts"]] == ["bad_model"]
    assert lab.ask("late").status == 424
    assert len(lab.starts("bad")) == 1


def test_a_flag_that_the_engine_refuses_at_start_fails_for_good(lab: Lab) -> None:
    lab.model("odd", {"die_at": "spawn", "say": ["error: invalid argument: --context-shift"]})
    lab.serve("odd")
    status = lab.state("failed")
    assert [attempt["outcome"] for attempt in status["attempts"]] == ["bad_flag"]
    assert len(lab.starts("odd")) == 1


# 14 and 15. Loading takes long.


def test_the_fork_is_loading_while_it_is_silent(lab: Lab) -> None:
    lab.model("slow", {"load_s": 3.0}, engine="fake-fork")
    lab.serve("slow")
    start = until(lambda: lab.starts("slow"), "the engine was started")[0]
    pending = 0
    while time.monotonic() < start["time"] + 2.8:
        assert lab.status()["state"] == "starting"
        pending = max(pending, connections_to(start["port"]))
        time.sleep(0.05)

    lab.ready("slow")
    assert in_time(time.monotonic() - start["time"] - 3.0, 3.0)
    assert pending <= 2  # one, and one that was closed and is not accepted yet


def test_a_load_that_makes_progress_outlasts_the_limit(lab: Lab) -> None:
    lab.configure(STALL)
    lab.model("slow", {"load_s": 4.0})
    lab.serve("slow")
    lab.ready("slow")
    assert len(lab.starts("slow")) == 1


def test_a_load_without_progress_is_ended_and_tried_once_more_with_twice_the_time(lab: Lab) -> None:
    lab.configure(STALL)
    lab.model("stuck", [{"load_s": 60.0, "load_moves": False}, {}])
    lab.serve("stuck")
    status = lab.ready("stuck")
    assert [attempt["outcome"] for attempt in status["attempts"]] == ["engine_bug", "ready"]
    assert "no progress" in status["attempts"][0]["cause"]
    assert status["attempts"][0]["next"] == "start once more, with twice the time"


def test_a_load_that_is_silent_twice_has_failed_and_says_which_setting_gives_it_more_time(lab: Lab) -> None:
    lab.configure(STALL)
    lab.model("stuck", {"load_s": 60.0, "load_moves": False})
    lab.serve("stuck")
    status = lab.state("failed")
    assert [attempt["outcome"] for attempt in status["attempts"]] == ["engine_bug"] * 2
    first, second = (int(attempt["cause"].split(" for ")[1].split(" s")[0]) for attempt in status["attempts"])
    assert 1 <= first < second
    assert 'the last line was "' in status["attempts"][1]["cause"]
    assert len(lab.starts("stuck")) == 2
    assert "daemon.load_stall_s" in lab.orch("up", "stuck", check=False).stderr


def test_a_load_that_computes_in_silence_is_said_to_and_not_ended(lab: Lab) -> None:
    lab.configure(STALL)
    lab.model("compiles", {"load_s": 4.0, "load_moves": False, "load_computes": True})
    lab.serve("compiles")
    lab.ready("compiles")
    assert len(lab.starts("compiles")) == 1
    assert "in silence" in lab.events("silent_load")[0] and "daemon.load_stall_s" in lab.events("silent_load")[0]


# 16. False ready.


@pytest.mark.parametrize("lie", [{"die_at": "health", "exit": 0}, {"refuse": 500}], ids=["dies", "cannot infer"])
def test_no_request_reaches_an_engine_that_only_says_that_it_is_ready(lab: Lab, lie: dict[str, Any]) -> None:
    lab.model("liar", [lie, lie, {}])
    lab.serve("liar")
    waiting = lab.begin_asking("w")
    waiting.result().check_complete(8)
    starts = lab.starts("liar")
    assert len(starts) == 3
    assert lab.requests("liar", "accepted")[0]["instance"] == starts[2]["instance"]


def test_a_switch_to_an_engine_that_only_says_that_it_is_ready_keeps_the_old_one(lab: Lab) -> None:
    lab.run("good")
    lab.model("liar", {"refuse": 500})
    done = lab.orch("switch", "liar", "--strategy", "beside", check=False)
    assert done.returncode == 1
    assert "canary" in done.stderr and "rolled back: good" in done.stderr
    lab.ask("after").check_complete(8)
    assert lab.requests("liar", "accepted") == []


# 17 and 18. Somebody else on the port.


def test_an_impostor_on_the_port_gets_no_request_and_no_key(lab: Lab) -> None:
    lab.model("mine", [{"bind_after_s": 1.0}, {}])
    lab.serve("mine")
    start = until(lambda: lab.starts("mine"), "the engine was started")[0]
    with impostor(start["port"]) as heard:
        lab.ready("mine")
        lab.ask("r").check_complete(8)

    assert heard == []
    assert lab.starts("mine")[1]["port"] != start["port"]


def test_an_engine_that_finds_its_port_taken_is_started_on_another(lab: Lab) -> None:
    taken = "0.00.100.377 E srv  start: couldn't bind HTTP server socket, hostname: 127.0.0.1, port: 20000"
    lab.model("mine", [{"die_at": "spawn", "say": [taken]}, {}])
    lab.serve("mine")
    status = lab.ready("mine")
    assert [attempt["outcome"] for attempt in status["attempts"]] == ["port_in_use", "ready"]


def test_a_leftover_that_shares_the_port_gets_no_request(lab: Lab) -> None:
    lab.model("mine", [{"bind_after_s": 1.0}, {}], engine="fake-fork")
    lab.serve("mine")
    start = until(lambda: lab.starts("mine"), "the engine was started")[0]
    with impostor(start["port"], share=True) as heard:
        lab.ready("mine")
        instances = {lab.ask(f"r{index}", 1).headers["x-fake-instance"] for index in range(50)}

    assert heard == []
    assert instances == {lab.starts("mine")[-1]["instance"]}


# 20. What keeps a process from running at all.


@pytest.mark.parametrize(
    ("faults", "outcome"),
    [({"exit": 127, "say": [NO_LIBRARY]}, "missing_library"), ({"signal": "ILL"}, "illegal_instruction")],
    ids=["no library", "another processor"],
)
def test_a_program_that_cannot_run_here_is_named_and_not_tried_again(
    lab: Lab, faults: dict[str, Any], outcome: str
) -> None:
    lab.model("mine", {"die_at": "spawn", **faults})
    lab.serve("mine")
    status = lab.state("failed")
    assert [attempt["outcome"] for attempt in status["attempts"]] == [outcome]
    assert len(lab.starts("mine")) == 1


def test_an_engine_whose_file_lost_its_right_to_run_is_refused_and_named(lab: Lab) -> None:
    path = lab.fake("mine", "upstream")
    lab.model("here")
    lab.model("there", engine="mine")
    lab.serve("here")
    lab.ready("here")
    os.chmod(path, 0o644)
    done = lab.orch("switch", "there", check=False)
    assert done.returncode != 0
    assert path in done.stderr and "not executable" in done.stderr
    lab.ask("r").check_complete(8)


def test_thirty_failed_starts_leave_nothing_behind(lab: Lab) -> None:
    lab.configure("[restart]\nfirst_delay_s = 0.01\nmax_delay_s = 0.01\nintensity = 1000\n")
    lab.model("mine", {"die_at": "spawn", "signal": "KILL"})
    lab.serve("mine")
    until(lambda: len(lab.starts("mine")) >= 30, "thirty starts")


@contextmanager
def impostor(port: int, *, share: bool = False) -> Iterator[list[bytes]]:
    """Answers 200 to everything on a port.

    :return: what it was sent
    """
    heard: list[bytes] = []
    with socket.socket() as listener:
        if share:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)

        listener.bind(("127.0.0.1", port))
        listener.listen()

        def serve() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return

                with connection:
                    heard.append(connection.recv(65536))
                    connection.sendall(b'HTTP/1.1 200 OK\r\nContent-Length: 15\r\n\r\n{"status":"ok"}')

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        try:
            yield heard
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


def connections_to(port: int) -> int:
    """Established connections to a port, seen from its clients."""
    with open("/proc/net/tcp", encoding="ascii") as table:
        rows = [row.split() for row in table][1:]

    return sum(1 for row in rows if row[2].endswith(f":{port:04X}") and row[3] == "01")
