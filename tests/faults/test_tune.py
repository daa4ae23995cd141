"""`orch tune` as a whole: real processes, fake engines whose speed depends on their flags."""

from __future__ import annotations

import os
import signal
import subprocess
from typing import Any

from orchestrator.adapters.paths import find_paths
from orchestrator.adapters.store.bench_runs import BenchStore
from orchestrator.core.tune.records import progress_of
from orchestrator.core.tune.search import TuneTrial
from tests.faults.lab import Lab
from tests.support import until

SHORT = ("--budget", "10m", "--starts", "9")
BASE = {"tokens_s": 2000.0}


def tuned(lab: Lab, *words: str) -> Any:
    return lab.orch_json("tune", "model", *SHORT, *words)


def profile_text(lab: Lab) -> str:
    with open(os.path.join(lab.root, "config", "profiles", "model.toml"), encoding="utf-8") as file:
        return file.read()


def serve(lab: Lab, faults: dict[str, object], more: str = "") -> None:
    lab.model("model", {**BASE, **faults}, more=f"# mine\n{more}")
    lab.serve("model")
    lab.ready("model")


def test_what_is_faster_is_found_confirmed_and_written_only_when_asked(lab: Lab) -> None:
    serve(lab, {"with_words": {"--ubatch-size 1024": {"tokens_s": 4000.0}, "--ubatch-size 2048": {"tokens_s": 1000.0}}})
    before = profile_text(lab)
    report = tuned(lab)
    assert report["proposal"]["batch.ubatch"] == "1024"
    assert report["confirmed"], report["confirmation"]
    assert report["confirmation"]["low"] > 1
    assert report["claimed"] > 0.2
    assert profile_text(lab) == before
    assert (lab.status()["profile"], lab.status()["state"]) == ("model", "ready")
    lab.orch("tune", "apply")
    after = profile_text(lab)
    assert "# mine" in after
    [line] = [each for each in after.splitlines() if each.startswith("ubatch")]
    assert line.startswith("ubatch = 1024 # orch tune, 20")
    assert "faster" in line
    page = os.path.join(lab.root, "report.html")
    assert lab.orch_json("tune", "show", "--html", page)["proposal"] == report["proposal"]
    with open(page, encoding="utf-8") as file:
        assert "batch.ubatch = 1024" in file.read()

    # A tuning is no bench, and the bench that confirms it is one.
    assert [each["kind"] for each in lab.orch_json("bench", "list")] == ["pair"]
    assert lab.orch_json("bench", "show")["verdict"] == "b_faster"


def test_where_nothing_is_faster_nothing_is_proposed_or_the_bench_refuses_it(lab: Lab) -> None:
    serve(lab, {})
    before = profile_text(lab)
    report = tuned(lab, "--apply")
    assert not report["confirmed"]
    assert profile_text(lab) == before
    assert [
        name for name in os.listdir(os.path.join(lab.root, "config", "profiles")) if name.startswith("bench-")
    ] == []


def test_a_start_that_dies_is_a_result_and_is_never_proposed(lab: Lab) -> None:
    dying = {"tokens_s": 8000.0, "die_at": "load", "say": ["ggml_backend_alloc_ctx_tensors: error"]}
    serve(lab, {"with_words": {"--ubatch-size 1024": dying, "--ubatch-size 256": {"tokens_s": 4000.0}}})
    report = tuned(lab)
    died = [each["settings"] for each in report["trials"] if each["outcome"] == "died"]
    assert any("ubatch 1024" in each for each in died)
    reasons = [each["reason"] for each in report["trials"] if each["outcome"] == "died"]
    assert not [each for each in reasons if "bench-" in each], "the name of a trial's profile says nothing to people"
    assert report["proposal"].get("batch.ubatch") == "256"


def test_one_that_was_broken_off_in_any_way_serves_again_what_served_and_goes_on_from_where_it_was(lab: Lab) -> None:
    serve(lab, {"with_words": {"--ubatch-size 1024": {"tokens_s": 4000.0}}})
    assert lab.daemon is not None

    tuning = begun(lab, 2, "tune", "model", *SHORT)
    tuning.kill()
    tuning.communicate()
    serves_and_says(lab, "tuning 1: its process ended; `orch tune resume 1` goes on")

    tuning = begun(lab, 3, "tune", "resume")
    lab.daemon.kill()
    lab.daemon.wait()
    _, err = tuning.communicate(timeout=60)
    assert tuning.returncode == 1, err
    lab.serve()
    serves_and_says(lab, "tuning 1: the daemon ended meanwhile; `orch tune resume 1` goes on")

    tuning = begun(lab, 4, "tune", "resume")
    tuning.send_signal(signal.SIGINT)
    _, err = tuning.communicate(timeout=60)
    assert tuning.returncode == 130, err
    assert "orch tune resume" in err
    status = lab.status()
    assert (status["profile"], status["state"], status["lease"]) == ("model", "ready", None), "at once"

    kept = trials_kept(lab)
    [row] = lab.orch_json("tune", "list")
    assert row["state"] == "interrupted"
    report = lab.orch_json("tune", "resume")
    assert trials_kept(lab)[: len(kept)] == kept
    assert not [each for each in report["trials"] if each["outcome"] == "died"], (
        "an interruption is no result of a start"
    )
    assert report["proposal"].get("batch.ubatch") == "1024"


def begun(lab: Lab, trials: int, *words: str) -> subprocess.Popen[str]:
    """Begin, or go on with, a tuning, and wait until it has kept so many starts and measures the next one."""
    tuning = lab.begin(*words)

    def measures() -> bool:
        assert tuning.poll() is None, tuning.communicate()
        asked = lab.control("/v1/requests")["requests"]
        return len(trials_kept(lab)) >= trials and any(each["id"].startswith("bench-") for each in asked)

    until(measures, f"{trials} starts are kept, and the next is measured")
    return tuning


def serves_and_says(lab: Lab, what: str) -> None:
    until(lambda: (lab.status()["profile"], lab.status()["state"]) == ("model", "ready"), "what served serves again")
    assert what in lab.orch("status").stdout


def test_what_cannot_be_asked_for_is_refused_before_anything_starts(lab: Lab) -> None:
    serve(lab, {})
    for words, text in (
        (["model+kv.k=q8_0"], "a profile is tuned as it is"),
        (["model", "--allow", "colour"], "`colour` is no axis"),
        (["model", "--budget", "5"], "`--budget`: found `5`"),
        (["model", "--starts", "1"], "--starts 1 is not possible"),
        (["model", "--engines", "one"], "two engines"),
        (["nobody"], "neither an engine nor a profile"),
        (["apply"], "there is no such tuning"),
    ):
        done = lab.orch("tune", *words, check=False)
        assert done.returncode != 0
        assert text in done.stderr


def trials_kept(lab: Lab) -> tuple[TuneTrial, ...]:
    """Return the starts that the newest tuning has kept so far."""
    store = BenchStore(find_paths({"ORCH_HOME": lab.root}).bench_file)
    try:
        tunings = store.tunings()
        return progress_of(store.events(tunings[0].id)).trials if tunings else ()
    finally:
        store.close()
