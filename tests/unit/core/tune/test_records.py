"""A tuning to JSON and back, and its report."""

from __future__ import annotations

import json

from orchestrator.core.tune.records import (
    TuneProgress,
    TuneSpec,
    progress_of,
    spec_from_json,
    spec_to_json,
    trial_to_json,
)
from orchestrator.core.tune.report import comments_of, report_lines, tune_report, verdict_line, what_changed
from orchestrator.core.tune.search import TuneFound, TuneTrial
from orchestrator.core.tune.use import USES
from tests.unit.core.tune.spaces import SPACE, searched, tried

SPEC = TuneSpec(
    "p", "upstream", USES["chat"], SPACE, 900.0, 20, 42, True, 8192,
    {"build": "b1", "sha256": "0" * 64, "model": "/m.gguf", "model_bytes": 9}, ("orch", "tune", "p"),
    {"devices": ["RTX 3060, 12288 MiB"], "driver": "570.1"},
)  # fmt: skip
BENCH = {"id": 7, "verdict": "b_faster", "ratio": 1.1, "low": 1.05, "high": 1.15, "level": 0.005, "blocks": 6}


def test_a_tuning_survives_being_kept() -> None:
    assert spec_from_json(json.loads(json.dumps(spec_to_json(SPEC)))) == SPEC
    trials = (tried((0, 1, 1, 0)), TuneTrial((1, 1, 4, 0), "died", (), "out of memory", 3.5))
    events = [
        *map(trial_to_json, trials),
        {"event": "full_context", "point": [1, 1, 1, 0], "survived": False, "reason": "died"},
        {"event": "full_context", "point": [0, 2, 1, 0], "survived": True, "reason": ""},
        {"event": "confirmation", "run": 12},
    ]
    found = progress_of(json.loads(json.dumps(events)))
    assert found == TuneProgress(trials, ((1, 1, 1, 0),), ((0, 2, 1, 0),), 12)
    assert found.took_s == 3.5


def test_fields_of_a_newer_orch_are_left_out() -> None:
    found = json.loads(json.dumps(spec_to_json(SPEC)))
    newer = {**found, "weight": 1, "use": {**found["use"], "weight": 1}}
    newer["space"]["axes"][0]["weight"] = 1
    assert spec_from_json(newer) == SPEC
    trial = tried((0, 1, 1, 0))
    assert progress_of([{**trial_to_json(trial), "weight": 1}]).trials == (trial,)


def test_the_report_says_what_is_claimed_and_what_is_confirmed() -> None:
    found, trials = searched()
    report = tune_report(SPEC, TuneProgress(tuple(trials)), found, {**BENCH, "conditional": False})
    assert report["confirmed"]
    assert report["proposal"] == SPACE.settings(found.point)
    assert "+10.0 % faster (+5.0 % to +15.0 %)" in verdict_line(report)
    text = "\n".join(report_lines(report))
    assert "the search claimed +" in text
    assert "out of device memory" in text
    assert set(comments_of(report, "2026-01-31")) == set(report["proposal"])
    assert "2026-01-31, b1: a chat turn +5.0 % to +15.0 % faster" in comments_of(report, "2026-01-31")["drafts"]


def test_what_was_not_confirmed_is_not_called_faster() -> None:
    found, trials = searched()
    for verdict, words in (
        ("same", "no difference worth having"),
        ("undecided", "not certain"),
        ("a_faster", "slower"),
    ):
        report = tune_report(
            SPEC, TuneProgress(tuple(trials)), found, {**BENCH, "verdict": verdict, "conditional": False}
        )
        assert not report["confirmed"]
        assert words in verdict_line(report)
        assert "the settings stay as they are" in verdict_line(report)


def test_each_end_has_its_sentence() -> None:
    nothing = tune_report(SPEC, TuneProgress((tried(SPACE.current),)), TuneFound(SPACE.current, 0.0), None)
    assert "nothing that was tried is better" in verdict_line(nothing)
    broken_off = tune_report(SPEC, TuneProgress(()), None, None)
    assert "the search is not over" in verdict_line(broken_off)
    unstartable = tune_report(SPEC, TuneProgress((tried((1, 1, 1, 0)),)), TuneFound((1, 1, 1, 0), None), None)
    assert "set it by hand" in verdict_line(unstartable)


def test_what_was_confirmed_is_stale_where_its_ground_is_another_one() -> None:
    report = tune_report(SPEC, TuneProgress(()), None, None)
    side = {"build": "b1", "sha256": "0" * 64, "model_bytes": 9}
    machine = {"devices": ["RTX 3060, 12288 MiB"], "driver": "570.1"}
    assert what_changed(report, side, machine) == []
    assert what_changed(report, {**side, "build": "b2", "sha256": "1" * 64}, machine) == [
        "build b1, 000000000000, now b2, 111111111111"
    ]
    assert what_changed(report, {**side, "model_bytes": 8}, {"devices": [], "driver": None}) == [
        "model 9 bytes, now 8 bytes",
        "devices RTX 3060, 12288 MiB, now none",
        "driver 570.1, now none",
    ]
