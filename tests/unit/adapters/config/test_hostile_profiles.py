"""Files that somebody dropped among the profiles: the others are read, and it is said which are not."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from orchestrator.adapters.config.profile_files import ProfileStore
from orchestrator.adapters.paths import Paths
from orchestrator.core.errors import OrchError

BASE = b'schema = 1\nmodel = "/m.gguf"\nengine = "upstream"\n'
TEXTS = {
    "thousands of digits": BASE + b"[context]\nsize = " + b"9" * 5000 + b"\n",
    "more than a float": BASE + b"[context]\nsize = " + b"9" * 400 + b"\n",
    "more than 64 bits": BASE + b"[context]\nsize = 9223372036854775808\n",
    "a long hexadecimal": BASE + b"[context]\nsize = 0x" + b"f" * 5000 + b"\n",
    "a schema without end": BASE.replace(b"1", b"9" * 400),
    "an endless number": BASE + b"[sampling]\ntemperature = inf\n",
    "a date": BASE + b"[context]\nsize = 2021-02-30\n",
    "deep": BASE + b"x = " + b"[" * 20_000 + b"]" * 20_000,
    "a long key": BASE + b".".join([b"a"] * 20_000) + b" = 1\n",
    "no UTF-8": BASE + b'description = "\xff"\n',
    "a surrogate": BASE.replace(b"m.gguf", b"\\ud800.gguf"),
    "a NUL": BASE.replace(b"m.gguf", b"\\u0000.gguf"),
    "a long name": b'schema = 1\nextends = "' + b"a" * 100_000 + b'"\n',
    "nothing": b"",
}


@pytest.fixture
def store(tmp_path: Path) -> ProfileStore:
    paths = Paths(*(str(tmp_path / name) for name in ("config", "state", "data", "cache", "run")))
    os.makedirs(paths.profiles)
    (tmp_path / "config/profiles/good.toml").write_bytes(BASE)
    return ProfileStore(paths, shipped=str(tmp_path / "none"))


@pytest.mark.parametrize("text", TEXTS)
def test_a_text_is_refused_and_the_others_are_read(store: ProfileStore, text: str) -> None:
    Path(store.directory, "bad.toml").write_bytes(TEXTS[text])
    profiles, problems = store.load_all()
    assert [profile.name for profile in profiles] == ["good"]
    assert problems and any("bad" in f"{problem.file} {problem.message}" for problem in problems)
    with pytest.raises(OrchError):
        store.load("bad")


@pytest.mark.parametrize("kind", ["directory", "fifo", "circle", "endless", "dead link"])
def test_what_is_no_file_is_refused_and_the_others_are_read(store: ProfileStore, kind: str) -> None:
    path = os.path.join(store.directory, "bad.toml")
    match kind:
        case "directory":
            os.mkdir(path)
        case "fifo":
            os.mkfifo(path)
        case "circle":
            os.symlink(path, path)
        case "endless":
            os.symlink("/dev/zero", path)
        case "dead link":
            os.symlink("nothing.toml", path)

    profiles, problems = store.load_all()
    assert [profile.name for profile in profiles] == ["good"]
    assert problems


@pytest.mark.parametrize("name", [b"\xff.toml", b"a\nb.toml", b"UPPER.toml", b"-x.toml"])
def test_a_name_that_is_none_is_said(store: ProfileStore, name: bytes) -> None:
    Path(store.directory, os.fsdecode(name)).write_bytes(BASE)
    profiles, problems = store.load_all()
    assert [profile.name for profile in profiles] == ["good"]
    assert "the file's name" in problems[0].message


def test_a_profile_that_raises_what_nobody_expected_is_left_out_alone(
    store: ProfileStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path(store.directory, "bad.toml").write_bytes(BASE)
    resolve = ProfileStore.resolve
    for error in (OSError("no"), ValueError("no"), RecursionError("no"), OverflowError("no"), RuntimeError("no")):

        def failing(self: ProfileStore, name: str, text: str | None = None, error: Exception = error) -> object:
            if name == "bad":
                raise error

            return resolve(self, name, text)

        monkeypatch.setattr(ProfileStore, "resolve", failing)
        profiles, problems = store.load_all()
        assert [profile.name for profile in profiles] == ["good"]
        assert "bad" in problems[0].message
