"""The report of a tuning to hand on."""

from __future__ import annotations

from typing import Any

from orchestrator.core.tune.documents import html_page, markdown
from orchestrator.core.tune.records import TuneProgress
from orchestrator.core.tune.report import tune_report
from tests.unit.core.bench.test_documents import MACHINE
from tests.unit.core.bench.test_documents import report as bench
from tests.unit.core.tune.spaces import searched
from tests.unit.core.tune.test_records import BENCH, SPEC


def report(**more: Any) -> dict[str, Any]:
    found, trials = searched()
    made = tune_report(SPEC, TuneProgress(tuple(trials)), found, {**BENCH, "conditional": False})
    return {**made, "id": 12, "kind": "tune", "machine": MACHINE, "stale": ["build b1, now <b2>"], **more}


def test_a_page_has_the_starts_the_axes_what_died_and_both_figures() -> None:
    made = report()
    page = html_page([made])
    for trial in made["trials"]:
        assert f"<td>{trial['settings']}<td>" in page

    for axis in made["axes"]:
        assert f"<td>{axis['name']}<td>{axis['now']}<td>{', '.join(axis['choices'])}" in page

    assert "out of device memory" in page
    assert "+10.0 % faster (+5.0 % to +15.0 %)" in page
    assert "the search claimed +" in page
    assert "<svg" in page
    assert "now &lt;b2&gt;" in page
    assert "://" not in page


def test_what_was_not_benched_has_no_interval() -> None:
    page = html_page([report(confirmation=None, confirmed=False)])
    assert "<svg" not in page
    assert "was not confirmed yet" in page


def test_two_tunings_and_the_bench_of_their_winners_are_one_document() -> None:
    three = [report(), report(id=13, engine="ik-fork"), {**bench(), "kind": "pair"}]
    page, text = html_page(three), markdown(three)
    assert "<title>tuning 12, 13</title>" in page
    assert page.count("<h2>Starts</h2>") == 2
    assert "Against each other" in page
    assert text.count("| settings | turns | a turn |") == 2
    assert text.count("orch bench") == 1


def test_markdown_has_a_row_for_each_start() -> None:
    trial = {**report()["trials"][0], "reason": "a | b", "outcome": "died"}
    text = markdown([report(trials=[trial])])
    assert "| a \\| b |" in text
    assert "- stale: build b1" in text
