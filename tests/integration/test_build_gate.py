"""`orch engines update` with its gate: real cmake, the embedded engine, and builds that are wrong or broken off."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration.engine_source import EMBEDDED, commit_all, write_source
from tests.support import ROOT, Home, new_home, until
from tests.unit.engines.engine_scripts import program

_missing = [tool for tool in ("cmake", "ninja", "cc", "c++") if shutil.which(tool) is None]
pytestmark = [
    pytest.mark.skipif(bool(_missing), reason=f"not installed here: {', '.join(_missing)}"),
    pytest.mark.skipif(not EMBEDDED.exists(), reason="the embedded engine is not installed"),
    pytest.mark.timeout(600),
]


@pytest.fixture
def home() -> Iterator[Home]:
    with new_home() as home:
        yield home


@pytest.fixture
def source(home: Home, tmp_path: Path) -> Path:
    """A source tree of which a first build is current."""
    source = write_source(tmp_path / "source")
    words = ("engines", "build", "upstream", "--path", str(source), "--backend", "cpu", "--no-verify")
    assert home.orch_json(*words)["gate"] is None, "there is nothing to judge the first build against"
    return source


def builds(home: Home) -> dict[str, Any]:
    return {each["build"]: each for each in home.orch_json("engines", "list", "--builds")}


def serves(home: Home) -> tuple[str, str, str]:
    status = home.status()
    return status["profile"], status["engine"], status["state"]


def change(source: Path, number: int) -> None:
    (source / "bench.c").write_text(f"int main(void) {{ return {number}; }}\n")


def test_a_wrong_build_is_kept_beside_and_used_only_on_request(home: Home, source: Path, tmp_path: Path) -> None:
    [old] = builds(home)
    mutant = program(
        tmp_path / "mutant", f'PYTHONPATH={ROOT} exec {sys.executable} -m tests.fakes.mutant_engine seed "$@"'
    )
    write_source(source, server=mutant)
    updated = home.orch("engines", "update", "upstream", check=False, timeout_s=300)
    assert updated.returncode == 1
    assert f"and {old} stays current" in updated.stdout
    assert "it computes wrongly: " in updated.stderr and "which the current build passes" in updated.stderr
    assert "seed" in updated.stderr
    [new] = builds(home).keys() - {old}
    assert f"`orch engines use upstream {new}` makes it current all the same" in updated.stderr
    found = builds(home)
    assert (found[old]["current"], found[new]["current"]) == (True, False)
    assert found[new]["gate"]["state"] == "refused"
    assert "it computes wrongly" in home.orch("engines", "list").stderr

    verified = home.orch("verify", f"upstream@{new}", "--json", check=False, timeout_s=300)
    assert (verified.returncode, json.loads(verified.stdout)["verdict"]) == (1, "wrong")

    used = home.orch("engines", "use", "upstream", new)
    assert "its gate: refused, it computes wrongly" in used.stderr
    assert builds(home)[new]["current"]
    assert home.orch("engines", "use", "upstream", "b9", check=False).returncode == 2


def test_without_a_gate_the_new_build_is_current_at_once(home: Home, source: Path) -> None:
    change(source, 1)
    updated = home.orch_json("engines", "update", "upstream", "--no-gate", "--no-verify")
    assert (updated["current"], updated["gate"]) == (True, None)


def test_a_gate_that_is_broken_off_keeps_the_current_build_says_so_and_goes_on(home: Home, source: Path) -> None:
    home.demo_on_one_thread()
    # What this test is about is not whether a busy machine measures two equal builds alike.
    home.write("config/orch.toml", "[engines]\ntolerate_slower = 50\n")
    home.serve()
    home.orch("up", "demo", "--engine", "upstream")
    [old] = builds(home)
    change(source, 1)
    words = ("engines", "update", "upstream", "--no-verify", "--json")

    def measured(gate: subprocess.Popen[str]) -> bool:
        assert gate.poll() is None, gate.communicate()
        rows = json.loads(home.orch("bench", "list", "--json").stdout)
        return bool(rows) and home.orch_json("bench", "show")["blocks"] >= 2

    gate = home.begin(*words)
    until(lambda: measured(gate), "a pair of blocks is measured")
    [new] = builds(home).keys() - {old}
    assert builds(home)[new]["gate"]["state"] == "running"
    gate.kill()
    gate.communicate()
    until(lambda: serves(home) == ("demo", "upstream", "ready"), "what served before serves again")
    found = builds(home)
    assert (found[new]["gate"]["state"], found[old]["current"]) == ("interrupted", True)
    assert f"{new} was not made current (interrupted)" in home.orch("engines", "list").stderr

    gate = home.begin(*words)
    until(lambda: builds(home)[new]["gate"]["state"] == "running", "it goes on")
    gate.send_signal(signal.SIGINT)
    _, said = gate.communicate(timeout=60)
    assert gate.returncode == 130
    assert f"{old} stays current" in said
    assert builds(home)[new]["gate"]["state"] == "interrupted"
    assert home.ready("demo")["engine"] == "upstream"

    updated = home.orch(*words, timeout_s=300)
    result = json.loads(updated.stdout)
    assert "which was broken off" in updated.stderr
    assert (result["current"], result["gate"]["state"], result["gate"]["profile"]) == (True, "accepted", "demo")
    assert result["gate"]["bench"] == 1, "the same bench"
    assert home.ready("demo")["engine"] == "upstream"


def test_a_watch_builds_judges_and_tells_and_leaves_the_choice_to_a_person(home: Home, source: Path) -> None:
    [old] = builds(home)
    home.serve()
    words = ("engines", "watch", "--jobs", "1")
    looked = home.orch(*words, check=False)
    assert looked.returncode == 1, "a source of which no commit is known cannot be watched"
    assert f"upstream {old} stays current: it is not known what is newer" in looked.stderr

    commit_all(source, "one")
    home.orch("engines", "update", "upstream", "--no-gate", "--no-verify")
    first = current(home)
    assert home.orch_json(*words) == [{"id": "upstream", "current": first, "outdated": False}]

    change(source, 1)
    commit_all(source, "two")
    [found] = json.loads(home.orch(*words, "--json", timeout_s=300).stdout)
    assert (found["outdated"], found["gate"]["state"], current(home)) == (True, "waiting", first)
    assert "its speed was not compared: no profile has run on this engine" in found["gate"]["reason"]
    told = f"`orch engines use upstream {found['new']}`"
    assert told in home.orch("status", check=False).stdout
    events = [json.loads(line) for line in home.orch("events", "--json").stdout.splitlines()]
    assert [told in each["message"] for each in events if each["kind"] == "engine_build"] == [False, True]

    again = home.orch(*words, "--json")
    assert json.loads(again.stdout)[0]["gate"]["state"] == "waiting", "it is not judged twice"
    home.orch("engines", "use", "upstream", found["new"])
    assert told not in home.orch("status", check=False).stdout

    home.write("config/orch.toml", "[engines]\nauto = true\n")
    change(source, 2)
    commit_all(source, "three")
    [found] = json.loads(home.orch(*words, "--json", timeout_s=300).stdout)
    assert (found["gate"]["state"], current(home)) == ("accepted", found["new"])


def current(home: Home) -> str:
    return next(name for name, each in builds(home).items() if each["current"])
