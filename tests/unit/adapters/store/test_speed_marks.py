"""The file of marks: what is written is read, the level that is compared with stays, and damage loses only itself."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator.adapters.store import speed_marks
from orchestrator.adapters.store.exclusive import exclusive_lock
from orchestrator.adapters.store.speed_marks import SpeedMarkStore
from orchestrator.core.course.course import SpeedSeries, series_of
from orchestrator.core.course.decline import find_decline
from orchestrator.core.errors import OrchError
from tests.unit.core.course.histories import NEW_DRIVER, ON, days, mark

SERIES = SpeedSeries("p", "upstream", "answers")


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "state" / "speed_marks.json")


MARKED = {"when_s", "step_ms", "decode_tok_s", "low_tok_s", "high_tok_s"}
"""Without one of these a mark is none."""


def test_what_is_recorded_is_read_by_the_next_process(path: str) -> None:
    marks = [*days(3, 50.0), mark(3, 45.0, NEW_DRIVER), replace(mark(4, 45.0), prompt_tok_s=None)]
    SpeedMarkStore(path).record(marks[2:])
    SpeedMarkStore(path).accept({SERIES: 5.5})
    kept = SpeedMarkStore(path).record(marks[:2])
    assert kept == SpeedMarkStore(path).read()
    assert SpeedMarkStore(path).read().marks == marks
    assert SpeedMarkStore(path).read().accepted == {SERIES: 5.5}
    state = json.loads(Path(path).read_text())
    assert len(state["circumstances"]) == 2
    assert not {"bench", "trial"} & set(state["marks"][0])


def test_a_writer_that_does_not_end_is_waited_for_but_not_for_ever(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speed_marks, "LOCK_PATIENCE_S", 0.0)
    store = SpeedMarkStore(path)
    with exclusive_lock(f"{path}.lock", OrchError("")), pytest.raises(OrchError, match="another process"):
        store.record(days(1, 50.0))

    store.record(days(1, 50.0))


def test_a_mark_grows_with_its_day(path: str) -> None:
    store = SpeedMarkStore(path)
    for answers in (8, 16):
        store.record([mark(1, 50.0, answers=answers)])

    assert [each.answers for each in store.read().marks] == [16]


def test_the_best_level_outlives_many_marks(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speed_marks, "KEPT", 10)
    store = SpeedMarkStore(path)
    store.record([*days(6, 50.0), *days(30, 45.0, NEW_DRIVER, first=6)])
    found = store.read().marks
    assert len(found) == 15
    decline = find_decline(found)
    assert decline is not None and (round(decline.best.rate), decline.changed[0].what) == (50, "driver")


def test_an_entry_that_cannot_be_read_is_as_if_it_were_not_there(path: str) -> None:
    store = SpeedMarkStore(path)
    store.record(days(3, 50.0))
    state = json.loads(Path(path).read_text())
    state["marks"][0]["on"] = "gone"
    state["marks"][1]["step_ms"] = "fast"
    state["accepted"] = [{"profile": "p"}, 7]
    Path(path).write_text(json.dumps(state))
    assert [each.when_s for each in store.read().marks] == [mark(2, 50.0, ON).when_s]
    assert store.read().accepted == {}


@pytest.mark.parametrize("key", [*sorted(MARKED), "prompt_tok_s", "since_s"])
@pytest.mark.parametrize("number", ["1e999", "-1", "NaN", "1e15", "1" + "0" * 400])
def test_a_number_that_orch_did_not_write_is_none(path: str, key: str, number: str) -> None:
    store = SpeedMarkStore(path)
    store.record(days(2, 50.0))
    store.accept({series_of(mark(0, 50.0)): 0.0})
    state = json.loads(Path(path).read_text())
    (state["accepted"][0] if key == "since_s" else state["marks"][1])[key] = "ODD"
    Path(path).write_text(json.dumps(state).replace('"ODD"', number))
    found = store.read()
    assert len(found.accepted) == (key != "since_s")
    assert len(found.marks) == (1 if key in MARKED else 2)
    assert (found.marks[-1].prompt_tok_s is None) == (key == "prompt_tok_s")
