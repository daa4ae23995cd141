"""`orch margins`: what was learned can be seen and forgotten."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.adapters.store.margins import MarginKey, MarginStore
from orchestrator.core.profile.profile import EngineProfile, Recovery
from tests.support import Home, new_home


@pytest.fixture
def home() -> Iterator[Home]:
    with new_home() as home:
        yield home


def learn(home: Home, model: str, margin_mib: int | tuple[int, ...]) -> str:
    store = MarginStore(str(Path(home.root) / "state" / "margins.json"))
    key = MarginKey("b1 0123", f"{model}:1:2", {"context.size": 4096}, ("card:12288",))
    profile = EngineProfile("mine", "upstream", model, (), {}, Recovery(), ())
    assert store.remember(key, margin_mib, profile, "2026-01-01T00:00:00+00:00")
    return key.digest


def test_nothing_learned_is_said_and_is_an_empty_list(home: Home) -> None:
    assert "nothing was learned" in home.orch("margins", "list").stderr
    assert home.orch_json("margins", "list") == []


def test_what_was_learned_is_listed_and_one_of_it_forgotten(home: Home) -> None:
    first, second = learn(home, "a.gguf", 1792), learn(home, "b.gguf", 2048)
    rows = {row["id"]: row for row in home.orch_json("margins", "list")}
    assert (rows[first]["margin_mib"], rows[second]["margin_mib"]) == (1792, 2048)
    assert "1792 MiB" in home.orch("margins", "list").stdout
    home.orch("margins", "forget", first)
    assert [row["id"] for row in home.orch_json("margins", "list")] == [second]
    home.orch("margins", "forget", "--all")
    assert home.orch_json("margins", "list") == []


def test_a_margin_per_device_is_shown_whole(home: Home) -> None:
    learn(home, "a.gguf", (1664, 2048))
    assert "1664,2048 MiB" in home.orch("margins", "list").stdout


def test_forgetting_needs_to_know_what(home: Home) -> None:
    learn(home, "a.gguf", 1792)
    for words in (["margins", "forget"], ["margins", "forget", "nothing"], ["margins", "forget", "x", "--all"]):
        assert home.orch(*words, check=False).returncode == 2

    assert len(home.orch_json("margins", "list")) == 1
