from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.adapters.store.margins import KEYED_SETTINGS, MarginKey, MarginStore, margin_key
from orchestrator.core.profile.profile import EngineProfile, Recovery
from orchestrator.core.profile.settings import Value

NOW = "2026-11-21T10:00:00.000+00:00"
KEY = MarginKey("upstream-b1", "m.gguf:10:1", {"context.size": 4096}, ("CUDA0",))


def profile(settings: Mapping[str, Value] | None = None) -> EngineProfile:
    return EngineProfile("demo", "upstream", "/m.gguf", (), settings or {}, Recovery(), ())


@pytest.fixture
def store(tmp_path: Path) -> MarginStore:
    return MarginStore(str(tmp_path / "state" / "margins.json"))


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "model.gguf"
    path.write_bytes(b"GGUF")
    return path


def test_what_survived_is_found_by_another_store_of_the_same_file(store: MarginStore, tmp_path: Path) -> None:
    assert store.learned(KEY) is None
    assert store.remember(KEY, 1792, profile(), NOW)
    again = MarginStore(str(tmp_path / "state" / "margins.json"))
    assert again.learned(KEY) == 1792
    assert again.entries() == {
        KEY.digest: {
            "profile": "demo",
            "engine": "upstream",
            "build": "upstream-b1",
            "model": "m.gguf",
            "settings": {"context.size": 4096},
            "devices": ["CUDA0"],
            "margin_mib": 1792,
            "learned": NOW,
        }
    }


def test_what_was_learned_before_margins_were_moved_gives_the_engine_the_same_as_then(store: MarginStore) -> None:
    """It survived with 1792 passed on: a margin of 2043 where 251 less is passed, and of 1359 where 433 more is."""
    assert store.remember(KEY, 1792, profile(), NOW)
    assert store.learned(KEY, 251) == 2043
    assert store.learned(KEY, -433) == 1359


def test_what_was_learned_with_a_moved_margin_is_the_margin_that_was_learned(store: MarginStore) -> None:
    assert store.remember(KEY, (512, 1792), profile(), NOW, 251)
    assert store.learned(KEY, 251) == (512, 1792)
    assert store.learned(KEY, 300) == (561, 1841)
    assert not store.remember(KEY, (512, 1792), profile(), NOW, 251)
    assert store.remember(KEY, (512, 1793), profile(), NOW, 251)


@settings(deadline=None)  # the file is synced to a disk that others use, too
@given(margins=st.lists(st.integers(0, 20_000), min_size=1, max_size=8))
def test_a_margin_never_shrinks(tmp_path_factory: pytest.TempPathFactory, margins: list[int]) -> None:
    store = MarginStore(str(tmp_path_factory.mktemp("margins") / "margins.json"))
    largest = -1
    for margin_mib in margins:
        assert store.remember(KEY, margin_mib, profile(), NOW) == (margin_mib > largest)
        largest = max(largest, margin_mib)
        assert store.learned(KEY) == largest


def test_a_margin_per_device_is_found_again_with_the_largest_as_the_one_that_is_shown(store: MarginStore) -> None:
    assert store.remember(KEY, (512, 1792), profile(), NOW)
    assert store.learned(KEY) == (512, 1792)
    entry = store.entries()[KEY.digest]
    assert (entry["margin_mib"], entry["margins_mib"]) == (1792, [512, 1792])


@settings(deadline=None)  # the file is synced to a disk that others use, too
@given(margins=st.lists(st.tuples(st.integers(0, 20_000), st.integers(0, 20_000)), min_size=1, max_size=8))
def test_no_margin_of_a_device_ever_shrinks(
    tmp_path_factory: pytest.TempPathFactory, margins: list[tuple[int, int]]
) -> None:
    store = MarginStore(str(tmp_path_factory.mktemp("margins") / "margins.json"))
    largest = (-1, -1)
    for each in margins:
        grown = (max(largest[0], each[0]), max(largest[1], each[1]))
        assert store.remember(KEY, each, profile(), NOW) == (grown != largest)
        assert store.learned(KEY) == (largest := grown)


