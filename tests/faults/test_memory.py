"""Device memory that runs out: scenarios 37 to 39."""

from __future__ import annotations

import os
import signal
from typing import Any

import pytest

from tests.faults.lab import QUICK, Lab
from tests.support import until

LADDER = "[memory]\nfit = true\nfit_margin = 1024\n[recovery]\nmargins = [1024, 1536, 2048]\n"
MARGIN_FLAGS = {"upstream": "--fit-target", "fork": "--fit-margin"}


def margins(lab: Lab, name: str, dialect: str) -> list[int]:
    """The margin of each start; each must be given exactly once."""
    flag = MARGIN_FLAGS[dialect]
    found: list[int] = []
    for start in lab.starts(name):
        argv: list[str] = start["argv"]
        assert argv.count(flag) == 1, argv
        found.append(int(argv[argv.index(flag) + 1]))

    return found


@pytest.mark.parametrize("dialect", ["upstream", "fork"])
def test_running_out_while_loading_climbs_until_it_fits(lab: Lab, dialect: str) -> None:
    status = lab.run("m", faults={"oom_below_mib": 2048, "oom_mib": 100.5}, dialect=dialect, more=LADDER)
    assert margins(lab, "m", dialect) == [1024, 1536, 2048]
    assert [attempt["outcome"] for attempt in status["attempts"]] == ["device_oom", "device_oom", "ready"]
    assert "100.50 MiB" in status["attempts"][0]["evidence"]
    assert status["margin_mib"] == 2048


def test_the_margin_grows_by_the_allocation_that_failed(lab: Lab) -> None:
    lab.run("m", faults={"oom_below_mib": 1700, "oom_mib": 700.2}, more=LADDER)
    assert margins(lab, "m", "upstream") == [1024, 1725]


def test_with_a_margin_per_device_only_that_of_the_device_that_failed_rises(lab: Lab) -> None:
    """The fake names CUDA0, and fits by its margin."""
    ladder = LADDER.replace("fit_margin = 1024", "fit_margin = [1024, 512]")
    status = lab.run("m", faults={"oom_below_mib": 2048, "oom_mib": 100.5}, more=ladder)
    targets = [start["argv"][start["argv"].index("--fit-target") + 1] for start in lab.starts("m")]
    assert targets == ["1024,512", "1536,512", "2048,512"]
    assert status["attempts"][0]["next"] == "try margin 1536, 512 MiB"
    assert status["margin_mib"] == 2048
    lab.orch("down")
    lab.up("m")
    assert [attempt["outcome"] for attempt in lab.ready("m")["attempts"]] == ["ready"]
    assert lab.starts("m")[-1]["argv"].count("2048,512") == 1


def test_the_top_of_the_ladder_is_the_end(lab: Lab) -> None:
    lab.model("m", {"oom_below_mib": 9000, "oom_mib": 10}, more=LADDER)
    lab.serve("m")
    status = lab.state("failed")
    assert margins(lab, "m", "upstream") == [1024, 1536, 2048]
    assert status["attempts"][-1]["next"] == "give up: the ladder has no further step"
    answer = lab.ask("r")
    assert answer.status == 424 and answer.json["error"]["code"] == "device_oom"
    message = answer.json["error"]["message"]
    assert all(f"margin {margin} MiB: device_oom" in message for margin in (1024, 1536, 2048)), message


def test_so_many_starts_as_the_profile_allows_are_the_end(lab: Lab) -> None:
    lab.model("m", {"oom_below_mib": 9000, "oom_mib": 10}, more=f"{LADDER}max_attempts = 2\n")
    lab.serve("m")
    lab.state("failed")
    assert margins(lab, "m", "upstream") == [1024, 1536]


@pytest.mark.parametrize("dialect", ["upstream", "fork"])
def test_memory_that_the_engine_before_still_held_is_waited_for_and_the_margin_stays(lab: Lab, dialect: str) -> None:
    """No device is read here: what the engines say of their devices is the measure."""
    out = {"oom_below_mib": 9000, "oom_mib": 100.5}
    faults: list[dict[str, Any]] = [{"free_mib": 11000}, {"free_mib": 4000, **out}, {"free_mib": 11000}]
    first = lab.run("m", faults=faults, dialect=dialect, more=LADDER)
    os.kill(first["pid"], signal.SIGKILL)
    until(lambda: len(lab.starts("m")) == 3, "the start is repeated")
    status = lab.ready("m")
    assert margins(lab, "m", dialect) == [1024, 1024, 1024]
    assert [attempt["outcome"] for attempt in status["attempts"]] == ["killed", "device_oom", "ready"]
    told = "try the same again in 10 s: 7000 MiB were not given back yet by what ran before"
    assert status["attempts"][1]["next"] == told


def test_memory_that_never_comes_back_is_waited_for_once_a_rung(lab: Lab) -> None:
    out = {"oom_below_mib": 1536, "oom_mib": 10}
    faults: list[dict[str, Any]] = [{"free_mib": 11000}, {"free_mib": 4000, **out}, {"free_mib": 3000, **out}]
    lab.model("m", faults, more=LADDER)
    lab.serve("m")
    os.kill(lab.ready("m")["pid"], signal.SIGKILL)
    until(lambda: len(lab.starts("m")) == 4, "it climbs")
    lab.ready("m")
    assert margins(lab, "m", "upstream") == [1024, 1024, 1024, 1536]


