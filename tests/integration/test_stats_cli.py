"""From a request to `orch stats`, through a real daemon."""

from __future__ import annotations

import csv
import glob
import io
import json
import os
import re
import signal
import stat
from collections.abc import Iterator
from typing import Any

import pytest

from orchestrator.adapters.store.history import HistoryReader
from orchestrator.core.measure.samples import HistorySample
from tests.support import PATIENCE_S, Home, new_home, until

SECRET = "xylophone-marmalade-4711"


@pytest.fixture
def home() -> Iterator[Home]:
    with new_home() as home:
        yield home


def served(home: Home) -> Home:
    home.demo_on_one_thread()
    home.serve("demo")
    home.ready("demo")
    return home


def stats(home: Home, count: int) -> Any:
    """What `orch stats` says, once it knows of so many requests."""
    return until(
        lambda: (found := home.orch_json("stats"))["total"]["requests"] >= count and found, f"{count} requests recorded"
    )


def samples(home: Home) -> list[HistorySample]:
    reader = HistoryReader(os.path.join(home.root, "state", "history.sqlite3"))
    try:
        return reader.samples(0)
    finally:
        reader.close()


def files_of(home: Home) -> list[str]:
    return glob.glob(os.path.join(home.root, "state", "history.sqlite3*"))


def test_without_a_request_there_is_nothing_to_say_and_that_is_no_failure(home: Home) -> None:
    done = home.orch("stats")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "no requests in the last 24h\n")
    assert home.orch("stats", "--since", "all").stderr == "no requests yet\n"
    assert home.orch_json("stats")["groups"] == []
    assert home.orch("stats", "--csv").stdout.startswith("engine,requests,complete,")
    assert files_of(home) == [], "asking leaves nothing behind"


def test_an_age_that_is_none_is_refused(home: Home) -> None:
    done = home.orch("stats", "--since", "7x", check=False)
    assert done.returncode == 2
    assert "`7x`" in done.stderr and "90m" in done.stderr


CARD_W = 100.0


def card_that_counts() -> str:
    """A recorded card that draws 100 W and counts it; the engine has memory on it. After a minute it is reset."""
    card = {
        "index": 0,
        "name": "card",
        "uuid": "GPU-1",
        "used_mib": 900,
        "total_mib": 4096,
        "processes": {"engine": 800},
    }
    samples = [[{**card, "power_w": CARD_W, "energy_j": CARD_W * 0.05 * count}] for count in range(1200)]
    return json.dumps({"every_s": 0.05, "samples": samples})


def test_requests_are_recorded_with_what_answered_them(home: Home) -> None:
    home.env["ORCH_GPU_REPLAY"] = home.write("gpus.json", card_that_counts())
    served(home)
    timings = [home.complete("A supervisor", 60)["timings"] for _ in range(2)]
    _, _, stream = home.request("POST", "/completion", {"prompt": "A", "n_predict": 20, "stream": True})
    assert b"timings" in stream
    assert home.request("POST", "/v1/chat/completions", {"model": "nobody", "messages": []})[0] == 404
    found = stats(home, 4)
    group = next(each for each in found["groups"] if each["engine"] == "embedded")
    assert (group["requests"], group["complete"], group["error"]) == (3, 3, 0)
    assert group["output_tokens"] == 140
    steps, ms = 59 * 2, sum(each["predicted_ms"] for each in timings)
    assert group["decode_tok_s"] is not None
    assert 0 < group["first_token_p50_s"] == group["first_token_p95_s"] < 10, "that of the one stream"
    assert group["draft_tokens"] >= sum(each["draft_n"] for each in timings)
    assert group["decode_tok_s"] <= 139 * 1000 / ms, (steps, ms)
    assert [each["requests"] for each in found["groups"] if each["engine"] is None] == [1]

    reader = HistoryReader(os.path.join(home.root, "state", "history.sqlite3"))
    rows = [each for each in reader.requests(0) if each.engine]
    reader.close()
    assert group["energy_requests"] == 3
    assert group["energy_j"] == pytest.approx(
        CARD_W * sum(each.total_s - each.held_s for each in rows), rel=0.1, abs=20
    )
    counted = dict(
        re.findall(r'orch_energy_joules_total{.*use="(busy|idle)"} (\S+)', home.request("GET", "/metrics")[2].decode())
    )
    assert float(counted["busy"]) == pytest.approx(group["energy_j"], abs=0.1)

    status = home.status()
    by_build = home.orch_json("stats", "--by", "build")["groups"]
    assert (status["build"], 3) in [(each["build"], each["requests"]) for each in by_build]
    by_profile = list(csv.DictReader(io.StringIO(home.orch("stats", "--by", "profile", "--csv").stdout)))
    assert ("demo", "3") in [(row["profile"], row["requests"]) for row in by_profile]
    assert samples(home), "and samples beside them"
    lines = home.orch("stats").stdout.splitlines()
    assert [line.split()[0] for line in lines] == ["embedded", "(none)", "total"]


def test_nothing_that_was_asked_or_answered_is_in_the_files(home: Home) -> None:
    served(home)
    answer = home.complete(f"the secret is {SECRET}", 60)["content"]
    messages = [{"role": "user", "content": SECRET}]
    assert (
        home.request("POST", "/v1/chat/completions", {"messages": messages, "max_tokens": 5, "user": SECRET})[0] == 200
    )
    assert home.request("POST", f"/v1/chat/completions?q={SECRET}", {"messages": messages, "max_tokens": 5})[0] == 200
    stats(home, 3)
    names = files_of(home)
    assert os.path.join(home.root, "state", "history.sqlite3-wal") in names
    for name in names:
        assert stat.S_IMODE(os.stat(name).st_mode) == 0o600
        with open(name, "rb") as file:
            content = file.read()

        assert SECRET.encode() not in content
        assert answer[:12].encode() not in content
        assert b"/v1/chat/completions" in content or not name.endswith("-wal"), "the rows themselves are there"


def test_a_daemon_that_is_killed_leaves_a_file_that_is_read_and_gone_on_with(home: Home) -> None:
    served(home)
    for _ in range(3):
        home.complete("A", 2)

    assert home.daemon is not None
    stats(home, 3)
    home.complete("A", 2)  # this one may be lost: it is younger than a batch
    home.daemon.send_signal(signal.SIGKILL)
    home.daemon.wait()
    recorded = home.orch_json("stats")["total"]["requests"]
    assert recorded in (3, 4)
    served(home)
    home.complete("A", 2)
    assert stats(home, recorded + 1)["total"]["requests"] == recorded + 1


def test_a_daemon_that_ends_has_written_everything(home: Home) -> None:
    served(home)
    home.complete("A", 2)
    assert home.daemon is not None
    home.daemon.send_signal(signal.SIGTERM)
    assert home.daemon.wait(PATIENCE_S) == 0
    assert home.orch_json("stats")["total"]["requests"] == 1


@pytest.mark.parametrize("content", [b"rubbish " * 2000, b""])
def test_a_damaged_history_costs_the_daemon_nothing(home: Home, content: bytes) -> None:
    path = home.write("state/history.sqlite3", content.decode())
    if content:
        done = home.orch("stats", check=False)
        assert done.returncode == 1
        assert "is damaged" in done.stderr and "hint: the daemon sets it aside" in done.stderr

    served(home)
    home.complete("A", 2)
    until(lambda: home.orch("stats", "--json", check=False).returncode == 0, "the history is begun anew")
    assert stats(home, 1)["total"]["requests"] == 1
    assert os.path.exists(path + ".bad") == bool(content)
