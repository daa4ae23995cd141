from __future__ import annotations

import os
import resource
import tomllib
from datetime import date, time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.adapters.config.profile_editing import Change, create_profile, parse_value, set_values
from orchestrator.adapters.config.profile_files import ProfileStore
from orchestrator.adapters.paths import find_paths
from orchestrator.core.errors import OrchError, UsageError
from orchestrator.core.problems import ProblemsError

TEXT = """\
# mine
schema = 1
model = "m.gguf"   # here

[memory]  # memory
# why
fit_margin = 1664 # MiB
fit = true

[context]
size = 4096
"""


@pytest.fixture
def store(tmp_path: Path) -> ProfileStore:
    (tmp_path / "shipped").mkdir()
    store = ProfileStore(find_paths({"ORCH_HOME": str(tmp_path)}), str(tmp_path / "shipped"))
    os.makedirs(store.directory)
    (Path(store.directory) / "p.toml").write_text(TEXT)
    return store


def text_of(store: ProfileStore, name: str = "p") -> str:
    return (Path(store.directory) / f"{name}.toml").read_text()


def test_setting_a_value_changes_nothing_else(store: ProfileStore) -> None:
    edited = set_values(store, "p", [("memory.fit_margin", 1792)])
    assert edited.changes == (Change("memory.fit_margin", 1664, 1792),)
    assert edited.copied_from is None
    assert text_of(store) == TEXT.replace("1664", "1792")


def test_line_ends_and_the_mode_of_the_file_stay(store: ProfileStore) -> None:
    path = Path(store.directory) / "p.toml"
    path.write_bytes(TEXT.replace("\n", "\r\n").encode())
    path.chmod(0o600)
    set_values(store, "p", [("memory.fit_margin", 1792)])
    assert path.read_bytes() == TEXT.replace("\n", "\r\n").replace("1664", "1792").encode()
    assert path.stat().st_mode & 0o777 == 0o600


def test_new_keys_and_tables_go_where_they_belong(store: ProfileStore) -> None:
    set_values(
        store, "p", [("description", "d"), ("engine.my.memory.fit_margin", 5), ("kv.k", "q8_0"), ("memory.mlock", True)]
    )
    assert tomllib.loads(text_of(store)) == {
        **tomllib.loads(TEXT),
        "description": "d",
        "engine": {"my": {"memory": {"fit_margin": 5}}},
        "kv": {"k": "q8_0"},
        "memory": {"fit_margin": 1664, "fit": True, "mlock": True},
    }
    assert "# why\nfit_margin = 1664 # MiB" in text_of(store)


def test_a_default_engine_makes_room_for_a_table_of_engines(store: ProfileStore) -> None:
    set_values(store, "p", [("engine", "ik-fork")])
    set_values(store, "p", [("engine.ik-fork.memory.fit_margin", 5)])
    set_values(store, "p", [("engine", "upstream")])
    assert tomllib.loads(text_of(store))["engine"] == {"default": "upstream", "ik-fork": {"memory": {"fit_margin": 5}}}


def test_a_key_can_be_removed(store: ProfileStore) -> None:
    edited = set_values(store, "p", [("memory.fit_margin", None), ("kv.k", None)])
    assert edited.changes == (Change("memory.fit_margin", 1664, None), Change("kv.k", None, None))
    assert "fit_margin" not in text_of(store)


@pytest.mark.parametrize(
    "pairs",
    [
        [("memory.fit_margn", 5)],
        [("memory.fit_margin", "much")],
        [("memory.fit_margin", 5), ("schema", 2)],
        [("model", None)],
        [("memory.n_cpu_moe", 4)],
        [("extends", "p")],
        [("extra_args", ["--port", "1"])],
    ],
)
def test_nothing_is_written_when_the_result_would_be_invalid(
    store: ProfileStore, pairs: list[tuple[str, object]]
) -> None:
    with pytest.raises(ProblemsError):
        set_values(store, "p", pairs)

    assert text_of(store) == TEXT
    assert os.listdir(store.directory) == ["p.toml"]


@pytest.mark.parametrize("key", ["", "a b", "a.", "a = 1\nb", "[a]", "model.x"])
def test_what_is_not_a_key_is_refused(store: ProfileStore, key: str) -> None:
    with pytest.raises(UsageError, match=r"is not a key|is a value"):
        set_values(store, "p", [(key, 1)])

    assert text_of(store) == TEXT


def test_a_file_with_a_syntax_error_is_not_edited(store: ProfileStore) -> None:
    (Path(store.directory) / "p.toml").write_text("schema = = 1\n")
    with pytest.raises(ProblemsError):
        set_values(store, "p", [("context.size", 1)])


def test_a_shipped_profile_is_copied_before_it_is_changed(store: ProfileStore) -> None:
    shipped = Path(store.shipped) / "s.toml"
    shipped.write_text(TEXT)
    edited = set_values(store, "s", [("context.size", 1)])
    assert (edited.path, edited.copied_from) == (os.path.join(store.directory, "s.toml"), str(shipped))
    assert shipped.read_text() == TEXT
    assert store.load("s").settings["context.size"] == 1


def test_a_write_that_fails_leaves_the_old_text_and_nothing_else(store: ProfileStore) -> None:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (16, limits[1]))
    try:
        with pytest.raises(OrchError, match=r"cannot write .*: File too large") as caught:
            set_values(store, "p", [("context.size", 1)])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)

    assert not isinstance(caught.value, UsageError)
    assert text_of(store) == TEXT
    assert os.listdir(store.directory) == ["p.toml"]


def test_a_new_profile_is_valid_and_a_taken_name_is_refused(store: ProfileStore) -> None:
    path = create_profile(store, "n", TEXT)
    assert store.load("n").settings == store.load("p").settings
    assert path == store.path_of("n") == os.path.join(store.directory, "n.toml")
    with pytest.raises(UsageError, match="there is a profile `p` already"):
        create_profile(store, "p", TEXT)

    with pytest.raises(UsageError, match="cannot be a profile's name"):
        create_profile(store, "../x", TEXT)

    with pytest.raises(ProblemsError):
        create_profile(store, "q", "schema = 1\n")

    assert not os.path.exists(store.path_of("q"))


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1792", 1792),
        ("true", True),
        ("0.5", 0.5),
        ("q8_0", "q8_0"),
        ("on", "on"),
        ('"1"', "1"),
        ("[1, 2]", [1, 2]),
        ("~/m.gguf", "~/m.gguf"),
        ("", ""),
        ("1\nx = 2", "1\nx = 2"),
        ("{ a = 1 }", {"a": 1}),
    ],
)
def test_a_value_is_toml_or_else_the_words_themselves(text: str, value: object) -> None:
    assert parse_value(text) == value


@given(st.text())
def test_any_text_has_a_value(text: str) -> None:
    assert isinstance(parse_value(text), (str, int, float, list, dict, date, time))
