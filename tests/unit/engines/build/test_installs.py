"""Builds side by side, and whether their files are still what was installed."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from orchestrator.adapters.paths import Paths
from orchestrator.core.errors import OrchError, UsageError
from orchestrator.engines.build import installs
from tests.unit.engines.engine_scripts import paths_below


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    return paths_below(tmp_path)


def install(paths: Paths, name: str, *, built_at: str = "2026-01-01T00:00:00Z") -> Path:
    """A build with a program, a library and a link to the library."""
    directory = Path(installs.root_of("upstream", paths), name)
    (directory / "bin").mkdir(parents=True)
    (directory / "bin" / "llama-server").write_text(f"server {name}")
    (directory / "bin" / "libggml.so.0").write_text("library")
    (directory / "bin" / "libggml.so").symlink_to("libggml.so.0")
    files, links, size = installs.describe(str(directory))
    facts = {"files": files, "links": links, "size_bytes": size, "built_at": built_at}
    installs.write_manifest(str(directory), facts)
    return directory


def test_the_newest_build_comes_first_and_unfinished_ones_are_none(paths: Paths) -> None:
    install(paths, "old")
    install(paths, "new", built_at="2026-02-01T00:00:00Z")
    install(paths, "half.partial")
    (install(paths, "damaged") / "manifest.json").write_text("{")
    installs.make_current("upstream", "old", paths)
    found = installs.installed("upstream", paths)
    assert [(each.build, each.current) for each in found] == [("new", False), ("old", True)]
    assert found[0].size_bytes == len("server new") + len("library")
    assert installs.installed("ik-fork", paths) == ()


def test_making_a_build_current_remembers_the_one_before(paths: Paths) -> None:
    for name in ("a", "b"):
        install(paths, name)
        installs.make_current("upstream", name, paths)

    installs.make_current("upstream", "b", paths)
    root = installs.root_of("upstream", paths)
    assert (os.readlink(f"{root}/current"), os.readlink(f"{root}/previous")) == ("b", "a")
    assert installs.rollback("upstream", paths) == ("b", "a")
    assert installs.rollback("upstream", paths) == ("a", "b")


def test_what_was_removed_is_not_gone_back_to(paths: Paths) -> None:
    for name in ("a", "b"):
        install(paths, name)
        installs.make_current("upstream", name, paths)

    assert [each.build for each in installs.remove("upstream", paths, "a")] == ["a"]
    with pytest.raises(OrchError, match="no earlier build"):
        installs.rollback("upstream", paths)

    with pytest.raises(UsageError, match="is the current build"):
        installs.remove("upstream", paths, "b")

    with pytest.raises(UsageError, match="no installed build `c`"):
        installs.remove("upstream", paths, "c")


def test_one_change_at_a_time(paths: Paths) -> None:
    with installs.locked("upstream", paths):
        with pytest.raises(OrchError, match="another orch is building or changing"), installs.locked("upstream", paths):
            pass

        with installs.locked("ik-fork", paths):
            pass


def test_a_build_as_it_was_installed_is_verified_also_through_current(paths: Paths) -> None:
    directory = install(paths, "a")
    installs.make_current("upstream", "a", paths)
    assert installs.verify(str(directory / "bin" / "llama-server")) is None
    assert installs.verify(f"{installs.root_of('upstream', paths)}/current/bin/llama-server") is None


def test_a_program_that_orch_did_not_install_is_not_its_business(tmp_path: Path) -> None:
    program = tmp_path / "bin" / "llama-server"
    program.parent.mkdir()
    program.write_text("mine")
    assert installs.verify(str(program)) is None


def replace(directory: Path) -> None:
    # Same size and time: only the inode and the content tell.
    file = directory / "bin" / "libggml.so.0"
    other = file.with_name("other")
    other.write_text("LIBRARY")
    shutil.copystat(file, other)
    os.replace(other, file)


def overwrite(directory: Path) -> None:
    (directory / "bin" / "llama-server").write_text("server b")


def link(directory: Path) -> None:
    file = directory / "bin" / "libggml.so"
    file.unlink()
    file.symlink_to("/lib/other.so")


def link_program(directory: Path) -> None:
    file = directory / "bin" / "libggml.so.0"
    copy = directory.parent / "copy"
    os.replace(file, copy)
    file.symlink_to(copy)


def add(directory: Path) -> None:
    (directory / "bin" / "libggml-cuda.so").write_text("loaded by name")


def take(directory: Path) -> None:
    (directory / "bin" / "libggml.so.0").unlink()


def damage(directory: Path) -> None:
    (directory / "manifest.json").write_text("[]")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (replace, "libggml.so.0 is not the file that was installed"),
        (overwrite, "llama-server is not the file that was installed"),
        (link, "libggml.so is not the link to libggml.so.0"),
        (link_program, "libggml.so.0 is not the file that was installed"),
        (add, "libggml-cuda.so was added"),
        (take, "libggml.so.0 is missing"),
        (damage, "manifest.json cannot be read"),
    ],
)
def test_any_change_beside_the_program_is_noticed(paths: Paths, change: Callable[[Path], None], reason: str) -> None:
    directory = install(paths, "a")
    server = str(directory / "bin" / "llama-server")
    assert installs.verify(server) is None
    change(directory)
    assert reason in str(installs.verify(server))


def test_a_file_written_in_place_is_noticed_although_its_time_was_set_back(paths: Paths) -> None:
    directory = install(paths, "a")
    server = str(directory / "bin" / "llama-server")
    assert installs.verify(server) is None
    library = directory / "bin" / "libggml.so.0"
    status = library.stat()
    with library.open("r+b") as file:
        file.write(b"LIBRARY")

    os.utime(library, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert "libggml.so.0 is not the file" in str(installs.verify(server))


def test_a_file_that_did_not_change_is_read_once(paths: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    server = str(install(paths, "a") / "bin" / "llama-server")
    assert installs.verify(server) is None
    monkeypatch.setattr("hashlib.file_digest", None)  # a second reading would call it
    assert installs.verify(server) is None
