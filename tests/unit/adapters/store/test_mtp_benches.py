"""What kept benches say of MTP for one start: of pairs before those by depth, and of the same settings alone."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from contextlib import closing
from dataclasses import asdict, replace
from math import exp
from pathlib import Path

import pytest

from orchestrator.adapters.store.bench_runs import TUNE, BenchStore
from orchestrator.adapters.store.mtp_benches import MtpStart, benches_stamp, measured_mtp
from orchestrator.core.bench.conditions import BenchSide
from orchestrator.core.bench.records import BenchSpec, event_to_json, spec_to_json
from orchestrator.core.bench.workloads import CHAT
from orchestrator.core.errors import OrchError
from orchestrator.core.profile.settings import Value
from orchestrator.core.tune.records import TuneSpec, trial_to_json
from orchestrator.core.tune.records import spec_to_json as spec_of_tuning
from orchestrator.core.tune.search import TuneTrial
from orchestrator.core.tune.space import Axis, AxisChoice, Space
from orchestrator.core.tune.use import USES
from tests.unit.core.bench.benches import PLAN, pairs

BUILD, MODEL = "b1 ffffffffffff", "m.gguf:77:123456"
SETTINGS: dict[str, Value] = {"context.size": 4096, "speculative.type": "mtp"}


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "data" / "bench.sqlite3")


def side(settings: Mapping[str, object]) -> BenchSide:
    texts = {key: str(value) for key, value in settings.items()}
    return BenchSide("p", "p", "e", "b1", "f" * 64, model="/models/m.gguf", model_bytes=77, all_settings=texts)


def keep_pair(
    path: str, mtp_tok_s: float, *, settings: Mapping[str, object] = SETTINGS, state: str = "done", right: float = 0.0
) -> int:
    """Keep a bench of MTP (A) against none (B) at 100 tok/s.

    :param right: share of right drafts, of 60 for each answer; 0 where they are not told
    """
    none = side({**settings, "speculative.type": "none"})
    spec = BenchSpec(PLAN, CHAT, 192, {"a": side(settings), "b": none}, (), {})
    store = BenchStore(path)
    run = store.begin(1.7e9, "pair", "p against p", spec_to_json(spec))
    for block in pairs(6, mtp_tok_s, 100.0, 0.02):
        if block.side == "a" and right:
            accepted = round(60 * right)
            told = (replace(each, draft_tokens=60, draft_accepted=accepted) for each in block.answers)
            block = replace(block, answers=tuple(told))

        store.add(run, event_to_json(block))

    store.end(run, state, {})
    store.close()
    return run


def keep_depth(path: str, mtp_tok_s: float) -> int:
    rates = {"mtp": mtp_tok_s, "none": 100.0}
    series = [
        {
            "all_settings": side({**SETTINGS, "speculative.type": kind}).all_settings,
            "points": [{"depth": 512, "decode_tok_s": tok_s, "prompt_tok_s": 800.0}],
        }
        for kind, tok_s in rates.items()
    ]
    known = {key: getattr(side(SETTINGS), key) for key in ("build", "sha256", "model", "model_bytes")}
    store = BenchStore(path)
    run = store.begin(1.7e9, "depth", "p", {})
    store.end(run, "done", {**known, "profile": "p", "engine": "e", "series": series})
    store.close()
    return run


def found(path: str, settings: Mapping[str, object] = SETTINGS) -> tuple[str, float] | None:
    [measured] = measured_mtp(path, [MtpStart(BUILD, MODEL, settings)])
    return None if measured is None else (measured.source, round(measured.ratios["decode"].ratio, 1))


@pytest.mark.parametrize("kind", ["pair", "depth", TUNE])
@pytest.mark.parametrize(
    "kept", ["[]", "{}", '{"sides": 3}', '{"trunc', '{"sides": {"a": [], "b": []}, "side": []}', "9e999"]
)
def test_a_bench_that_cannot_be_read_is_as_if_it_were_not_there(path: str, kind: str, kept: str) -> None:
    keep_pair(path, 150.0)
    store = BenchStore(path)
    run = store.begin(1.8e9, kind, "odd", {})
    store.add(run, {"event": "trial"})
    store.close()
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE runs SET spec = ?, result = ?, state = 'done' WHERE id = ?", (kept, kept, run))

    (found,) = measured_mtp(path, [MtpStart(BUILD, MODEL, SETTINGS)])
    assert found is not None and found.source == "bench 1"


def test_nothing_was_measured_where_there_are_no_benches_and_nothing_is_made(path: str) -> None:
    assert found(path) is None
    assert not Path(path).parent.exists()


def test_the_newest_pair_goes_before_older_ones_and_before_one_by_depth(path: str) -> None:
    keep_depth(path, 70.0)
    assert found(path) == ("bench 1 (by depth)", 0.7)
    keep_pair(path, 80.0)
    assert found(path) == ("bench 2", 0.8)
    keep_depth(path, 70.0)
    assert found(path) == ("bench 2", 0.8)
    keep_pair(path, 150.0)
    assert found(path) == ("bench 4", 1.5)


def test_what_was_broken_off_or_measured_of_other_settings_does_not_count(path: str) -> None:
    keep_pair(path, 80.0, state="interrupted")
    keep_pair(path, 80.0, settings={**SETTINGS, "context.size": 8192})
    keep_pair(path, 80.0, settings={"context.size": 4096, "speculative.type": "ngram-mod"})
    assert found(path) is None
    assert found(path, {**SETTINGS, "context.size": 8192}) == ("bench 2", 0.8)


def test_benches_of_an_older_orch_are_passed_over(path: str) -> None:
    store = BenchStore(path)
    spec = spec_to_json(BenchSpec(PLAN, CHAT, 192, {each: side({}) for each in ("a", "b")}, (), {}))
    for each in spec["sides"].values():
        del each["all_settings"]
        each["sampling"] = {"sampling.top_k": "20"}

    store.end(store.begin(1.7e9, "pair", "p", spec), "done", {})
    store.end(store.begin(1.7e9, "depth", "p", {}), "done", {"series": [{"points": []}, {"points": []}]})
    store.close()
    assert found(path) is None


def test_a_tuning_counts_where_no_bench_does(path: str) -> None:
    drafts = Axis("drafts", "drafts", (AxisChoice("none", (("speculative.type", '"none"'),)), AxisChoice("3 mtp")), 1)
    spec = TuneSpec(
        "p", "e", USES["chat"], Space((drafts,)), 900.0, 20, 42, False, 4096, asdict(side(SETTINGS)), (), {}
    )
    store = BenchStore(path)
    run = store.begin(1.7e9, TUNE, "p", spec_of_tuning(spec))
    for point, log in (((1,), -1.0), ((0,), -0.5)):
        store.add(run, trial_to_json(TuneTrial(point, "measured", (log,) * 5)))

    store.end(run, "done", {})
    store.close()
    [measured] = measured_mtp(path, [MtpStart(BUILD, MODEL, SETTINGS)])
    assert measured is not None and measured.source == "tuning 1"
    assert measured.ratios["turn"].ratio == pytest.approx(exp(-0.5))
    keep_depth(path, 70.0)
    assert found(path) == ("bench 2 (by depth)", 0.7)


def test_a_file_that_cannot_be_read_is_said(path: str) -> None:
    keep_pair(path, 80.0)
    Path(path).write_bytes(b"x" * 4096)
    with pytest.raises(OrchError, match="cannot be used"):
        found(path)


def test_the_stamp_of_the_benches_differs_once_something_was_kept_and_not_once_it_was_read(path: str) -> None:
    stamps = [benches_stamp(path)]
    for mtp_tok_s in (80.0, 90.0):
        keep_pair(path, mtp_tok_s)
        stamps.append(benches_stamp(path))
        found(path)  # whose log stays
        assert Path(f"{path}-wal").exists()
        assert benches_stamp(path) == stamps[-1]
        store = BenchStore(path)
        store.runs()
        store.close()  # which removes the log
        assert benches_stamp(path) == stamps[-1]

    assert len(set(stamps)) == 3


def test_a_side_of_an_older_orch_keeps_its_sampling() -> None:
    assert replace(side({"sampling.top_k": 20})).sampling == {"sampling.top_k": "20"}
