"""Another version of orch on the files of this home: what an older one wrote is read, what a newer one wrote is refused
by name and left alone. The state file: `test_daemon_death.py`; the history: `unit/adapters/store/test_history.py`."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from orchestrator.adapters.store.margins import MarginKey
from tests.faults.lab import Lab
from tests.support import until

OLD_STATE = {
    "version": 1,
    "last": {"profile": "m", "engine": "fake-upstream"},
    "wanted": {"profile": "m", "engine": "fake-upstream"},
}
OLD_MARGINS = {
    "version": 1,
    "margins": {
        "3f9a1c2b77d0e415": {
            "profile": "m",
            "engine": "fake-upstream",
            "build": "b11434 (1234567) 0123456789ab",
            "model": "m.gguf",
            "settings": {"context.size": 4096},
            "devices": ["NVIDIA GeForce RTX 3060:12288"],
            "margin_mib": 1792,
            "learned": "2026-11-01T12:00:00+00:00",
        }
    },
}
OLD_EVENTS = """\
{"id":1,"time":"2026-11-01T12:00:00.000+00:00","kind":"started","message":"daemon 41, gateway http://127.0.0.1:8080"}
{"id":2,"time":"2026-11-01T12:00:01.000+00:00","kind":"ready","message":"m@fake-upstream","of_a_newer_orch":true}
{"id":3,"kind":"without what we n
"""
"""As orch 0.1.0 wrote them."""


def test_what_an_older_orch_wrote_is_gone_on_with(lab: Lab) -> None:
    lab.model("m")
    lab.write("state/state.json", json.dumps(OLD_STATE))
    lab.write("state/margins.json", json.dumps(OLD_MARGINS))
    lab.write("state/events.jsonl", OLD_EVENTS)
    lab.serve()
    assert lab.ready("m")["engine"] == "fake-upstream"
    assert lab.orch_json("margins", "list")[0]["margin_mib"] == 1792
    assert "m@fake-upstream" in lab.events("ready")
    rows = [json.loads(line) for line in lab.orch("events", "-n", "1000", "--json").stdout.splitlines()]
    assert [row["id"] for row in rows] == list(range(1, 3)) + [row["id"] for row in rows[2:]]
    lab.end()
    state = json.loads(Path(lab.root, "state", "state.json").read_text())
    assert (state["version"], state["wanted"]) == (1, OLD_STATE["wanted"])


def test_a_margin_is_kept_under_the_name_that_older_versions_gave_it() -> None:
    key = MarginKey("b1 (abc) 0123", "m.gguf:1:2", {"context.size": 4096, "kv.k": "q8_0"}, ("CUDA0:12288",))
    assert key.digest == "25853f7d0b2f76ec"


def test_margins_of_a_newer_orch_refuse_the_start_and_stay(lab: Lab) -> None:
    text = '{"version": 2, "margins": []}'
    path = lab.write("state/margins.json", text)
    lab.model("m")
    lab.serve()
    done = lab.orch("up", "m", check=False)
    assert done.returncode != 0
    assert "written by a newer orch" in done.stderr
    assert Path(path).read_text() == text
    os.rename(path, f"{path}.newer")  # what the hint says
    lab.orch("up", "m")
    until(lambda: lab.status()["state"] == "ready", "it starts without them")


@pytest.mark.parametrize("command", [("engines", "list", "--builds"), ("engines", "rollback", "upstream")])
def test_a_build_of_a_newer_orch_is_refused_and_stays(lab: Lab, command: tuple[str, ...]) -> None:
    path = lab.write("data/engines/upstream/b9/manifest.json", '{"manifest": 2}')
    done = lab.orch(*command, check=False)
    assert done.returncode == 2
    assert "was built by a newer orch" in done.stderr
    assert Path(path).read_text() == '{"manifest": 2}'


def test_a_profile_of_a_newer_orch_is_refused_by_its_line(lab: Lab) -> None:
    lab.profile("m", 'schema = 2\nmodel = "/x.gguf"\n')
    done = lab.orch("profile", "check", "m", check=False)
    assert done.returncode == 2
    assert "m.toml:1: `schema`: 2 is newer than this orch understands (1)" in done.stdout
