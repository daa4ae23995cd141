"""Several profiles at once, by the commands of people: embedded engines side by side, a real daemon."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support import ROOT, Home, new_home, until

pytest.importorskip("xllamacpp", reason="the embedded engine is an optional extra")

NAMES = ("chat", "embed", "code")


@pytest.fixture
def home() -> Iterator[Home]:
    with new_home() as home:
        shipped = (ROOT / "profiles" / "demo.toml").read_text(encoding="utf-8")
        for name in NAMES:
            home.profile(name, f"{shipped}\n[cpu]\nthreads = 1\nthreads_batch = 1\n")

        home.profile("broken", f'{shipped}\n[chat]\ntemplate_file = "gone.jinja"\n')
        yield home


def rows(home: Home) -> dict[str, Any]:
    return {row["profile"]: row for row in home.status()["instances"]}


def states(home: Home) -> dict[str, str]:
    return {name: row["state"] for name, row in rows(home).items()}


def pids(home: Home) -> dict[str, int]:
    return {name: row["pid"] for name, row in rows(home).items() if row["pid"] is not None}


def ask(home: Home, model: str) -> str:
    body = {"model": model, "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 4, "temperature": 0}
    status, headers, text = home.request("POST", "/v1/chat/completions", body)
    assert status == 200, text
    return headers.get("x-orch-profile", "")


def test_several_are_started_loaded_unloaded_and_stopped_by_name(home: Home) -> None:
    done = home.orch("up", "chat", "embed")
    assert [line.split(" answers")[0] for line in done.stdout.splitlines()] == ["chat on embedded", "embed on embedded"]
    assert states(home) == {"chat": "ready", "embed": "ready"}
    assert [row["focus"] for row in rows(home).values()] == [True, False]
    first = pids(home)

    assert home.orch("load", "code").stdout == "code on embedded is loaded\n"
    assert home.orch("load", "code").stdout == "code on embedded is loaded already\n"
    shown = home.orch("status").stdout
    assert "● ready chat on embedded" in shown
    assert [line.split()[0] for line in shown.partition("\n\n")[2].splitlines()] == ["profile", "chat", "embed", "code"]
    assert len({*pids(home).values()}) == 3

    home.orch("unload", "code")
    assert rows(home)["code"]["unloaded_since"] is not None
    ask(home, "code")
    assert states(home)["code"] == "ready"

    home.orch("down", "embed")
    assert states(home) == {"chat": "ready", "code": "ready"}
    assert pids(home)["chat"] == first["chat"], "the others were not touched"
    home.orch("down", "chat")
    assert [(name, row["focus"]) for name, row in rows(home).items()] == [("code", True)]
    home.orch("down")
    assert home.orch("status", check=False).returncode == 3


def test_mistakes_move_nothing_and_a_load_that_fails_says_why(home: Home) -> None:
    home.orch("up", "chat")
    before = pids(home)
    for words, code, said in (
        (("load", "nosuch"), 2, "there is no profile `nosuch`"),
        (("down", "embed"), 3, "loaded: chat"),
        (("unload", "embed"), 3, "`embed` is not loaded"),
        (("pin", "nosuch"), 2, "there is no profile `nosuch`"),
        (("up", "embed", "nosuch"), 2, "there is no profile `nosuch`"),
        (("up", "embed", "embed"), 2, "`embed` was named twice"),
        (("up", "chat", "embed", "--engine", "embedded"), 2, "`--engine` is for one profile"),
    ):
        done = home.orch(*words, check=False)
        assert (done.returncode, said in done.stderr) == (code, True), done.stderr

    assert pids(home) == before
    done = home.orch("load", "broken", check=False)
    assert done.returncode == 1 and "was not loaded" in done.stderr, done.stderr
    assert pids(home) == before


def test_the_focus_moves_to_what_is_loaded_and_keeps_what_was_there_when_told_to(home: Home) -> None:
    home.orch("up", "chat", "embed")
    before = pids(home)
    home.orch("switch", "embed", "--keep")
    assert pids(home) == before
    assert home.status()["profile"] == "embed"
    home.orch("switch", "chat")  # the focus before it goes
    until(lambda: "embed" not in states(home), "embed is gone")
    assert pids(home) == {"chat": before["chat"]}


def test_a_reload_starts_anew_what_has_changed_and_leaves_the_focus_alone(home: Home) -> None:
    home.orch("up", "chat", "embed")
    before = pids(home)
    home.orch("profile", "set", "embed", "context.size=2048")
    done = home.orch("reload")
    assert "changed in embed: context.size" in done.stderr
    assert home.status()["profile"] == "chat"
    after = pids(home)
    assert after["chat"] == before["chat"] and after["embed"] != before["embed"]
    assert home.orch("reload").stdout == "nothing that runs has changed\n"
    restarted = home.control("/v1/restart", {"profile": "embed"})
    assert restarted["running"] == {"profile": "embed", "engine": "embedded"}
    until(
        lambda: states(home).get("embed") == "ready" and pids(home)["embed"] != after["embed"], "embed is another one"
    )
    assert pids(home)["chat"] == before["chat"]


@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGKILL], ids=["the service stops it", "it dies"])
def test_a_daemon_that_restarts_brings_back_what_ran_and_what_is_preloaded(home: Home, end: signal.Signals) -> None:
    home.serve()
    for words in (("up", "chat", "embed"), ("load", "code"), ("unload", "code")):
        home.orch(*words)

    assert home.daemon is not None
    home.write("config/orch.toml", '[residency]\npreload = ["code"]\n')
    home.daemon.send_signal(end)
    home.daemon.wait()
    home.serve()
    until(lambda: states(home) == dict.fromkeys(NAMES, "ready"), "all are ready")
    assert home.status()["profile"] == "chat"
    saved = json.loads(Path(home.root, "state", "state.json").read_text(encoding="utf-8"))
    assert {each["profile"] for each in saved["fleet"]} == set(NAMES)


def test_what_is_pinned_is_not_unloaded_for_being_idle(home: Home) -> None:
    home.write("config/orch.toml", "[residency]\nidle_unload_s = 1\n")
    home.orch("up", "chat", "embed")
    home.orch("pin", "embed")
    until(lambda: rows(home)["chat"]["unloaded_since"] is not None, "chat is unloaded")
    assert states(home)["embed"] == "ready"
    home.orch("pin", "embed", "--off")
    until(lambda: rows(home)["embed"]["unloaded_since"] is not None, "embed is unloaded")


def test_the_metrics_have_a_series_for_each(home: Home) -> None:
    home.orch("up", "chat", "embed")
    ask(home, "embed")
    page = home.request("GET", "/metrics")[2].decode()
    for part in (
        'orch_resident_state{engine="embedded",profile="embed",state="ready"} 1.0',
        'orch_resident_focus{engine="embedded",profile="chat"} 1.0',
        'orch_resident_focus{engine="embedded",profile="embed"} 0.0',
        'llamacpp:requests_processing{engine="embedded",profile="chat"}',
        'llamacpp:requests_processing{engine="embedded",profile="embed"}',
    ):
        assert part in page
