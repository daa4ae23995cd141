"""Engines that answer, and have become slow: a silent spill, and everything that only looks like one."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import pytest

from orchestrator.engines.known.model import write_known_model
from tests.fakes.nvml_driver import TOTAL_MIB, Driver
from tests.faults.lab import QUICK, Lab
from tests.support import until

WATCHFUL = QUICK.replace("[daemon]", "[daemon]\nprobe_s = 0.2\nstall_s = 1.5")
LADDER = "[memory]\nfit = true\nfit_margin = 1024\n[recovery]\nmargins = [1024, 1536, 2048]\n"
TOKENS = 24
KINDS = ("slowed", "spilled", "throttled", "stream_stalled", "drafts_stopped", "drafts_wrong")


@pytest.fixture
def lab(lab: Lab) -> Lab:
    """A lab whose daemon looks often."""
    lab.configure(WATCHFUL)
    return lab


@pytest.fixture
def driver(lab: Lab) -> Driver:
    """The driver of the lab's daemon."""
    directory = os.path.join(lab.root, "stub")
    lab.env["PYTHONPATH"] = directory
    return Driver(directory)


class Clients:
    """Ask one after the other."""

    def __init__(self, lab: Lab) -> None:
        self._lab = lab
        self._count = 0

    def ask(self, count: int, tokens: int = TOKENS, **more: object) -> None:
        for _ in range(count):
            self._count += 1
            self._lab.ask(f"r{self._count}", tokens, stream=False, **more).check_complete(tokens)

    def ask_until(self, holds: Callable[[], Any], what: str, tokens: int = TOKENS, **more: object) -> Any:
        def asked() -> Any:
            self.ask(1, tokens, **more)
            return holds()

        return until(asked, what)


def said(lab: Lab) -> dict[str, list[str]]:
    return {kind: found for kind in KINDS if (found := lab.events(kind))}


def device(used_mib: int, pcie_mib_s: float, reasons: int = 0, others_mib: int = 0) -> dict[str, Any]:
    """As NVML tells it: reception and sending in KiB/s."""
    told = {
        "nvmlDeviceGetPcieThroughput 1": int(pcie_mib_s * 1024),
        "nvmlDeviceGetPcieThroughput 0": 1024,
        "nvmlDeviceGetCurrentClocksEventReasons": reasons,
        "nvmlDeviceGetComputeRunningProcesses": [{"pid": 1, "usedGpuMemory": others_mib << 20}],
    }
    return {"used_mib": used_mib, "total_mib": TOTAL_MIB, "told": told}


def test_a_silent_spill_is_said_kills_nothing_and_the_next_start_keeps_more_memory(lab: Lab, driver: Driver) -> None:
    driver.shows(device(7000, 10))
    before = lab.run("m", faults={"tokens_s": 25}, more=LADDER)
    assert before["margin_mib"] == 1024
    clients = Clients(lab)
    for turn in range(10):
        driver.shows(device(7000, 40 + turn))
        clients.ask(1)

    for turn in range(5):
        driver.shows(device(8000, 9000 + turn))
        clients.ask(1, fake_slow_by=3.0)

    until(lambda: lab.events("margin_planned"), "what follows is said")
    status = lab.status()
    assert status["pid"] == before["pid"] and status["state"] == "ready"
    assert "paged to the host's" in status["notice"] and "8000 of 8192 MiB" in status["notice"]
    assert "the next start begins with margin 1536 MiB" in status["notice"]
    assert "notice    it decodes" in lab.orch("status").stdout
    assert len(said(lab)["spilled"]) == 1

    os.kill(status["pid"], 9)  # even after a crash, which keeps its place on the ladder
    until(lambda: len(lab.starts("m")) == 2, "it is started again")
    after = lab.ready("m")
    assert after["margin_mib"] == 1536 and after["notice"] is None
    driver.shows(device(300, 1))


def test_a_slow_engine_is_said_without_a_device_s_word_and_so_is_its_recovery(lab: Lab) -> None:
    pid = lab.run("m", faults={"tokens_s": 200}, more=LADDER)["pid"]
    clients = Clients(lab)
    clients.ask(10)
    assert lab.status()["notice"] is None
    notice = clients.ask_until(lambda: lab.status()["notice"], "it is noticed", fake_slow_by=5.0)
    assert "times slower than it did" in notice
    assert list(said(lab)) == ["slowed"]
    clients.ask_until(lambda: lab.status()["notice"] is None, "all is well again")
    assert lab.events("recovered")
    assert lab.status()["pid"] == pid and not lab.events("margin_planned")