@pytest.mark.parametrize("request_number", [1, 2], ids=["the canary", "a client's"])
def test_running_out_at_the_first_request_is_charged_to_the_margin(lab: Lab, request_number: int) -> None:
    faults: list[dict[str, Any]] = [{"oom_at_request": request_number}, {}]
    lab.model("m", faults, more=LADDER)
    lab.serve("m")
    if request_number == 2:
        lab.ready("m")
        lab.replayed.add("first")
        lab.ask("first").check_complete(8)

    until(lambda: len(lab.starts("m")) == 2, "it is started again")
    status = lab.ready("m")
    assert margins(lab, "m", "upstream") == [1024, 1536]
    assert status["attempts"][0]["outcome"] == "device_oom"


def test_a_margin_is_remembered_after_an_orderly_stop(lab: Lab) -> None:
    lab.run("m", faults={"oom_below_mib": 1536, "oom_mib": 10}, more=LADDER)
    assert not lab.events("margin_learned")
    lab.orch("down")
    until(lambda: lab.events("margin_learned"), "it is remembered")
    lab.up("m")
    lab.ready("m")
    assert margins(lab, "m", "upstream") == [1024, 1536, 1536]


def test_a_margin_is_remembered_once_it_was_ready_for_long_enough(lab: Lab) -> None:
    lab.configure(QUICK.replace("[daemon]", "[daemon]\nhealthy_s = 0.2"))
    lab.run("m", faults={"oom_below_mib": 1536, "oom_mib": 10}, more=LADDER)
    (learned,) = until(lambda: lab.events("margin_learned"), "it is remembered while it serves")
    assert learned == "m@fake-upstream survived with margin 1536 MiB; the next start begins there"
    assert lab.status()["state"] == "ready"


def test_a_start_that_becomes_ready_and_runs_out_of_memory_is_not_remembered(lab: Lab) -> None:
    lab.model("m", [{"oom_below_mib": 1536, "oom_mib": 10}, {"oom_at_request": 2}, {}], more=LADDER)
    lab.serve("m")
    assert lab.ready("m")["margin_mib"] == 1536
    lab.replayed.add("r")
    lab.ask("r").check_complete(8)
    status = lab.ready("m")
    assert [attempt["outcome"] for attempt in status["attempts"]] == ["device_oom", "device_oom", "ready"]
    assert margins(lab, "m", "upstream") == [1024, 1536, 2048]
    assert not lab.events("margin_learned")
    lab.orch("down")
    (learned,) = until(lambda: lab.events("margin_learned"), "what survived is remembered")
    assert "margin 2048 MiB" in learned


def test_an_engine_that_lives_on_after_it_ran_out_of_memory_is_started_again_with_a_larger_margin(lab: Lab) -> None:
    lab.configure(QUICK.replace("[daemon]", "[daemon]\nprobe_s = 0.2"))
    lab.run("m", faults=[{"oom_lives_at_request": 2}, {}], more=LADDER)
    lab.replayed.add("r")
    lab.ask("r").check_complete(8)  # by the next start
    assert len(lab.starts("m")) == 2
    status = lab.ready("m")
    assert [attempt["outcome"] for attempt in status["attempts"]] == ["device_oom", "ready"]
    assert status["attempts"][0]["evidence"].endswith("failed to allocate CUDA0 buffer of size 104857600")
    assert margins(lab, "m", "upstream") == [1024, 1536]
    lab.ask("s").check_complete(8)


def test_an_engine_that_lives_on_serves_on_where_the_ladder_has_no_further_step(lab: Lab) -> None:
    lab.configure(QUICK.replace("[daemon]", "[daemon]\nprobe_s = 0.2"))
    lab.run("m", faults={"oom_lives_at_request": 2})
    assert lab.ask("r").status == 500
    (told,) = until(lambda: lab.events("out_of_memory"), "it is told")
    assert "it serves on: the ladder has no further step" in told
    lab.ask("s").check_complete(8)
    assert len(lab.starts("m")) == 1


def test_a_pinned_memory_warning_and_a_prompt_about_memory_are_no_reason(lab: Lab) -> None:
    prompt = "ggml_backend_cuda_buffer_type_alloc_buffer: allocating 100.00 MiB on device 0: cudaMalloc failed"
    say = (
        "ggml_vulkan: Failed to allocate pinned memory.",
        "ggml_vulkan: vk::Device::allocateMemory: ErrorOutOfDeviceMemory",
        "formatted prompt: 'a log of yesterday:",
        f"{prompt}: out of memory",
        "'",
    )
    lab.run("m", faults={"poison": "allocating 100.00 MiB on device 0", "signal": "SEGV", "say": say}, more=LADDER)
    lab.replayed.add("r")
    assert lab.ask("r", prompt=prompt).status in (502, 503)
    until(lambda: len(lab.starts("m")) == 3, "it is started again, each time that the request has killed it")
    status = lab.ready("m")
    assert [attempt["outcome"] for attempt in status["attempts"]] == ["engine_bug", "engine_bug", "ready"]
    assert margins(lab, "m", "upstream") == [1024, 1024, 1024]
