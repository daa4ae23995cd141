"""Benches become marks, trials are shown and not compared, and what is told can be read."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Any

from orchestrator.core.bench.blocks import progress_of
from orchestrator.core.bench.records import BenchSpec
from orchestrator.core.bench.report import bench_report
from orchestrator.core.bench.workloads import WORKLOADS
from orchestrator.core.course.benches import marks_of_bench
from orchestrator.core.course.course import SpeedSeries, courses_of
from orchestrator.core.course.text import accept_hint, course_json, course_lines, decline_text
from tests.unit.core.bench.benches import PLAN, TOKENS, pairs, sides
from tests.unit.core.course.histories import NEW_DRIVER, ON, days, mark

MACHINE = {
    "orch": "1", "system": "Linux 6.8.0", "processor": "Ryzen", "cpus": 16, "memory_mib": 65536,
    "devices": ["RTX 3060, 12288 MiB"], "driver": None,
}  # fmt: skip
SERIES = SpeedSeries("p", "upstream", "answers")
SLOWER = [*days(6, 50.0), *days(3, 45.0, NEW_DRIVER, first=6)]


def bench(shake: float = 0.001, **of_b: object) -> tuple[BenchSpec, dict[str, Any]]:
    made = sides(**of_b)
    found = {side: replace(each, argv=("/e", "-c", "8192")) for side, each in made.items()}
    spec = BenchSpec(PLAN, WORKLOADS["chat"], TOKENS, found, (), MACHINE)
    return spec, bench_report(found, PLAN, progress_of(pairs(3, 100, 110, shake)), TOKENS)


def test_each_target_of_a_bench_leaves_a_mark_with_its_interval() -> None:
    spec, result = bench()
    a, b = marks_of_bench(7, 1000.0, spec, result)
    assert (a.profile, a.engine, a.bench, a.trial) == ("p", "upstream", 7, False)
    assert (b.engine, b.kind) == ("ik-fork", a.kind)
    assert a.kind.startswith("chat, 101 tokens (")
    assert a.low_tok_s <= a.decode_tok_s <= a.high_tok_s
    assert 0 < a.high_tok_s / a.low_tok_s - 1 < 0.01
    assert a.circumstances.device == "RTX 3060, Ryzen, 16 CPUs"
    assert a.circumstances.settings == {"-c": "8192"}


def test_named_builds_and_settings_are_trials() -> None:
    for of_b in ({"engine": "upstream@b2"}, {"settings": {"batch.ubatch": "31"}}):
        _, b = marks_of_bench(7, 1000.0, *bench(**of_b))
        assert (b.trial, b.engine.startswith("upstream@")) == (True, False)


def test_a_bench_that_was_disturbed_or_quick_or_is_an_older_orchs_leaves_none() -> None:
    spec, result = bench()
    assert list(marks_of_bench(7, 1000.0, spec, {**result, "blocks": 4})) == []
    hot = [{"kind": "throttled", "text": "hot", "weighs": True}]
    assert list(marks_of_bench(7, 1000.0, spec, {**result, "conditions": hot})) == []
    old = {side: {key: value for key, value in result[side].items() if key != "decode_low"} for side in "ab"}
    assert list(marks_of_bench(7, 1000.0, spec, {**result, **old})) == []


def test_a_build_that_a_gate_refused_is_no_news_of_the_profile() -> None:
    refused = replace(ON, build="b2 f")
    gate = [
        replace(mark(8, 50.0, bench=4), trial=True),
        replace(mark(8, 40.0, refused, bench=4), trial=True),
    ]
    [of_answers, of_benches] = courses_of([*days(6, 50.0), *gate], {})
    assert (of_answers.decline, of_benches.decline, len(of_benches.marks)) == (None, None, 2)
    later = [*days(6, 50.0), mark(7, 50.0, bench=3), *gate, mark(9, 40.0, refused)]
    [_, used] = courses_of(later, {})
    assert used.decline is not None and [each.what for each in used.decline.changed] == ["build"]


def test_an_older_build_that_is_benched_once_more_is_no_news_of_the_profile() -> None:
    older = replace(ON, build="b0 f")
    now = [mark(1, 40.0, older, bench=1), mark(3, 50.0, bench=2), replace(mark(3, 40.0, older, bench=2), trial=True)]
    assert courses_of(now, {})[0].decline is None


def test_series_are_apart_and_each_is_accepted_for_itself() -> None:
    others = [replace(each, profile="q", engine="ik-fork") for each in SLOWER]
    first, second = courses_of([*others, *SLOWER], {SERIES: SLOWER[6].when_s})
    assert (first.series, first.decline) == (SERIES, None)
    assert (second.series.target, second.decline is None) == ("q@ik-fork", False)


def test_what_is_told_names_rates_days_and_changes() -> None:
    [course] = courses_of(SLOWER, {})
    assert course.decline is not None
    text = decline_text(course.series, course.decline)
    assert text == (
        "p@upstream decodes 10 % slower (8 % to 12 %) than it did on 1970-01-01 to 1970-01-05: 45 steps/s since "
        "1970-01-07, 50 before (by its answers); changed since: driver NVIDIA UNIX x86_64 Kernel Module 550.54 -> "
        "NVIDIA UNIX x86_64 Kernel Module 560.28"
    )
    assert "`orch bench accept p@upstream`" in accept_hint(course.series)
    unchanged = courses_of([*days(6, 50.0), *days(5, 44.0, first=6)], {})[0]
    assert unchanged.decline is not None
    assert "nothing that orch knows of has changed" in decline_text(unchanged.series, unchanged.decline)


def test_a_change_is_shown_where_it_happened() -> None:
    [course] = courses_of([*SLOWER, replace(mark(9, 50.0), trial=True)], {})
    lines = course_lines(course)
    assert lines[:3] == [
        "p@upstream: answers",
        "  day         decode, tok/s            95 %  step, ms  prompt, tok/s  answers",
        "  1970-01-01             50        49 to 51        20            400       32",
    ]
    assert [number for number, line in enumerate(lines) if line.startswith("  - driver")] == [8, 12]
    assert lines[-2].endswith("(a trial)")
    assert lines[-1].startswith("  p@upstream decodes 10 % slower")


def test_a_course_in_json_has_the_circumstances_in_full() -> None:
    found = course_json(courses_of(SLOWER, {})[0])
    assert (found["profile"], found["engine"], found["kind"], len(found["marks"])) == ("p", "upstream", "answers", 9)
    assert found["decline"]["changed"][0]["what"] == "driver"
    assert found["marks"][0]["circumstances"] == asdict(ON)
