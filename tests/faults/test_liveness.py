"""Engines that live and do not work, and engines that work and look dead: scenarios 12, 13 and 51."""

from __future__ import annotations

import os
import signal
import time

import pytest

from tests.faults.lab import QUICK, Lab
from tests.support import until

PROBE_S = 0.2
STALL_S = 1.5
WATCHFUL = QUICK.replace("[daemon]", f"[daemon]\nprobe_s = {PROBE_S}\nstall_s = {STALL_S}")
FOUR = "[context]\nparallel = 4\n"
BOTH = pytest.mark.parametrize("dialect", ["upstream", "fork"])


@pytest.fixture
def lab(lab: Lab) -> Lab:
    """A lab whose daemon looks often, and is not patient."""
    lab.configure(WATCHFUL)
    return lab


# 12. A stopped process.


@BOTH
def test_a_stopped_engine_gets_no_new_requests_then_is_killed_and_started_again(lab: Lab, dialect: str) -> None:
    pid = lab.run("m", dialect=dialect)["pid"]
    os.kill(pid, signal.SIGSTOP)
    until(lambda: lab.events("unrouted"), "new requests are held")
    held = lab.begin_asking("held")
    until(lambda: len(lab.starts("m")) == 2, "it is started again")
    held.result().check_complete(8)
    assert {row["instance"] for row in lab.requests("m", "accepted")} == {lab.starts("m")[1]["instance"]}
    assert "stopped" in lab.ready("m")["attempts"][0]["cause"]


def test_a_request_that_was_with_a_stopped_engine_is_answered_by_the_next(lab: Lab) -> None:
    lab.replayed.add("r")
    pid = lab.run("m", faults=[{"prompt_s": 30}, {}])["pid"]
    request = lab.begin_asking("r")
    until(lambda: lab.requests("m", "accepted"), "it is being answered")
    os.kill(pid, signal.SIGSTOP)
    request.result().check_complete(8)


def test_an_engine_that_is_stopped_for_a_moment_goes_on_where_it_was(lab: Lab) -> None:
    pid = lab.run("m")["pid"]
    os.kill(pid, signal.SIGSTOP)
    until(lambda: lab.events("unrouted"), "new requests are held")
    held = lab.begin_asking("held")
    os.kill(pid, signal.SIGCONT)
    held.result().check_complete(8)
    assert lab.ready("m")["pid"] == pid
    assert lab.events("routed")


# 13. /health is good, and nothing is computed.


@BOTH
def test_an_engine_whose_inference_is_dead_is_started_again(lab: Lab, dialect: str) -> None:
    lab.replayed.add("r")
    lab.run("m", faults=[{"hang": "infer"}, {}], dialect=dialect)
    began = time.monotonic()
    request = lab.begin_asking("r")
    request.result().check_complete(8)
    assert time.monotonic() - began > STALL_S
    assert "hangs" in lab.ready("m")["attempts"][0]["cause"]


def test_questions_that_need_no_inference_do_not_hide_that_it_is_dead(lab: Lab) -> None:
    lab.replayed.add("r")
    lab.run("m", faults=[{"hang": "infer"}, {}])
    request = lab.begin_asking("r")

    def asked_and_started_again() -> bool:
        lab.request("GET", "/slots", url=lab.url)
        lab.request("GET", "/props", url=lab.url)
        return len(lab.starts("m")) == 2

    until(asked_and_started_again, "it is started again")
    request.result().check_complete(8)


READS_ON = """\
case "$*" in *--help*|*--version*) ;; *)
(while sleep 0.2; do echo "slot update_slots: id  0 | task 2 | prompt processing progress, n_tokens = 2048" >&2; done) &
esac
exec {}"""
"""Says what upstream says after each batch of a prompt."""


def test_an_engine_that_reads_a_long_prompt_and_says_so_is_left_alone(lab: Lab) -> None:
    lab.fake("reader", "upstream", wrapper=READS_ON)
    lab.model("m", {"prompt_s": STALL_S * 3}, engine="reader")
    lab.serve("m")
    lab.ready("m")
    lab.ask("r").check_complete(8)
    assert len(lab.starts("m")) == 1


def test_a_slow_answer_that_nobody_sees_before_its_end_is_left_alone(lab: Lab) -> None:
    lab.run("m", faults={"tokens_s": 10})
    lab.ask("r", int(STALL_S * 3 * 10)).check_complete(int(STALL_S * 3 * 10))
    assert len(lab.starts("m")) == 1


def test_an_engine_with_all_slots_busy_and_a_queue_is_left_alone(lab: Lab) -> None:
    lab.run("m", faults={"tokens_s": 40}, more=FOUR)
    requests = [lab.begin_asking(f"r{index}", 80, stream=index % 2 == 0) for index in range(12)]
    for request in requests:
        request.result().check_complete(80)

    assert len(lab.starts("m")) == 1


# 51. The daemon itself slept.


def test_nothing_is_ended_because_the_daemon_was_suspended(lab: Lab) -> None:
    lab.run("m", faults={"tokens_s": 10})
    assert lab.daemon is not None
    request = lab.begin_asking("r", 120)
    until(lambda: lab.requests("m", "accepted"), "it is being answered")
    # A suspended daemon answers nobody: the invariants' own questions pause, and the last of them ends first.
    baseline, lab.baseline = lab.baseline, None
    time.sleep(0.3)
    os.kill(lab.daemon.pid, signal.SIGSTOP)
    try:
        time.sleep(30 * PROBE_S)
    finally:
        os.kill(lab.daemon.pid, signal.SIGCONT)
        lab.baseline = baseline

    request.result().check_complete(120)
    assert len(lab.starts("m")) == 1
    assert not lab.events("unrouted")


def test_a_stopped_engine_can_be_ended(lab: Lab) -> None:
    pid = lab.run("m")["pid"]
    os.kill(pid, signal.SIGSTOP)
    lab.control("/v1/down", {})
    lab.state("stopped", 10)
