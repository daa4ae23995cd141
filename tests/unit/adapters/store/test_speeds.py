"""The file of measured speeds: what is written is read, the newest of one kind stays, and damage loses only itself."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

from orchestrator.adapters.store.speeds import CardLinks, DiskSpeed, HostSpeed, SpeedStore
from orchestrator.core.plan.speed.forecast import SpeedKey, SpeedSample
from orchestrator.core.setup.machine_speed import PcieLink

MACHINE = "box, Some Processor"
WHEN = "2026-11-30T10:00:00+00:00"
DISK = DiskSpeed(0.5, WHEN)
LINKS = CardLinks((PcieLink("RTX 3060", 1, 4, 4, 16, 16),), WHEN)
KEY = SpeedKey("upstream", "b11434", "host", "llama", ("q4_K", "q6_K"))
SAMPLE = SpeedSample(KEY, "decode", (1.0, 0.0, 4.71), 9.5, 11.0, when="2026-11-30T10:00:00Z")


def test_what_is_recorded_is_read_by_the_next_process(tmp_path: Path) -> None:
    path = str(tmp_path / "speeds.json")
    drafted = replace(SAMPLE, width=3.7, tokens_per_step=2.4)
    SpeedStore(path).record(SAMPLE)
    SpeedStore(path).record(drafted)
    measured = HostSpeed(21.46, 8, WHEN)
    SpeedStore(path).record_machine(MACHINE, measured, {}, None)
    assert SpeedStore(path).samples() == [SAMPLE, drafted]
    assert SpeedStore(path).host(MACHINE) == measured
    SpeedStore(path).record(replace(SAMPLE, what="prompt", amounts=(1.0, 0.2)))
    assert SpeedStore(path).host(MACHINE) == measured


def test_what_another_machine_read_says_nothing_of_this_one(tmp_path: Path) -> None:
    store = SpeedStore(str(tmp_path / "speeds.json"))
    store.record_machine("other, Some Processor", HostSpeed(21.46, 8, WHEN), {"/": DISK}, LINKS)
    assert (store.host(MACHINE), store.disk(MACHINE, "/"), store.links(MACHINE)) == (None, None, None)
    store.record_machine(MACHINE, HostSpeed(9.0, 8, WHEN), {}, None)
    assert store.host("other, Some Processor") == HostSpeed(21.46, 8, WHEN)


def test_of_the_memory_the_fastest_reading_stays_with_its_date(tmp_path: Path) -> None:
    store = SpeedStore(str(tmp_path / "speeds.json"))
    for gb_s, threads, day in ((10.6, 2, "1"), (45.0, 2, "2"), (12.0, 2, "3"), (40.0, 8, "4")):
        store.record_machine(MACHINE, HostSpeed(gb_s, threads, day), {}, None)

    assert store.host(MACHINE) == HostSpeed(45.0, 2, "2")


def test_disks_and_links_are_kept_with_their_date_and_the_newest_counts(tmp_path: Path) -> None:
    store = SpeedStore(str(tmp_path / "speeds.json"))
    memory = HostSpeed(21.46, 8, WHEN)
    store.record_machine(MACHINE, memory, {"/": DISK, "/models": DiskSpeed(3.0, WHEN)}, LINKS)
    store.record_machine(MACHINE, memory, {"/": DiskSpeed(0.4, "2026-12-01")}, None)
    assert store.disk(MACHINE, "/") == DiskSpeed(0.4, "2026-12-01")
    assert store.disk(MACHINE, "/models") == DiskSpeed(3.0, WHEN)
    assert store.links(MACHINE) == LINKS


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

    odd = {"memory": {"2": {"gb_s": "a lot"}, "x": {"gb_s": 3}}, "disks": {"/": {"gb_s": 0, "when": ""}}, "links": 5}
    state["machines"] = {MACHINE: odd}
    path.write_text(json.dumps(state))
    assert store.samples() == [SAMPLE]
    assert (store.host(MACHINE), store.disk(MACHINE, "/"), store.links(MACHINE)) == (None, None, None)
    state["machines"][MACHINE]["links"] = {"cards": [{"odd": 1}], "when": ""}
    path.write_text(json.dumps(state))
    assert store.links(MACHINE) is None


def test_no_file_is_nothing_measured(tmp_path: Path) -> None:
    store = SpeedStore(str(tmp_path / "speeds.json"))
    assert (store.samples(), store.host(MACHINE)) == ([], None)
