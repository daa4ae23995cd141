"""Starts are kept, found by build and model, bounded, and never in the way."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator.adapters.store.starts import StartStore
from orchestrator.core.plan.shape import PlanShape
from orchestrator.core.starts.readback import MeasuredDevice, MeasuredStart

START = MeasuredStart(
    build="b11434 0123",
    model="m.gguf:1:2",
    shape=PlanShape(context_tokens=8192, kv_k="q8_0", tensor_split=(1.0, 2.0)),
    fitted=True,
    when="2026-11-30T10:00:00+00:00",
    devices=(MeasuredDevice("CUDA0", {"weights": 5, "kv": 6}, 7), MeasuredDevice("CUDA1", {"weights": 1})),
    host={"weights": 9},
    hidden_mib=201,
)


@pytest.fixture
def store(tmp_path: Path) -> StartStore:
    return StartStore(str(tmp_path / "starts.json"))


def test_what_was_kept_is_found_as_it_was(store: StartStore) -> None:
    store.record(START, {"profile": "mine", "planned": {}, "contradicts": ["compute on CUDA0"]})
    assert store.find(START.build, START.model) == [START]
    assert store.find(START.build) == [START]
    assert store.find("b1 9999") == store.find(START.build, "other.gguf:1:2") == []
    assert store.entries()[0]["contradicts"] == ["compute on CUDA0"]


def test_the_same_start_again_takes_the_place_of_the_one_before(store: StartStore) -> None:
    other = replace(START, shape=replace(START.shape, context_tokens=4096))
    newer = replace(START, when="2026-12-01T10:00:00+00:00", host={"weights": 10})
    for each in (START, other, newer):
        store.record(each, {})

    assert store.find(START.build) == [other, newer]


def test_the_oldest_ones_are_dropped(store: StartStore) -> None:
    for number in range(203):
        store.record(replace(START, shape=PlanShape(context_tokens=256 * (number + 1))), {})

    kept = store.find(START.build)
    assert len(kept) == 200
    assert kept[-1].shape.context_tokens == 256 * 203


@pytest.mark.parametrize("text", ["", "[]", '{"version": 1, "starts": []}', '{"version": 1, "starts": {"a": 3}}'])
def test_a_file_that_is_none_of_ours_is_as_if_it_were_not_there(tmp_path: Path, text: str) -> None:
    path = tmp_path / "starts.json"
    path.write_text(text)
    store = StartStore(str(path))
    assert store.find(START.build) == []
    store.record(START, {})
    assert store.find(START.build) == [START]


@pytest.mark.parametrize("lacking", ["shape", "devices", "host", "when"])
def test_an_entry_that_lacks_something_hides_no_other(store: StartStore, tmp_path: Path, lacking: str) -> None:
    store.record(START, {})
    store.record(replace(START, model="n.gguf:1:2"), {})
    path = tmp_path / "starts.json"
    state = json.loads(path.read_text())
    del next(iter(state["starts"].values()))[lacking]
    path.write_text(json.dumps(state))
    assert [start.model for start in store.find(START.build)] == ["n.gguf:1:2"]


def test_a_shape_of_a_later_orch_is_read_as_far_as_it_is_known(store: StartStore, tmp_path: Path) -> None:
    store.record(START, {})
    path = tmp_path / "starts.json"
    state = json.loads(path.read_text())
    next(iter(state["starts"].values()))["shape"]["something_new"] = 1
    path.write_text(json.dumps(state))
    assert store.find(START.build) == [START]
