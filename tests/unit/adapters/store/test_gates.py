"""What became of new builds: kept, told apart, and honest after a kill."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from orchestrator.adapters.store.gates import GateRecord, GateStore
from orchestrator.core.errors import AlreadyRunningError


@pytest.fixture
def store(tmp_path: Path) -> GateStore:
    return GateStore(str(tmp_path / "state" / "gates.json"))


def test_a_gate_is_kept_by_engine_and_build(store: GateStore) -> None:
    store.record(GateRecord("upstream", "b2", "b1", "refused", "too slow", "mine", 3))
    found = store.find("upstream", "b2")
    assert found is not None and found.when.endswith("Z")
    assert found.as_json() | {"when": ""} == {
        "state": "refused", "reason": "too slow", "against": "b1", "profile": "mine", "bench": 3, "when": "",
    }  # fmt: skip
    assert store.find("ik-fork", "b2") is None
    assert store.find("upstream", "b1") is None


def test_the_newest_of_a_build_replaces_the_one_before(store: GateStore) -> None:
    store.record(GateRecord("upstream", "b2", "b1", "refused"))
    store.record(GateRecord("upstream", "b2", "b1", "accepted"))
    found = store.find("upstream", "b2")
    assert found is not None and found.state == "accepted"


def test_one_that_says_running_and_does_not_run_was_interrupted(store: GateStore) -> None:
    with store.lock():
        store.record(GateRecord("upstream", "b2", "b1", "running"))
        running = store.find("upstream", "b2")
        assert running is not None and running.state == "running"
        with pytest.raises(AlreadyRunningError), store.lock():
            pass

    gone = store.find("upstream", "b2")
    assert gone is not None and (gone.state, gone.reason) == ("interrupted", "the gate did not come to its end")


def test_what_somebody_else_has_written_is_no_gate(store: GateStore, tmp_path: Path) -> None:
    store.record(GateRecord("upstream", "b2", "b1", "accepted"))
    file = tmp_path / "state" / "gates.json"
    state = json.loads(file.read_text())
    state["gates"] |= {"upstream@b3": {"engine": "upstream", "build": "b3", "against": "", "state": "fine"}, "x@y": 7}
    file.write_text(json.dumps(state))
    assert store.find("upstream", "b3") is None
    assert store.find("x", "y") is None
    assert store.find("upstream", "b2") is not None
