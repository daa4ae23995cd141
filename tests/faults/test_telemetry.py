"""Telemetry in trouble: engines and drivers that do not answer cost figures, and nothing else."""

from __future__ import annotations

import os
import time
from typing import Any

import pytest

from tests.busy import in_time
from tests.fakes.nvml_driver import IDLE_MIB, TOTAL_MIB, Driver
from tests.faults.lab import Lab
from tests.integration.telemetry_support import frame
from tests.support import until

ENOUGH = 4
"""Samples, a second apart, in which something would have happened."""


def watch(lab: Lab, samples: int = ENOUGH) -> list[Any]:
    """Frames as a dashboard takes them, until so many samples were taken."""
    frames = [frame(lab)]

    def enough() -> bool:
        began = time.monotonic()
        frames.append(frame(lab))
        assert in_time(time.monotonic() - began, 2.0)
        return bool(frames[-1]["points"] and since() >= samples)

    def since() -> int:
        first = frames[0]["points"][-1]["at_s"] if frames[0]["points"] else 0.0
        return sum(point["at_s"] > first for point in frames[-1]["points"])

    until(enough, "samples are taken")
    return frames


def test_an_engine_with_nothing_to_do_is_asked_once_by_whoever_looks(lab: Lab) -> None:
    lab.run("m")
    frames = watch(lab)
    assert len(lab.rows("m", "asked")) == 1
    assert frames[-1]["rates"]["decode_tok_s"] == 0.0 and frames[-1]["slots"]
    lab.ask("r").check_complete(8)
    until(lambda: len(lab.rows("m", "asked")) > 1, "it is asked again after a request")
    asked = len(lab.rows("m", "asked"))
    watch(lab)
    assert len(lab.rows("m", "asked")) <= asked + 1


def test_a_single_look_has_the_slots_and_waits_for_no_engine_that_hangs(lab: Lab) -> None:
    lab.run("m")
    assert frame(lab)["slots"]
    lab.model("mute", {"hang": "slots"}, engine="fake-upstream")
    lab.up("mute")
    lab.ready("mute")
    began = time.monotonic()
    assert frame(lab)["slots"] == []
    assert in_time(time.monotonic() - began, 2.0)


def test_an_engine_that_nobody_looks_at_and_nobody_asks_is_left_alone(lab: Lab) -> None:
    lab.run("m")
    began = time.monotonic()
    until(lambda: time.monotonic() - began > 3.0, "time passes")
    assert lab.rows("m", "asked") == []


def test_an_engine_that_never_answers_is_asked_one_thing_at_a_time(lab: Lab) -> None:
    lab.run("m", faults={"hang": "slots", "tokens_s": 5.0})
    asking = lab.begin_asking("r", 40, stream=True)
    until(lambda: lab.rows("m", "asked"), "the engine is asked")
    frames = watch(lab)
    assert len(lab.rows("m", "asked")) == 1
    assert frames[-1]["slots"] == [] and frames[-1]["requests"][0]["outcome"] == "running"
    asking.result().check_complete(40)
    lab.ask("s").check_complete(8)


@pytest.fixture
def driver(lab: Lab) -> Driver:
    directory = os.path.join(lab.root, "stub")
    lab.env["PYTHONPATH"] = directory
    return Driver(directory)


def test_a_driver_that_hangs_leaves_its_figures_and_says_how_old_they_are(lab: Lab, driver: Driver) -> None:
    lab.run("m")
    shown = watch(lab, 1)[-1]
    assert [gpu["used_mib"] for gpu in shown["gpus"]] == [IDLE_MIB]
    assert shown["gpus_stale_s"] < 2.5
    driver.says(7000, hang=True)
    old = until(lambda: [each for each in (frame(lab),) if each["gpus_stale_s"] > 3.0], "the figures get old")[0]
    assert [gpu["used_mib"] for gpu in old["gpus"]] == [IDLE_MIB]
    watch(lab, 2)
    assert driver.unanswered == 1
    driver.says(7000)
    new = until(lambda: [each for each in (frame(lab),) if each["gpus_stale_s"] < 2.0], "the driver answers again")[0]
    assert [gpu["used_mib"] for gpu in new["gpus"]] == [7000]


def test_a_device_that_is_lost_leaves_the_frame(lab: Lab, driver: Driver) -> None:
    driver.says(IDLE_MIB, IDLE_MIB)
    lab.run("m")
    assert [gpu["index"] for gpu in watch(lab, 1)[-1]["gpus"]] == [0, 1]
    driver.says(IDLE_MIB)
    until(lambda: [gpu["index"] for gpu in frame(lab)["gpus"]] == [0], "one device is left")


def test_memory_of_hidden_processes_is_what_came_with_the_engine(lab: Lab, driver: Driver) -> None:
    driver.says(IDLE_MIB)
    lab.run("m")
    driver.says(IDLE_MIB + 5000)
    card = until(lambda: [gpu for gpu in frame(lab)["gpus"] if gpu["used_mib"] > IDLE_MIB], "the memory is taken")[0]
    assert (card["engine_mib"], card["others_mib"]) == (5000, IDLE_MIB)
    driver.shows({"used_mib": 1000, "total_mib": TOTAL_MIB, "told": {"nvmlDeviceGetComputeRunningProcesses": []}})
    card = until(lambda: [gpu for gpu in frame(lab)["gpus"] if gpu["used_mib"] == 1000], "it changes")[0]
    assert card["engine_mib"] == 1000 - IDLE_MIB
    driver.says(IDLE_MIB)


def test_the_engine_s_own_processes_are_found_in_the_driver_s_list(lab: Lab, driver: Driver) -> None:
    pid = lab.run("m")["pid"]
    held = [{"pid": pid, "usedGpuMemory": 4000 << 20}, {"pid": os.getpid(), "usedGpuMemory": 100 << 20}]
    told = {"nvmlDeviceGetComputeRunningProcesses": held}
    driver.shows({"used_mib": 4300, "total_mib": TOTAL_MIB, "told": told, "reserved_mib": 150})
    card = until(lambda: [gpu for gpu in frame(lab)["gpus"] if gpu["used_mib"] == 4300], "it is read")[0]
    assert (card["engine_mib"], card["others_mib"]) == (4000, 150)
    driver.says(IDLE_MIB)
