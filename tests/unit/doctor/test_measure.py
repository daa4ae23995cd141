"""A machine in use is not measured, and what is measured is for the profile that was named."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest

from orchestrator.adapters.hardware.machine import machine_name
from orchestrator.adapters.paths import Paths, find_paths
from orchestrator.adapters.store.speeds import SpeedStore
from orchestrator.api import client
from orchestrator.core.errors import NotRunningError, OrchError
from orchestrator.core.plan.plan import DeviceRoom, HostRoom
from orchestrator.core.setup.machine_speed import PcieLink, ReadSpeed
from orchestrator.doctor import measure as measuring
from orchestrator.doctor.measure import measure, read_modules, refusal_of_requests, refuse_while_used, usual_profile
from orchestrator.engines.plan_answer import answer_plan
from orchestrator.engines.plan_target import find_target

CALM = {
    "profile": "some",
    "switching": False,
    "gateway": {"in_flight": 0, "queued": 0},
    "instances": [{"profile": "some", "state": "ready"}],
    "requests": [],
}


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    return find_paths({"ORCH_HOME": str(tmp_path)})


def daemon_says(monkeypatch: pytest.MonkeyPatch, said: dict[str, object] | None) -> list[str]:
    """Have a daemon answer so, whatever it is asked; return what it was asked."""
    asked: list[str] = []

    def answer(_: str, target: str, **__: object) -> bytes:
        asked.append(target)
        if said is None:
            raise NotRunningError("no daemon is running")

        return json.dumps(said).encode()

    monkeypatch.setattr(client, "request", answer)
    return asked


@pytest.mark.parametrize(
    ("used", "said"),
    [
        ({"gateway": {"in_flight": 1, "queued": 0}}, "a request is under way"),
        ({"gateway": {"in_flight": 0, "queued": 2}}, "a request is under way"),
        ({"instances": [{"profile": "other", "state": "starting"}]}, "other is starting"),
    ],
)
def test_a_machine_in_use_is_not_measured(
    paths: Paths, monkeypatch: pytest.MonkeyPatch, used: dict[str, object], said: str
) -> None:
    daemon_says(monkeypatch, CALM | used)
    with pytest.raises(OrchError, match=said):
        measure(paths, None)

    assert SpeedStore(paths.speeds_file).host(machine_name()) is None


def test_a_machine_at_rest_is_measured(paths: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    daemon_says(monkeypatch, CALM)
    refuse_while_used(paths)
    assert usual_profile(paths, "default") == "some"
    daemon_says(monkeypatch, None)
    refuse_while_used(paths)
    assert usual_profile(paths, "default") == "default"
    assert usual_profile(paths, "") is None


def test_while_it_measures_requests_alone_are_asked_about_and_not_at_each_step(
    paths: Paths, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 100.0
    monkeypatch.setattr(measuring, "monotonic", lambda: now)
    asked = daemon_says(monkeypatch, CALM)
    may_go_on = refusal_of_requests(paths)
    for _ in range(32):
        may_go_on()
        now += 0.0625

    assert asked == ["/v1/requests"] * 16
    daemon_says(monkeypatch, CALM | {"requests": [{"id": 1}]})
    with pytest.raises(OrchError, match="a request is under way"):
        may_go_on()

    daemon_says(monkeypatch, None)
    may_go_on()


def test_a_measurement_beside_which_a_model_was_loaded_is_not_kept(
    paths: Paths, monkeypatch: pytest.MonkeyPatch
) -> None:
    def memory(*_: object, **__: object) -> ReadSpeed:
        daemon_says(monkeypatch, CALM | {"instances": [{"profile": "other", "state": "starting"}]})
        return ReadSpeed(31.0, 30.0, 2)

    daemon_says(monkeypatch, CALM)
    monkeypatch.setattr(measuring, "measure_memory", memory)
    with pytest.raises(OrchError, match="other is starting"):
        measure(paths, None)

    assert SpeedStore(paths.speeds_file).host(machine_name()) is None


def test_figures_are_for_the_profile_and_kept_for_forecasts(paths: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    daemon_says(monkeypatch, None)
    asked: list[int] = []

    def memory(threads: int, _: object, **__: object) -> ReadSpeed:
        asked.append(threads)
        return ReadSpeed(31.0, 30.0, threads)

    monkeypatch.setattr(measuring, "measure_memory", memory)
    monkeypatch.setattr(measuring, "measure_devices", lambda: ())
    (Path(paths.profiles)).mkdir(parents=True)
    (Path(paths.profiles) / "small.toml").write_text('schema = 1\nextends = "demo"\n[cpu]\nthreads = 3\n')
    found = measure(paths, "small")
    kept = SpeedStore(paths.speeds_file).host(machine_name())
    assert asked == [3]
    assert kept is not None
    assert (kept.gb_s, kept.threads) == (31.0, 3)
    assert {each.what for each in found.findings} >= {"disk", "memory", "modules", "profile"}
    assert dict(measuring.figures(found))["host_gb_s"] == 31.0


def test_a_disturbed_measurement_lowers_nothing_that_is_kept(paths: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    daemon_says(monkeypatch, None)
    for speed in (ReadSpeed(45.0, 43.0, 2), ReadSpeed(10.6, 7.0, 2)):
        monkeypatch.setattr(measuring, "measure_memory", lambda *_, speed=speed, **__: speed)
        found = measure(paths, None)

    kept = SpeedStore(paths.speeds_file).host(machine_name())
    assert kept is not None and kept.gb_s == 45.0 and found.kept == kept
    figures = dict(measuring.figures(found))
    assert (figures["host_gb_s"], figures["disturbed"], figures["kept"]) == (10.6, True, kept._asdict())


def test_the_plan_of_a_model_says_what_reading_it_cold_takes_and_how_its_card_is_linked(
    paths: Paths, monkeypatch: pytest.MonkeyPatch
) -> None:
    daemon_says(monkeypatch, None)
    monkeypatch.setattr(measuring, "measure_memory", lambda *_, **__: ReadSpeed(31.0, 30.0, 2))
    monkeypatch.setattr(measuring, "measure_devices", lambda: ())
    monkeypatch.setattr(measuring, "measure_disk", lambda *_: 0.5)
    monkeypatch.setattr(measuring, "pcie_links", lambda: (PcieLink("RTX 3060", 1, 4, 4, 8, 16),))
    measure(paths, "demo")
    target, host = find_target(paths, "demo"), HostRoom(32000, 16000)
    card = DeviceRoom("RTX 3060", 12288, 11000)
    told = {each.figures: each.source for each in answer_plan(paths, target, [card], host, here=True).sources}
    assert told["a cold start"].startswith("reads 0.0 GB in under 1 s: 0.50 GB/s, measured of /")
    assert told["link to the host"].startswith("RTX 3060: 8 of 16 lanes, generation 4")
    elsewhere = {each.figures for each in answer_plan(paths, target, [card], host, here=False).sources}
    assert "link to the host" not in elsewhere


def test_a_table_of_modules_that_is_not_there_is_empty(tmp_path: Path) -> None:
    assert read_modules(str(tmp_path / "DMI")) == ()
    (tmp_path / "DMI").write_bytes(b"\0" * 10)
    assert read_modules(str(tmp_path / "DMI")) == ()


def test_a_driver_that_hangs_is_said_and_the_rest_is_measured(paths: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    daemon_says(monkeypatch, None)
    answers = threading.Event()
    monkeypatch.setattr(measuring, "pcie_links", answers.wait)
    monkeypatch.setattr(measuring, "DRIVER_S", 0.01)
    monkeypatch.setattr(measuring, "measure_memory", lambda *_, **__: ReadSpeed(31.0, 30.0, 2))
    found = measure(paths, None)
    answers.set()
    assert [(each.what, each.level) for each in found.findings][:2] == [("pcie", "warning"), ("memory", "ok")]
