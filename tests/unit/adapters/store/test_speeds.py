"""The file of measured speeds: what is written is read, the newest of one kind stays, and damage loses only itself."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

from orchestrator.adapters.store.speeds import HostSpeed, SpeedStore
from orchestrator.core.plan.speed.forecast import SpeedKey, SpeedSample

MACHINE = "box, Some Processor"
KEY = SpeedKey("upstream", "b11434", "host", "llama", ("q4_K", "q6_K"))
SAMPLE = SpeedSample(KEY, "decode", (1.0, 0.0, 4.71), 9.5, 11.0, when="2026-11-30T10:00:00Z")


def test_what_is_recorded_is_read_by_the_next_process(tmp_path: Path) -> None:
    path = str(tmp_path / "speeds.json")
    drafted = replace(SAMPLE, width=3.7, tokens_per_step=2.4)
    SpeedStore(path).record(SAMPLE)
    SpeedStore(path).record(drafted)
    measured = HostSpeed(21.46, 8, "2026-11-30T10:00:00+00:00", MACHINE)
    SpeedStore(path).record_host(measured)
    assert SpeedStore(path).samples() == [SAMPLE, drafted]
    assert SpeedStore(path).host(MACHINE) == measured
    SpeedStore(path).record(replace(SAMPLE, what="prompt", amounts=(1.0, 0.2)))
    assert SpeedStore(path).host(MACHINE) == measured


def test_the_memory_of_another_machine_says_nothing_of_this_one(tmp_path: Path) -> None:
    path = tmp_path / "speeds.json"
    SpeedStore(str(path)).record_host(HostSpeed(21.46, 8, "2026-11-30T10:00:00+00:00", "other, Some Processor"))
    assert SpeedStore(str(path)).host(MACHINE) is None
    path.write_text(json.dumps({"version": 1, "host_gb_s": 30.0}))  # of an orch that did not keep where
    assert SpeedStore(str(path)).host(MACHINE) == HostSpeed(30.0)


def test_the_newest_of_one_kind_takes_the_place_of_the_one_before(tmp_path: Path) -> None:
    store = SpeedStore(str(tmp_path / "speeds.json"))
    other = replace(SAMPLE, key=replace(KEY, architecture="gemma3"))
    for sample in (SAMPLE, other, replace(SAMPLE, amounts=(1.0, 0.0, 4.709), low_ms=8.0)):
        store.record(sample)

    assert [(each.key.architecture, each.low_ms) for each in store.samples()] == [("gemma3", 9.5), ("llama", 8.0)]


def test_an_entry_that_cannot_be_read_is_as_if_it_were_not_there(tmp_path: Path) -> None:
    path = tmp_path / "speeds.json"
    store = SpeedStore(str(path))
    store.record(SAMPLE)
    state = json.loads(path.read_text())
    [name] = state["samples"]
    for index, entry in enumerate(({"key": 5}, None, {**state["samples"][name], "low_ms": "fast"})):
        state["samples"][f"odd{index}"] = entry

    state["host_gb_s"] = "a lot"
    path.write_text(json.dumps(state))
    assert store.samples() == [SAMPLE]
    assert store.host(MACHINE) is None


def test_no_file_is_nothing_measured(tmp_path: Path) -> None:
    store = SpeedStore(str(tmp_path / "speeds.json"))
    assert (store.samples(), store.host(MACHINE)) == ([], None)