def test_an_engine_that_slows_down_by_itself_is_noticed(lab: Lab) -> None:
    lab.run("m", faults={"tokens_s": 200, "slow_after": 11, "slow_by": 4.0}, dialect="fork")
    clients = Clients(lab)
    clients.ask(10)
    # Within five answers, where no other program takes the CPUs meanwhile: `unit/core/health/test_slowdown.py`.
    clients.ask_until(lambda: lab.status()["notice"], "it is noticed")
    assert list(said(lab)) == ["slowed"]


def test_a_hot_device_is_named_and_no_margin_is_learned(lab: Lab, driver: Driver) -> None:
    driver.shows(device(7900, 10))
    lab.run("m", faults={"tokens_s": 40}, more=LADDER)
    clients = Clients(lab)
    for turn in range(9):
        driver.shows(device(7900, 40 + turn))
        clients.ask(1)

    for turn in range(5):
        driver.shows(device(7900, 50 + turn, reasons=0x40))
        clients.ask(1, fake_slow_by=3.0)

    assert "lowers its clocks: hw thermal" in lab.status()["notice"]
    assert list(said(lab)) == ["throttled"]
    assert not lab.events("margin_planned")
    driver.shows(device(300, 1))


# What is not taken for it.


def test_long_prompts_and_a_full_queue_are_no_slowness(lab: Lab) -> None:
    lab.run("m", faults={"tokens_s": 200, "prompt_s": 0.3}, more="[context]\nparallel = 2\n")
    Clients(lab).ask(9)
    requests = [lab.begin_asking(f"q{index}", TOKENS, stream=index % 2 == 0) for index in range(16)]
    for request in requests:
        request.result().check_complete(TOKENS)

    Clients(lab).ask(0)
    assert not said(lab) and lab.status()["notice"] is None
    assert len(lab.starts("m")) == 1


@pytest.mark.parametrize("dialect", ["upstream", "fork"])
def test_a_deep_context_is_no_slowness(lab: Lab, dialect: str) -> None:
    lab.run("m", faults={"tokens_s": 400}, dialect=dialect)
    clients = Clients(lab)
    clients.ask(10)
    clients.ask(10, fake_cached=20_000, fake_slow_by=8.0)
    assert not said(lab)
    clients.ask_until(lambda: lab.status()["notice"], "and this is", fake_slow_by=8.0)


def test_an_engine_that_was_stopped_for_a_moment_is_not_slow(lab: Lab) -> None:
    pid = lab.run("m", faults={"tokens_s": 200}, more="[context]\nparallel = 4\n")["pid"]
    Clients(lab).ask(10)
    for turn in range(2):
        requests = [lab.begin_asking(f"s{turn}.{index}", 2 * TOKENS) for index in range(4)]
        until(lambda: len(lab.requests("m", "accepted")) == 14 + 4 * turn, "all are being answered")  # noqa: B023
        os.kill(pid, 19)
        until(lambda: len(lab.events("unrouted")) > turn, "the daemon has seen it")  # noqa: B023
        os.kill(pid, 18)
        for request in requests:
            request.result().check_complete(2 * TOKENS)

    assert not said(lab)


# One stream that stands still, and drafts that stop.


def test_a_stream_that_stands_still_is_said_and_the_engine_goes_on(lab: Lab) -> None:
    pid = lab.run("m", faults={"tokens_s": 200}, more="[context]\nparallel = 2\n")["pid"]
    with lab.open("stuck", {"prompt": "hello", "n_predict": 50, "stream": True, "fake_stall_after": 5}) as response:
        assert response.status == 200
        clients = Clients(lab)
        clients.ask_until(lambda: lab.events("stream_stalled"), "it is said", tokens=8)
        assert "none for" in lab.events("stream_stalled")[0]
        clients.ask(3, 8)
        assert lab.status()["pid"] == pid and lab.status()["state"] == "ready"
        assert len(lab.events("stream_stalled")) == 1


def test_drafts_that_stop_while_serving_are_said(lab: Lab) -> None:
    clients = drafting(lab, draft_requests=3)
    clients.ask(6, 250)
    assert not said(lab)
    clients.ask(2, 300)
    assert list(said(lab)) == ["drafts_stopped"]
    assert "without a single draft" in lab.status()["notice"]


def test_drafts_that_are_mostly_wrong_are_said(lab: Lab) -> None:
    clients = drafting(lab)
    clients.ask(8, 80, fake_right=0.6)
    assert not said(lab) and lab.status()["notice"] is None
    clients.ask(8, 80, fake_right=0.3)
    assert list(said(lab)) == ["drafts_wrong"]
    assert "whether that costs speed here is unknown" in lab.status()["notice"]


def drafting(lab: Lab, **faults: object) -> Clients:
    """Clients of an engine that is ready and drafts with MTP."""
    path = lab.model("m", {"tokens_s": 20000, **faults}, more='[speculative]\ntype = "mtp"\n')
    write_known_model(path, "qwen35moe")
    lab.serve("m")
    lab.ready("m")
    return Clients(lab)
