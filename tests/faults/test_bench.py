"""`orch bench` as a whole: real processes, fake engines whose speed is known."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from typing import Any

from tests.faults.lab import Lab
from tests.support import until

QUICK = ("--tokens", "32", "--blocks", "6", "--json")


def lab_of_two(lab: Lab, fast: float = 600.0, slow: float = 200.0) -> None:
    """A profile that is served, and another one that is slower."""
    lab.model("fast", {"tokens_s": fast})
    lab.model("slow", {"tokens_s": slow})
    lab.serve("fast")
    lab.ready("fast")


def profiles_left(lab: Lab) -> list[str]:
    return [name for name in os.listdir(os.path.join(lab.root, "config", "profiles")) if name.startswith("bench-")]


def blocks_kept(lab: Lab, bench: subprocess.Popen[str]) -> int:
    assert bench.poll() is None, bench.communicate()
    rows = json.loads(lab.orch("bench", "list", "--json").stdout)
    if not rows:
        return 0

    return int(lab.orch_json("bench", "show")["blocks"])


def events_kept(lab: Lab) -> list[Any]:
    """The last bench as it was kept: its blocks and, more on a busy machine, pairs thrown away."""
    events: list[Any] = json.loads(lab.orch("bench", "export", "1").stdout)["events"]
    return events


def starts_for(events: list[Any], side: str) -> range:
    """How many starts of a side these events are of: one for each block, and maybe one for each pair thrown away."""
    blocks = sum(each["event"] == "block" and each["side"] == side for each in events)
    return range(blocks, blocks + sum(each["event"] == "thrown" for each in events) + 1)


def kinds(report: Any) -> set[str]:
    return {each["kind"] for each in report["conditions"]}


def test_the_faster_one_is_found_and_what_ran_runs_again(lab: Lab) -> None:
    lab_of_two(lab)
    report = json.loads(lab.orch("bench", "slow", "fast", *QUICK).stdout)
    assert (report["verdict"], report["blocks"], report["metric"]) == ("b_faster", 6, "decode")
    assert 2 < report["ratio"] < 3.5
    assert {"model", "not_verified"} <= kinds(report)
    assert report["conditional"] is True
    assert all(each["a"]["output_tokens"] == 32 for each in report["prompts"])
    assert "--port" in report["a"]["argv"]
    assert lab.status()["profile"] == "fast"
    assert lab.status()["state"] == "ready"
    assert report == lab.orch_json("bench", "show")
    assert "b_faster" not in lab.orch("bench", "show").stdout


def test_each_block_is_a_residency_of_its_own(lab: Lab) -> None:
    lab_of_two(lab)
    lab.orch("bench", "fast", "slow", *QUICK)
    events = events_kept(lab)
    assert len(lab.starts("slow")) in starts_for(events, "b")
    # The start before the bench, the blocks, and the return at the end where the last block was not of it.
    of_fast = starts_for(events, "a")
    assert len(lab.starts("fast")) in range(of_fast.start + 1, of_fast.stop + 2)


def test_a_request_of_a_client_spoils_its_pair_and_is_answered(lab: Lab) -> None:
    lab_of_two(lab)
    bench = lab.begin("bench", "fast", "slow", *QUICK)
    until(lambda: any(each["id"].startswith("bench-") for each in lab.control("/v1/requests")["requests"]), "it asks")
    assert lab.ask("mine", 8).status == 200
    report = json.loads(bench.communicate(timeout=120)[0])
    assert bench.returncode == 0
    assert "thrown_clients" in kinds(report)
    assert report["blocks"] == 6


def test_settings_over_a_profile_are_in_force_and_leave_nothing(lab: Lab) -> None:
    lab_of_two(lab)
    report = json.loads(lab.orch("bench", "fast", "fast+context.size=2048", *QUICK).stdout)
    assert report["b"]["settings"] == {"context.size": "2048"}
    assert "2048" in report["b"]["argv"]
    assert "2048" not in report["a"]["argv"]
    assert profiles_left(lab) == []
    assert lab.status()["profile"] == "fast"


def test_a_wrong_setting_is_refused_before_anything_stops(lab: Lab) -> None:
    lab_of_two(lab)
    done = lab.orch("bench", "fast", "fast+context.size=many", *QUICK, check=False)
    assert done.returncode == 2
    assert "context.size" in done.stderr
    assert profiles_left(lab) == []
    assert len(lab.starts("fast")) == 1
    assert lab.orch_json("bench", "list") == []


def test_an_interrupted_bench_keeps_its_blocks_and_goes_on(lab: Lab) -> None:
    lab_of_two(lab)
    bench = lab.begin("bench", "fast", "slow", *QUICK)
    until(lambda: blocks_kept(lab, bench) >= 2, "a pair is kept")
    bench.send_signal(signal.SIGINT)
    out, err = bench.communicate(timeout=60)
    assert bench.returncode == 130
    assert json.loads(out)["complete"] is False
    assert "orch bench resume" in err
    assert lab.ready("fast")
    kept = events_kept(lab)

    starts = len(lab.starts("slow"))
    report = json.loads(lab.orch("bench", "resume", "--json").stdout)
    assert (report["blocks"], report["verdict"], report["state"]) == (6, "a_faster", "done")
    events = events_kept(lab)
    assert events[: len(kept)] == kept
    assert len(lab.starts("slow")) - starts in starts_for(events[len(kept) :], "b"), report["conditions"]


def test_a_killed_bench_goes_on_and_returns_to_what_ran_before_it(lab: Lab) -> None:
    lab_of_two(lab)
    bench = lab.begin("bench", "slow", "slow+context.size=2048", *QUICK)
    until(lambda: blocks_kept(lab, bench) >= 2, "a pair is kept")
    bench.kill()
    bench.communicate()
    report = json.loads(lab.orch("bench", "resume", "--json").stdout)
    assert (report["blocks"], report["state"]) == (6, "done")
    assert profiles_left(lab) == []
    assert lab.status()["profile"] == "fast"
    again = lab.orch("bench", "resume", check=False)
    assert again.returncode == 2
    assert "is over" in again.stderr


def test_one_bench_at_a_time(lab: Lab) -> None:
    lab_of_two(lab)
    bench = lab.begin("bench", "fast", "slow", *QUICK)
    until(lambda: len(lab.starts("slow")) >= 1, "it runs")
    second = lab.orch("bench", "fast", "slow", check=False)
    assert second.returncode == 5
    assert "another bench runs" in second.stderr
    assert bench.communicate(timeout=120)
    assert bench.returncode == 0


def test_what_is_no_target_is_said(lab: Lab) -> None:
    lab_of_two(lab)
    done = lab.orch("bench", "fast", "slwo", check=False)
    assert done.returncode == 2
    assert "did you mean `slow`" in done.stderr


def test_one_target_is_measured_in_three_ways_and_each_is_kept(lab: Lab) -> None:
    lab_of_two(lab)
    depth = json.loads(lab.orch("bench", "depth", "slow", "--to", "1024", "--json").stdout)
    assert [point["decode_tok_s"] > 120 for point in depth["series"][0]["points"]] == [True, True]
    load = json.loads(lab.orch("bench", "load", "slow", "--clients", "1,2", "--tokens", "32", "--json").stdout)
    assert [(row["clients"], row["failed"]) for row in load["series"][0]["rows"]] == [(1, 0), (2, 0)]
    once = lab.orch("bench", "pass", "slow", "--prompts", "mtp", "--tokens", "32").stdout
    assert "9 requests, 288 tokens" in once
    assert [row["kind"] for row in lab.orch_json("bench", "list")] == ["pass", "load", "depth"]
    assert lab.status()["profile"] == "fast"

    page = os.path.join(lab.root, "page.html")
    assert "written" in lab.orch("bench", "show", "1", "--html", page).stderr
    with open(page, encoding="utf-8") as file:
        assert "<svg" in file.read()

    assert json.loads(lab.orch("bench", "export", "2").stdout)["report"]["kind"] == "load"
    done = lab.orch("bench", "diff", "1", "2", check=False)
    assert done.returncode == 2
    assert "only benches of two targets" in done.stderr


def test_a_profile_that_clients_ask_for_meanwhile_is_served(lab: Lab) -> None:
    """While the other one of two is measured; the bench waits, and ends all the same."""
    lab_of_two(lab)
    bench = lab.begin("bench", "slow", "slow", *QUICK)
    until(lambda: any(each["id"].startswith("bench-") for each in lab.control("/v1/requests")["requests"]), "it asks")
    assert lab.ask("mine", 8, model="fast").status == 200
    report = json.loads(bench.communicate(timeout=200)[0])
    assert report["blocks"] == 6
    assert {"thrown_clients", "thrown_changed", "thrown_unusable"} & kinds(report)
    assert lab.ready("fast")
