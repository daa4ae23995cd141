"""`orch bench` on a real engine whose speed is known, once each way: `benchmarks/bench_truth.py` repeats it."""

from __future__ import annotations

import pytest

from benchmarks.bench_truth import add_relay, one_bench
from tests.support import new_home

pytest.importorskip("xllamacpp", reason="the embedded engine is not installed")


def test_a_slower_engine_is_found_and_the_same_engine_is_not_called_another() -> None:
    with new_home() as home:
        home.demo_on_one_thread()
        add_relay(home, "plain", 0.0, pace_ms=5)
        add_relay(home, "delayed", 0.25, pace_ms=5)
        home.serve("demo")
        home.ready("demo")
        found = one_bench(home, "demo@plain", "demo@delayed", 3, 32, "--blocks", "10")
        assert found["verdict"] == "a_faster"
        assert 0.72 < float(str(found["ratio"])) < 0.88
        # Four blocks never have a verdict; the interval is all that they say.
        same = one_bench(home, "demo@plain", "demo@plain", 3, 32, "--quick")
        assert (same["verdict"], same["blocks"]) == ("undecided", 4)
        assert 0.85 < float(str(same["ratio"])) < 1.18
        assert home.ready("demo")["engine"] == "embedded"
