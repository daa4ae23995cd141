"""`/metrics` while engines run out of memory, stop, die and are replaced."""

from __future__ import annotations

import json
import os
import signal
import time

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.busy import in_time
from tests.faults.lab import Lab
from tests.support import Home, new_home, until

Values = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def scrape(home: Home) -> Values:
    status, headers, body = home.request("GET", "/metrics", url=home.url)
    assert (status, headers["content-type"]) == (200, "text/plain; version=0.0.4; charset=utf-8")
    families = list(text_string_to_metric_families(body.decode()))
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in families
        for sample in family.samples
        if family.type in ("counter", "histogram") or family.name.startswith("orch_")
    }


def value(values: Values, name: str, **labels: str) -> float:
    """One sample, or the sum of those with these labels."""
    found = [each for (named, pairs), each in values.items() if named == name and labels.items() <= dict(pairs).items()]
    assert found, f"{name} is not on the page"
    return sum(found)


def check_only_grew(before: Values, after: Values) -> None:
    for name, earlier in before.items():
        if name[0].startswith("orch_") and name[0].endswith(("_total", "_count", "_sum", "_bucket")):
            assert after[name] >= earlier, name


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions", "/completion", "/v1/messages"])
def test_a_stream_that_ends_in_an_error_is_a_failed_request_everywhere(lab: Lab, path: str) -> None:
    lab.run("m")
    body = {"stream": True, "max_tokens": 8, "n_predict": 8, "messages": [], "prompt": "x", "fake_error_after": 3}
    for name in ("one", "two"):
        with lab.open(name, body, path) as response:
            assert response.status == 200
            assert b"Compute error." in response.read()

    lab.ask("good", stream=True).check_complete(8)
    served = scrape(lab)
    assert value(served, "orch_requests_total", outcome="error", profile="m") == 2
    assert value(served, "orch_requests_total", outcome="complete", profile="m") == 1
    until(lambda: json.loads(lab.orch("stats", "--json").stdout)["total"]["requests"] == 3, "they are in the history")
    total = json.loads(lab.orch("stats", "--json").stdout)["total"]
    assert (total["complete"], total["error"]) == (1, 2)


def test_what_happens_is_counted_and_no_counter_ever_goes_down(lab: Lab) -> None:
    ladder = "[memory]\nfit = true\nfit_margin = 1024\n[recovery]\nmargins = [1024, 1536, 2048]\n"
    lab.run("m", faults={"oom_below_mib": 2048, "oom_mib": 100.5}, more=ladder)
    begun = scrape(lab)
    assert value(begun, "orch_out_of_memory_retries_total") == 2
    assert value(begun, "orch_load_duration_seconds_count", profile="m", engine="fake-upstream") == 1
    assert value(begun, "orch_state", state="ready") == value(begun, "orch_ready") == 1

    lab.ask("a", 8).check_complete(8)
    lab.ask("b", 8, stream=True).check_complete(8)
    served = scrape(lab)
    assert value(served, "orch_requests_total", outcome="complete", profile="m", engine="fake-upstream") == 2
    assert value(served, "orch_time_to_first_token_seconds_count", profile="m") == 1
    assert value(served, "orch_output_tokens_total", profile="m") == 16
    check_only_grew(begun, served)

    lab.model("n", engine="fake-fork")
    lab.orch("switch", "n")
    lab.ask("c", 8).check_complete(8)
    switched = scrape(lab)
    assert value(switched, "orch_switches_total", result="ok") == 1
    assert value(switched, "orch_requests_total", profile="n", engine="fake-fork") == 1
    assert value(switched, "orch_requests_total", profile="m", engine="fake-upstream") == 2
    check_only_grew(served, switched)

    os.kill(lab.status()["pid"], signal.SIGKILL)
    until(lambda: len(lab.starts("n")) == 2 and lab.ready("n"), "it runs again")
    lab.orch("down")
    stopped = scrape(lab)
    assert value(stopped, "orch_state", state="stopped") == 1
    assert value(stopped, "orch_load_duration_seconds_count", profile="n") == 2
    check_only_grew(switched, stopped)


def test_an_engine_that_does_not_answer_holds_no_scrape_up() -> None:
    """The real server: its own page is on ours, and what it was is shown while it is stopped."""
    with new_home() as home:
        home.demo_on_one_thread()
        home.serve("demo")
        home.ready("demo")
        home.complete("A", 20)
        before = scrape(home)
        tokens = value(before, "llamacpp:tokens_predicted_total", profile="demo", engine="embedded")
        assert tokens >= 20
        pid = home.status()["pid"]
        os.kill(pid, signal.SIGSTOP)
        try:
            began = time.monotonic()
            stopped = scrape(home)
            assert in_time(time.monotonic() - began, 10)
            check_only_grew(before, stopped)
            assert value(stopped, "llamacpp:tokens_predicted_total") == tokens
        finally:
            os.kill(pid, signal.SIGCONT)

        home.orch("down")
        gone = scrape(home)
        assert not [name for name, _ in gone if name.startswith("llamacpp:")]
        check_only_grew(stopped, gone)
