"""`orch stats` on a history that is known."""

from __future__ import annotations

import csv
import io
import json
import os
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator.adapters.paths import find_paths
from orchestrator.adapters.store.history import HistoryStore
from orchestrator.cli import main as cli
from orchestrator.cli.operate.stats import _count, _figure
from orchestrator.core.measure.request_stats import RequestRecord

NOW_S = time.time()
ONE = RequestRecord(
    started_s=NOW_S - 60, profile="demo", engine="upstream", build="b11434-a-build-with-a-long-name",
    route="/completion", outcome="complete", status=200, held_s=0.25, total_s=2.0, first_token_s=0.5,
    prompt_tokens=100, prompt_ms=50.0, output_tokens=11, output_ms=1000.0, draft_tokens=10, draft_accepted=4,
    cached_tokens=300,
)  # fmt: skip
HUGE = replace(
    ONE, engine="ik-fork", build="b2", prompt_tokens=4 * 10**9, output_tokens=10**9, held_s=1e7, first_token_s=1e4
)


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ORCH_HOME", str(tmp_path))
    path = find_paths().history_file
    os.makedirs(os.path.dirname(path))
    store = HistoryStore(path)
    store.write([ONE, ONE, HUGE, replace(ONE, started_s=NOW_S - 3 * 86_400, profile="old")], [])
    store.close()


def out(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert cli.main(["stats", *words]) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    return captured.out


@pytest.mark.parametrize("by", ["engine", "profile", "build"])
def test_a_person_gets_headings_with_units_in_eighty_columns(
    by: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    heads, units, *rows = out(capsys, "--by", by).splitlines()
    assert heads.split() == [
        by.upper(), "REQS", "ERR", "GONE", "PROMPT", "OUTPUT", "TTFT", "TTFT", "PROMPT", "DECODE", "DRAFT", "HELD",
        "CACHE",
    ]  # fmt: skip
    assert units.split() == ["tok", "tok", "p50", "s", "p95", "s", "tok/s", "tok/s", "%", "s", "%"]
    assert max(map(len, (heads, units, *rows))) <= 80
    figures = [row for row in rows if len(row) > 40]
    assert len({len(row) for row in (heads, *figures)}) == 1, "the columns end alike"
    assert ("b11434-a-build-with-a-long-name" in rows) == (by == "build"), "a long name is not cut"


def test_a_pipe_gets_rows_alone(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [line.split() for line in out(capsys).splitlines()]
    assert rows[0] == ["upstream", "2", "0", "0", "200", "22", "0.50", "0.50", "2000", "10.0", "40.0", "0.50", "75.0"]
    assert [row[0] for row in rows] == ["upstream", "ik-fork", "total"]


def test_only_requests_that_are_young_enough_count(capsys: pytest.CaptureFixture[str]) -> None:
    found = json.loads(out(capsys, "--by", "profile", "--json"))
    assert [(each["profile"], each["requests"]) for each in found["groups"]] == [("demo", 3)]
    found = json.loads(out(capsys, "--by", "profile", "--json", "--since", "1w"))
    assert [(each["profile"], each["requests"]) for each in found["groups"]] == [("demo", 3), ("old", 1)]
    assert found["total"]["requests"] == 4


def test_csv_has_the_names_and_figures_of_json(capsys: pytest.CaptureFixture[str]) -> None:
    found = json.loads(out(capsys, "--json"))["groups"]
    rows = list(csv.DictReader(io.StringIO(out(capsys, "--csv"))))
    assert rows == [{name: "" if value is None else str(value) for name, value in group.items()} for group in found]


@pytest.mark.parametrize("age", ["0h", "24", "h", "-1h", "1.5h", "24H", "", "9999999h"])
def test_an_age_that_is_none_is_refused(age: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["stats", f"--since={age}"]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert f"found `{age}`" in captured.err and "7d" in captured.err


@pytest.mark.parametrize(
    "value, text",
    [(0, "0"), (9999, "9999"), (10_000, "10.0k"), (123_456, "123k"), (9_999_499, "9999k"), (12_345_678, "12.3M"),
     (4e9, "4000M"), (4e12, "4000G")],
)  # fmt: skip
def test_counts_are_short(value: float, text: str) -> None:
    assert _count(value) == text


@pytest.mark.parametrize("value, text", [(None, "-"), (0.0, "0.00"), (9.994, "9.99"), (9.996, "10.0"), (123.4, "123")])
def test_figures_have_three_digits(value: float | None, text: str) -> None:
    assert _figure(value) == text


def test_energy_is_told_to_a_person_and_beside_the_rows_of_a_pipe(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    store = HistoryStore(find_paths().history_file)
    store.write([replace(ONE, energy_j=7200.0)], [])
    store.close()
    assert cli.main(["stats"]) == 0
    told = capsys.readouterr()
    assert told.err.startswith("energy 2 Wh (1 of 4 requests)")
    assert [line.split()[0] for line in told.out.splitlines()] == ["upstream", "ik-fork", "total"]
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    assert out(capsys).splitlines()[-1].startswith("energy 2 Wh")
