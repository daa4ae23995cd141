"""Stopping what does not want to stop: scenarios 7 to 10, and 56."""

from __future__ import annotations

import os
import signal
import time

import pytest

from tests.busy import in_time
from tests.faults.lab import QUICK, Lab
from tests.support import alive, until

GRACE_S = 1.0
K_S = 3.0
"""What a busy machine may add."""


def stop(lab: Lab) -> float:
    """Seconds until nothing of the engine is left."""
    began = time.monotonic()
    lab.control("/v1/down", {})
    lab.state("stopped")
    assert lab.tagged() == []
    return time.monotonic() - began


@pytest.mark.parametrize("dialect", ["upstream", "fork"])
def test_an_engine_that_ignores_sigterm_is_killed_after_its_grace(lab: Lab, dialect: str) -> None:
    lab.run("m", faults={"ignore_term": True}, dialect=dialect)
    took_s = stop(lab)
    assert took_s >= GRACE_S and in_time(took_s, GRACE_S + K_S)


def test_an_engine_that_stops_slowly_within_its_grace_is_not_killed(lab: Lab) -> None:
    lab.configure(QUICK.replace("stop_grace_s = 1.0", "stop_grace_s = 5.0"))
    lab.run("m", faults={"slow_term_s": 1.5})
    took_s = stop(lab)
    assert took_s >= 1.5 and in_time(took_s, 1.5 + K_S)
    assert lab.mark("m", "ended")


@pytest.mark.parametrize("how", ["pgid", "setsid"])
def test_a_grandchild_that_holds_the_pipe_is_gone_after_the_stop(lab: Lab, how: str) -> None:
    lab.run("m", faults={"grandchild": how})
    assert len(lab.tagged()) >= 2
    assert in_time(stop(lab), GRACE_S + K_S)


@pytest.mark.parametrize("how", ["pgid", "setsid"])
def test_a_grandchild_is_gone_after_a_crash_and_the_engine_comes_back(lab: Lab, how: str) -> None:
    pid = lab.run("m", faults=[{"grandchild": how}, {}])["pid"]
    left = [each for each in lab.tagged() if each != pid]
    os.kill(pid, signal.SIGSEGV)
    until(lambda: len(lab.starts("m")) == 2, "it is started again")
    lab.ready("m")
    assert left and not any(map(alive, left))


def test_a_server_behind_a_shell_is_stopped_with_its_grace(lab: Lab) -> None:
    lab.fake("wrapped", "upstream", wrapper="{} &\nwait")
    lab.model("m", {"slow_term_s": 0.3}, engine="wrapped")
    lab.serve("m")
    lab.ready("m")
    assert in_time(stop(lab), GRACE_S + K_S)
    assert lab.mark("m", "ended")


def test_a_request_that_comes_while_a_stopped_model_is_started_again_waits_and_is_served(lab: Lab) -> None:
    lab.run("m", faults={"slow_term_s": 0.8})
    lab.control("/v1/down", {})
    until(lambda: lab.status()["state"] in ("draining", "stopping"), "it is being stopped")
    lab.up("m")
    waiting = [lab.begin_asking(f"w{index}") for index in range(5)]
    for request in waiting:
        request.result().check_complete(8)

    assert {row["instance"] for row in lab.requests("m", "accepted")} == {lab.starts("m")[1]["instance"]}


def test_a_request_for_a_model_that_a_person_stopped_is_told_so(lab: Lab) -> None:
    lab.run("m")
    stop(lab)
    answer = lab.ask("r")
    assert answer.status == 503
    assert "orch up" in answer.json["error"]["message"]
    assert answer.headers["x-should-retry"] == "false"


def test_a_running_request_ends_before_the_engine_does(lab: Lab) -> None:
    lab.run("m", faults={"tokens_s": 50})
    running = lab.begin_asking("r", 50, stream=True)
    until(lambda: lab.requests("m", "accepted"), "it is being answered")
    stop(lab)
    running.result().check_complete(50)
