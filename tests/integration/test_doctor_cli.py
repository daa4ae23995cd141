"""`orch doctor` in homes with something wrong in them."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from orchestrator.adapters.paths import find_paths, make_directories
from orchestrator.adapters.store.verifications import VerificationStore, build_key
from tests.busy import in_time
from tests.support import Home, new_home, until


@pytest.fixture
def home() -> Iterator[Home]:
    with new_home() as home:
        yield home


def findings(home: Home, code: int | None = None) -> list[dict[str, Any]]:
    done = home.orch("doctor", "--json", check=False)
    document = json.loads(done.stdout)
    assert code is None or done.returncode == code, done.stdout
    assert done.returncode == (1 if document["problems"] else 0)
    found: list[dict[str, Any]] = document["findings"]
    return found


def of(what: str, found: list[dict[str, Any]]) -> list[tuple[str, str]]:
    return [(each["level"], each["text"]) for each in found if each["what"] == what]


def test_every_check_says_something_and_nothing_is_wrong_with_a_new_home(home: Home) -> None:
    found = findings(home)
    whats = [each["what"] for each in found]
    expected = ["orch", "kernel", "libraries", "driver", "memlock", "directories", "room", "state", "config"]
    assert [what for what in dict.fromkeys(whats) if what in expected] == expected
    assert {"gateway", "profiles", "engines", "service"} <= set(whats)
    assert of("libraries", found) == [("ok", "all there, in versions that fit")]
    assert of("state", found) == [("ok", "nothing remembered yet")]
    assert not [each for each in found if "this check failed" in each["text"]]


def test_it_changes_nothing(home: Home) -> None:
    home.write("state/state.json", "not JSON")
    findings(home)
    kept = {str(path.relative_to(home.root)) for path in Path(home.root).rglob("*") if path.is_file()}
    assert {path for path in kept if not path.startswith("cache/")} == {"state/state.json"}


def test_it_is_quick(home: Home) -> None:
    findings(home)  # probes the engines that there are, once
    best = min(_timed(home) for _ in range(3))
    assert in_time(best, 2.0)


def _timed(home: Home) -> float:
    start = time.monotonic()
    findings(home)
    return time.monotonic() - start


def test_a_mistake_in_the_configuration_and_in_a_profile_is_a_problem_with_its_line(home: Home) -> None:
    home.write("config/orch.toml", "[gateway]\nprot = 1\n")
    home.profile("mine", 'schema = 1\nmodel = "/no/such.gguf"\nmodle = 1\n')
    found = findings(home, code=1)
    assert any(level == "problem" and "orch.toml:2" in text for level, text in of("config", found))
    assert any(level == "problem" and "mine.toml:3" in text for level, text in of("profiles", found))


def test_a_model_that_is_not_there_is_a_warning_with_what_to_do(home: Home) -> None:
    home.profile("mine", 'schema = 1\nmodel = "/no/such.gguf"\n')
    warning = next(each for each in findings(home) if each["what"] == "models")
    assert warning["level"] == "warning"
    assert "/no/such.gguf is not there" in warning["text"]
    assert warning["fix"] == "`orch profile set mine model=PATH`"


def test_a_port_that_somebody_has_is_a_problem_and_our_own_is_not(home: Home) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        home.env["ORCH_GATEWAY_PORT"] = str(taken.getsockname()[1])
        level, text = of("gateway", findings(home, code=1))[0]
        assert level == "problem"
        assert f"({os.getpid()})" in text

    home.serve()
    until(lambda: of("gateway", findings(home))[0][0] == "ok", "the port is the daemon's")
    assert "is ours: daemon" in of("gateway", findings(home))[0][1]


def test_state_of_a_newer_orch_and_state_that_is_broken_are_told_apart(home: Home) -> None:
    home.write("state/state.json", '{"version": 99}')
    home.write("state/margins.json", "{")
    levels = of("state", findings(home, code=1))
    assert [level for level, _ in levels] == ["problem", "warning", "ok"]
    assert "version 99" in levels[0][1]
    database = os.path.join(home.root, "state", "history.sqlite3")
    with contextlib.closing(sqlite3.connect(database)) as connection:
        connection.execute("PRAGMA user_version = 77")

    assert any(level == "problem" and "version 77" in text for level, text in of("state", findings(home)))
    Path(database).write_bytes(b"no database of ours" * 100)
    assert any(level == "warning" and database in text for level, text in of("state", findings(home)))


def test_a_directory_that_others_may_enter_is_a_warning(home: Home) -> None:
    home.write("state/x", "")
    os.chmod(os.path.join(home.root, "state"), 0o755)
    assert of("directories", findings(home))[0][0] == "warning"


def test_an_engine_that_cannot_be_one_is_a_warning(home: Home) -> None:
    home.env["ORCH_ENGINE_UPSTREAM"] = "/bin/true"
    assert any(level == "warning" and "`upstream`" in text for level, text in of("engines", findings(home)))


def test_a_person_reads_what_to_do_below_what_is_wrong(home: Home) -> None:
    home.write("config/orch.toml", "[gateway]\nprot = 1\n")
    done = home.orch("doctor", check=False)
    lines = done.stdout.splitlines()
    number = next(number for number, line in enumerate(lines) if line.startswith("problem  config"))
    assert lines[number + 1].strip().startswith("-> edit ")
    assert done.stderr.endswith("1 problem, 0 warnings\n") or "problem" in done.stderr


def test_what_was_verified_of_an_engine_is_told_and_a_wrong_one_is_a_warning(home: Home) -> None:
    engine = {each["id"]: each for each in home.orch_json("engines", "list")}["embedded"]
    assert any("`embedded`" in text and "not verified" in text for _, text in of("engines", findings(home)))

    paths = find_paths({"ORCH_HOME": home.root})
    make_directories(paths)
    key = build_key(engine["sha256"], engine["path"])
    VerificationStore(paths.verifications_file).record(key, "wrong", "known truth", "1 of 26 checks failed: x")
    found = [(level, text) for level, text in of("engines", findings(home)) if "`embedded`" in text]
    assert [level for level, _ in found] == ["warning"]
    assert "computes wrongly: 1 of 26 checks failed: x" in found[0][1]
