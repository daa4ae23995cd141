"""A run in which nothing is wrong raises no alarm of any kind, and what a bench measured against MTP is said."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from orchestrator.adapters.paths import Paths, find_paths
from orchestrator.adapters.store.bench_runs import BenchStore
from orchestrator.bench.targets import BenchTarget, bench_profiles, describe_target
from orchestrator.core.bench.records import BenchSpec, event_to_json, spec_to_json
from orchestrator.core.bench.workloads import CHAT
from tests.healthy import alarms
from tests.support import Home, new_home, until
from tests.unit.core.bench.benches import PLAN, pairs

TOKENS, ANSWERS = 200, 8
"""Enough for each notice that goes by answers to have its say."""


@pytest.fixture(scope="module")
def home() -> Iterator[Home]:
    """A daemon whose profile drafts with MTP on the embedded engine."""
    with new_home() as home:
        home.demo_on_one_thread()
        home.profile("mine", 'schema = 1\nextends = "demo"\n[context]\nsize = 4096\n')
        home.serve("mine")
        home.ready("mine")
        yield home


def paths_of(home: Home) -> Paths:
    return find_paths({"ORCH_HOME": home.root})


def test_a_healthy_run_has_no_notice_no_alarm_and_nothing_that_it_goes_on_without(home: Home) -> None:
    for turn in range(ANSWERS):
        body = {"model": "mine", "messages": [{"role": "user", "content": f"question {turn}"}], "max_tokens": TOKENS}
        status, _, _ = home.request("POST", "/v1/chat/completions", {**body, "stream": turn % 2 == 0})
        assert status == 200
        home.complete(f"A supervisor {turn}", TOKENS, temperature=0)

    shown = home.ready("mine")
    assert shown["speed"]["draft_acceptance"] > 0, "MTP is watched"
    assert shown["notice"] is None and shown["stale"] == [] and shown["cause"] is None
    assert [each["outcome"] for each in shown["attempts"]] == ["ready"]
    assert alarms(home) == []
    page = home.request("GET", "/metrics")[2].decode()
    assert not [line for line in page.splitlines() if line.startswith("orch_degraded{")]
    assert "notice" not in home.orch("status").stdout


def keep_bench(home: Home, mtp_tok_s: float) -> None:
    """Keep a bench of the profile as it is (A) against the same without drafts (B), at 100 tok/s."""
    paths = paths_of(home)
    targets = [BenchTarget("mine", "mine", "embedded", more) for more in ((), (("speculative.type", "none"),))]
    with bench_profiles(paths, targets):
        sides = [describe_target(paths, each, None) for each in targets]

    store = BenchStore(paths.bench_file)
    spec = BenchSpec(PLAN, CHAT, 192, {"a": sides[0], "b": sides[1]}, (), {})
    run = store.begin(1.7e9, "pair", "mine against mine", spec_to_json(spec))
    for block in pairs(6, mtp_tok_s, 100.0, 0.02):
        store.add(run, event_to_json(block))

    store.end(run, "done", {})
    store.close()


def findings(home: Home) -> list[tuple[str, str, str]]:
    found = home.orch_json("doctor", "--json", check=False)["findings"]
    mtp = (each for each in found if each["what"] == "mtp" and "`mine`" in each["text"])
    return [(each["level"], each["text"], each["fix"]) for each in mtp]


def test_mtp_that_a_bench_measured_to_be_slower_is_said_in_status_doctor_and_explain(home: Home) -> None:
    off = "`orch profile set mine speculative.type=none`"
    [(level, text, fix)] = findings(home)
    assert (level, fix) == ("note", "`orch bench mine mine+speculative.type=none`")
    assert "whether MTP pays on this machine was not measured" in text
    keep_bench(home, 80.0)
    notice = until(lambda: home.status()["notice"], "the daemon has read it")
    slower = "MTP is slower than none on this machine: 99.00 against 125 tok/s"
    assert slower in notice and "bench 1" in notice and off in notice
    assert [each.partition(":")[0] for each in alarms(home)] == ["mtp_slower"]
    assert [(level, slower in text, fix) for level, text, fix in findings(home)] == [("warning", True, off)]
    explained = home.orch("explain").stdout
    assert f"mtp_slower: {slower}" in explained and f"what you can do: {off}" in explained
