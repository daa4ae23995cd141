"""Engines that live and do not work, and engines that work and look dead: scenarios 12 and 13."""

from __future__ import annotations

import os
import signal

import pytest

from tests.faults.lab import Lab
from tests.support import until

NOTICED_S = 3.0
FOUR = "[context]\nparallel = 4\n"


@pytest.mark.xfail(strict=True, reason="nothing watches an engine once it is ready")
def test_a_stopped_engine_is_killed_and_started_again(lab: Lab) -> None:
    pid = lab.run("m")["pid"]
    os.kill(pid, signal.SIGSTOP)
    try:
        until(lambda: len(lab.starts("m")) == 2, "it is started again", NOTICED_S)
    finally:
        os.kill(pid, signal.SIGCONT)

    lab.ready("m")


@pytest.mark.xfail(strict=True, reason="nothing watches an engine once it is ready")
def test_an_engine_whose_inference_is_dead_is_started_again(lab: Lab) -> None:
    lab.run("m", faults=[{"hang": "infer"}, {}])
    request = lab.begin_asking("r")
    try:
        until(lambda: len(lab.starts("m")) == 2, "it is started again", NOTICED_S)
        lab.ready("m")
        assert request.result().status in (200, 502)
    finally:
        lab.control("/v1/down", {"force": True})


def test_a_stopped_engine_can_be_ended(lab: Lab) -> None:
    pid = lab.run("m")["pid"]
    os.kill(pid, signal.SIGSTOP)
    lab.control("/v1/down", {})
    lab.state("stopped", 10)


def test_an_engine_that_reads_a_long_prompt_is_left_alone(lab: Lab) -> None:
    lab.run("m", faults={"prompt_s": NOTICED_S})
    lab.ask("r").check_complete(8)
    assert len(lab.starts("m")) == 1


def test_an_engine_with_all_slots_busy_and_a_queue_is_left_alone(lab: Lab) -> None:
    lab.run("m", faults={"tokens_s": 40}, more=FOUR)
    requests = [lab.begin_asking(f"r{index}", 40, stream=index % 2 == 0) for index in range(12)]
    for request in requests:
        request.result().check_complete(40)

    assert len(lab.starts("m")) == 1