@pytest.mark.parametrize(
    ("before", "now", "kept"),
    [
        (1792, (512, 1024), None),
        (1792, (512, 2048), (1792, 2048)),
        ((512, 1792), 1792, None),
        ((512, 1792), 2048, 2048),
        ((512, 1792), (1024, 1024, 2048), (1792, 1792, 2048)),
    ],
)
def test_a_margin_of_another_shape_is_no_smaller_for_any_device(
    store: MarginStore, before: int | tuple[int, ...], now: int | tuple[int, ...], kept: int | tuple[int, ...] | None
) -> None:
    store.remember(KEY, before, profile(), NOW)
    assert store.remember(KEY, now, profile(), NOW) == (kept is not None)
    assert store.learned(KEY) == (before if kept is None else kept)


def test_margins_of_other_keys_are_left_alone(store: MarginStore) -> None:
    other = replace(KEY, build="upstream-b2")
    store.remember(KEY, 1792, profile(), NOW)
    assert store.learned(other) is None
    store.remember(other, 512, profile(), NOW)
    assert (store.learned(KEY), store.learned(other)) == (1792, 512)


def test_one_margin_can_be_forgotten_and_then_a_smaller_one_is_new(store: MarginStore) -> None:
    other = replace(KEY, build="upstream-b2")
    store.remember(KEY, 1792, profile(), NOW)
    store.remember(other, 2048, profile(), NOW)
    assert store.forget(KEY.digest) == 1
    assert store.forget(KEY.digest) == 0
    assert (store.learned(KEY), store.learned(other)) == (None, 2048)
    assert store.remember(KEY, 512, profile(), NOW)


def test_all_margins_can_be_forgotten(store: MarginStore) -> None:
    assert store.forget() == 0
    store.remember(KEY, 1792, profile(), NOW)
    store.remember(replace(KEY, build="upstream-b2"), 2048, profile(), NOW)
    assert store.forget() == 2
    assert store.entries() == {}


@pytest.mark.parametrize(
    "margins",
    [None, [], {KEY.digest: 7}, {KEY.digest: {"margin_mib": "much"}}, {KEY.digest: {"margins_mib": [1, "much"]}}],
)
def test_an_edited_file_without_sense_teaches_nothing_and_can_be_learned_over(tmp_path: Path, margins: object) -> None:
    path = tmp_path / "margins.json"
    path.write_text(json.dumps({"version": 1, "margins": margins}))
    store = MarginStore(str(path))
    assert store.learned(KEY) is None
    assert store.remember(KEY, 512, profile(), NOW)
    assert store.learned(KEY) == 512


def test_the_same_profile_and_model_have_the_same_key(model: Path) -> None:
    settings: dict[str, Value] = {"context.size": 4096, "memory.split": (1.0, 2.0), "kv.k": "q8_0"}
    shuffled = dict(reversed(settings.items()))
    one = margin_key(profile(settings), str(model), "b", ("CUDA0",))
    two = margin_key(profile(shuffled), str(model), "b", ("CUDA0",))
    assert one.digest == two.digest


@pytest.mark.parametrize("setting", KEYED_SETTINGS)
def test_each_keyed_setting_changes_the_key(model: Path, setting: str) -> None:
    keys = [margin_key(profile(each), str(model), "b", ("CUDA0",)) for each in ({}, {setting: 1}, {setting: 2})]
    assert len({key.digest for key in keys}) == 3


@pytest.mark.parametrize("setting", ["memory.fit_margin", "sampling.temperature"])
def test_what_the_margin_does_not_depend_on_leaves_the_key_as_it_is(model: Path, setting: str) -> None:
    plain = margin_key(profile(), str(model), "b", ())
    assert margin_key(profile({setting: 1}), str(model), "b", ()).digest == plain.digest


def test_another_build_or_device_has_another_key(model: Path) -> None:
    keys = [
        margin_key(profile(), str(model), build, devices)
        for build, devices in (("b", ()), ("c", ()), ("b", ("CUDA0",)), ("b", ("CUDA0", "CUDA1")))
    ]
    assert len({key.digest for key in keys}) == 4


def test_a_model_that_was_written_anew_has_another_key(model: Path) -> None:
    before = margin_key(profile(), str(model), "b", ()).digest
    os.utime(model, ns=(1, 1))
    touched = margin_key(profile(), str(model), "b", ()).digest
    model.write_bytes(b"GGUF2")
    os.utime(model, ns=(1, 1))
    assert len({before, touched, margin_key(profile(), str(model), "b", ()).digest}) == 3
