"""Copying a checkout: what changed, and nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.core.errors import OrchError
from orchestrator.engines.build.machine import read_build_host
from orchestrator.engines.build.sources import (
    GitSource,
    PathSource,
    PypiSource,
    copy_changed,
    source_of_record,
    write_build_info,
)


def test_only_what_changed_is_copied(tmp_path: Path) -> None:
    origin, target = tmp_path / "origin", tmp_path / "target"
    for name in ("a.c", "sub/b.c", "build-cpu/junk.o", ".git-like/c.c"):
        (origin / name).parent.mkdir(parents=True, exist_ok=True)
        (origin / name).write_text(name)

    first = copy_changed(str(origin), str(target))
    assert sorted(str(each.relative_to(target)) for each in target.rglob("*.*") if each.is_file()) == [
        ".git-like/c.c",
        "a.c",
        "sub/b.c",
    ]
    assert copy_changed(str(origin), str(target)) == first

    untouched = (target / "sub" / "b.c").stat()
    (origin / "a.c").write_text("changed")
    (origin / ".git-like" / "c.c").unlink()
    assert copy_changed(str(origin), str(target)) != first
    assert (target / "a.c").read_text() == "changed"
    assert not (target / ".git-like" / "c.c").exists()
    after = (target / "sub" / "b.c").stat()
    assert (after.st_ino, after.st_mtime_ns) == (untouched.st_ino, untouched.st_mtime_ns)


def test_the_digest_depends_on_names_and_contents_alone(tmp_path: Path) -> None:
    digests = set()
    for name, file, text in (("one", "a", "x"), ("two", "a", "x"), ("three", "b", "x"), ("four", "a", "y")):
        (tmp_path / name).mkdir()
        (tmp_path / name / file).write_text(text)
        digests.add(copy_changed(str(tmp_path / name), str(tmp_path / f"copy-{name}")))

    assert len(digests) == 3


@pytest.mark.parametrize(
    ("record", "source"),
    [
        ({"kind": "git", "url": "https://x", "commit": "a" * 40, "branch": "b"}, GitSource("https://x", None, "b")),
        ({"kind": "git", "url": "https://x", "commit": "a" * 40, "branch": None}, GitSource("https://x")),
        ({"kind": "pypi", "package": "p", "version": "1", "url": "u", "sha256": "s"}, PypiSource("p")),
        ({"kind": "path", "path": "/x", "commit": None}, PathSource("/x")),
    ],
)
def test_an_update_asks_for_the_newest_of_the_same_source(record: dict[str, object], source: object) -> None:
    assert source_of_record(record) == source


def test_a_build_that_does_not_say_its_source_cannot_be_updated() -> None:
    with pytest.raises(OrchError, match="does not say what it was made from"):
        source_of_record({"kind": "else"})


def test_a_directory_that_is_no_source_tree_is_not_stamped(tmp_path: Path) -> None:
    with pytest.raises(OrchError, match=r"no source tree of llama\.cpp"):
        write_build_info(str(tmp_path), 1, None)


def test_the_machine_has_cores_and_memory() -> None:
    machine = read_build_host()
    assert machine.cores >= 1 and machine.memory_mib > 0
    assert all(Path(path).exists() for path in machine.programs.values())
