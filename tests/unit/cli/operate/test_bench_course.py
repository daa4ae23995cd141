"""`orch bench course` and `accept` on marks and benches that are known."""

from __future__ import annotations

import contextlib
import json
from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator.adapters.paths import find_paths
from orchestrator.adapters.store.bench_runs import BenchStore
from orchestrator.adapters.store.speed_marks import SpeedMarkStore
from orchestrator.cli import main as cli
from orchestrator.cli.operate.bench_show import tell_declines
from orchestrator.core.bench.blocks import progress_of
from orchestrator.core.bench.records import spec_to_json
from orchestrator.core.bench.report import bench_report
from tests.unit.core.bench.benches import PLAN, TOKENS, pairs
from tests.unit.core.course.histories import NEW_DRIVER, days
from tests.unit.core.course.test_course import bench

SLOWER = [*days(6, 50.0), *days(3, 45.0, NEW_DRIVER, first=6)]


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ORCH_HOME", str(tmp_path))


def keep_bench(started_s: float, a_tok_s: float) -> int:
    spec, _ = bench()
    store = BenchStore(find_paths().bench_file)
    run = store.begin(started_s, "pair", "upstream ik-fork", spec_to_json(spec))
    store.end(run, "done", bench_report(spec.sides, PLAN, progress_of(pairs(3, a_tok_s, 110, 0.001)), TOKENS))
    store.close()
    return run


def tell_of_bench(run: int) -> None:
    with contextlib.closing(BenchStore(find_paths().bench_file)) as store:
        tell_declines(store, run)


def test_without_a_figure_that_is_said_and_nothing_is_made(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert cli.main(["bench", "course"]) == 0
    assert "nothing was measured yet" in capsys.readouterr().err
    assert not any(tmp_path.rglob("*.sqlite3"))


def test_a_decline_is_shown_until_it_is_accepted(capsys: pytest.CaptureFixture[str]) -> None:
    SpeedMarkStore(find_paths().speed_marks_file).record(SLOWER)
    assert cli.main(["bench", "course", "p"]) == 0
    shown = capsys.readouterr()
    assert "p@upstream decodes 10 % slower" in shown.out and "`orch bench accept p@upstream`" in shown.err
    assert cli.main(["bench", "accept", "p@upstream"]) == 0
    assert "p@upstream (answers): 45 a second is its speed from now on" in capsys.readouterr().err
    assert cli.main(["bench", "course", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    [course] = document["courses"]
    assert document["version"] == 1
    assert (course["decline"], len(course["marks"])) == (None, 9)
    assert cli.main(["bench", "accept", "p"]) == 0
    assert "there is nothing to accept" in capsys.readouterr().err


def test_benches_are_in_the_course_and_tell_of_a_loss_at_their_end(capsys: pytest.CaptureFixture[str]) -> None:
    tell_of_bench(keep_bench(1000.0, 100))
    tell_of_bench(keep_bench(90000.0, 80))
    assert capsys.readouterr().err == ""
    tell_of_bench(keep_bench(180000.0, 80))
    told = capsys.readouterr().err
    assert "p@upstream decodes 20 % slower" in told and "nothing that orch knows of has changed" in told
    assert cli.main(["bench", "course", "p@upstream"]) == 0
    rows = [line for line in capsys.readouterr().out.splitlines() if "bench" in line]
    assert [row.split()[-2:] for row in rows[:2]] == [["bench", "1"], ["bench", "2"]]


def test_an_unknown_name_is_told_with_what_is_known(capsys: pytest.CaptureFixture[str]) -> None:
    SpeedMarkStore(find_paths().speed_marks_file).record([replace(SLOWER[0], profile="mine")])
    assert cli.main(["bench", "course", "mini@upstream"]) == 2
    assert "did you mean `mine@upstream`" in capsys.readouterr().err
