"""An engine that nobody uses ends, and comes back with the next request; looking at it is no use."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping

import pytest

from tests.support import Home, new_home, until

pytest.importorskip("xllamacpp", reason="the embedded engine is an optional extra")


@pytest.fixture
def home() -> Iterator[Home]:
    with new_home() as home:
        home.demo_on_one_thread()
        yield home


def asleep(home: Home) -> bool:
    """Look in every way that is no use, and return whether it is unloaded by now."""
    for path in ("/v1/models", "/running", "/health", "/metrics", "/slots"):
        home.request("GET", path)

    return home.orch_json("status")["unloaded"] is not None


def answer(home: Home, body: Mapping[str, object]) -> str:
    asked = {"messages": [{"role": "user", "content": "Hello"}], "max_tokens": 8, "temperature": 0, **body}
    status, _, text = home.request("POST", "/v1/chat/completions", asked)
    assert status == 200, text
    content: str = json.loads(text)["choices"][0]["message"]["content"]
    return content


def test_it_is_unloaded_and_loaded_again_for_who_names_it_and_for_who_names_nothing(home: Home) -> None:
    home.write("config/orch.toml", "[residency]\nidle_unload_s = 1\n")
    home.orch("up", "demo")
    first = answer(home, {"model": "demo"})
    for body in ({"model": "demo"}, {}):
        until(lambda: asleep(home), "it is unloaded")
        assert "unloaded demo on embedded" in home.orch("status").stdout
        listed = {each["id"]: each for each in json.loads(home.request("GET", "/v1/models")[2])["data"]}
        assert listed["demo"]["status"]["value"] == "unloaded"
        assert answer(home, body) == first

    assert "had no request for" in home.orch("events").stdout


def test_a_reload_puts_another_idle_time_in_force_and_restarts_nothing(home: Home) -> None:
    home.orch("up", "demo")
    before = home.orch_json("status")["pid"]
    assert before and not asleep(home)
    home.write("config/orch.toml", "[residency]\nidle_unload_s = 1\n")
    home.orch("reload")
    assert home.orch_json("status")["pid"] == before
    until(lambda: asleep(home), "it is unloaded")
