"""`orch stats --cost` on a history that is known."""

from __future__ import annotations

import json
import os
import time
from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator.adapters.paths import find_paths
from orchestrator.adapters.store.history import HistoryStore
from orchestrator.cli import main as cli
from orchestrator.core.energy.sharing import IdleRecord
from orchestrator.core.measure.request_stats import RequestRecord

NOW_S = time.time()
ONE = RequestRecord(
    started_s=NOW_S - 2 * 86_400, profile="qwen", engine="upstream", build="b1", route="/v1/chat/completions",
    outcome="complete", status=200, held_s=0.0, total_s=2.0, prompt_tokens=1_000_000, prompt_ms=500.0,
    output_tokens=100_000, output_ms=1500.0, energy_j=3.6e6,
)  # fmt: skip
IDLE = IdleRecord(int(NOW_S) // 3600 * 3600, "qwen", "upstream", 1.8e6, 1800.0, 0.0)
PRICES = """\
[cost]
electricity_per_kwh = 0.25
currency = "EUR"

[cost.prices.api]
prompt = 1
output = 10
"""


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ORCH_HOME", str(tmp_path))
    os.makedirs(os.path.dirname(find_paths().config_file))
    Path(find_paths().config_file).write_text(PRICES)
    return tmp_path


def record(*records: RequestRecord, idle: tuple[IdleRecord, ...] = ()) -> None:
    path = find_paths().history_file
    os.makedirs(os.path.dirname(path), exist_ok=True)
    store = HistoryStore(path)
    store.write(records, [], idle)
    store.close()


def test_money_and_energy_are_told_with_what_they_assume_and_nothing_is_missing(
    capsys: pytest.CaptureFixture[str],
) -> None:
    record(ONE, idle=(IDLE,))
    assert cli.main(["stats", "--since", "7d", "--cost", "--card-price", "300"]) == 0
    told = capsys.readouterr()
    assert told.err == ""
    lines = told.out.splitlines()
    assert lines[0] == "qwen: 1 of 1 request"
    assert "  saved against api, idle time counted: 1.62 EUR" in lines  # 2.00 - 0.25 - 0.125
    assert "a card for 300.00 EUR, by the use of the last 2 days, all models together:" in lines
    assert any("paid after 189 million tokens" in line for line in lines)  # 300 / 1.75 times 1.1
    assert "  1 of 1 request compared: their energy is known, and what was computed" in lines


def test_the_profiles_of_benches_are_one_row(capsys: pytest.CaptureFixture[str]) -> None:
    trials = [replace(ONE, profile=f"bench-{number:012x}") for number in (1, 2)]
    record(*trials, ONE, idle=(replace(IDLE, profile=f"bench-{3:012x}"),))
    assert cli.main(["stats", "--since", "7d", "--cost", "--json"]) == 0
    models = json.loads(capsys.readouterr().out)["models"]
    assert [(each["profile"], each["requests"], each["idle_j"]) for each in models] == [
        ("benches and tuning", 2, 1.8e6),
        ("qwen", 1, 0),
    ]


def test_scripts_get_the_same_figures(capsys: pytest.CaptureFixture[str]) -> None:
    record(ONE, replace(ONE, started_s=NOW_S - 30 * 86_400), idle=(IDLE,))
    assert cli.main(["stats", "--since", "7d", "--cost", "--card-price", "300", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["over_s"] == pytest.approx(2 * 86_400, abs=600)
    assert (found["electricity_per_kwh"], found["currency"]) == (0.25, "EUR")
    (model,) = found["models"]
    assert (model["profile"], model["requests"], model["busy_cost"], model["idle_cost"]) == ("qwen", 1, 0.25, 0.125)
    assert model["apis"][0]["cost"] == 2.0
    assert found["card"][0]["million_tokens"] == pytest.approx(188.57, abs=0.01)


def test_what_is_not_known_is_said_with_what_to_do(capsys: pytest.CaptureFixture[str]) -> None:
    Path(find_paths().config_file).write_text("")
    record(replace(ONE, energy_j=None))
    assert cli.main(["stats", "--since", "7d", "--cost"]) == 0
    told = capsys.readouterr()
    assert told.out == "qwen: 1 request, the energy of none of them is known\n"
    assert "no energy is known: a card has to tell its energy or its power" in told.err
    assert "`electricity_per_kwh` in `[cost]`" in told.err and "no API price to compare with" in told.err


def test_without_a_history_there_is_nothing_and_no_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["stats", "--cost", "--card-price", "300"]) == 0
    told = capsys.readouterr()
    assert (told.out, told.err.strip()) == ("", "no requests in that time")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--card-price", "300"), "--card-price needs --cost"),
        (("--cost", "--csv"), "--cost has no CSV"),
        (("--cost", "--by", "client"), "--cost is by profile, not by client"),
        (("--cost", "--card-price", "0"), "found `0`; allowed: a number above 0"),
        (("--cost", "--card-price", "nan"), "found `nan`"),
        (("--cost", "--card-price", "cheap"), "found `cheap`"),
    ],
)
def test_options_that_say_nothing_are_refused(
    words: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["stats", *words]) == 2
    assert message in capsys.readouterr().err
