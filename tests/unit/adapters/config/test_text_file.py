from __future__ import annotations

import os
from pathlib import Path

import pytest

from orchestrator.adapters.config.text_file import MAX_BYTES, read_text, write_text
from orchestrator.core.errors import OrchError, UsageError


def test_a_text_is_read_with_its_line_ends(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_bytes("a\r\nü\n".encode())
    assert read_text(str(path)) == "a\r\nü\n"


def test_what_is_no_regular_file_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    for name in ("fifo", "."):
        with pytest.raises(UsageError, match=r"not a regular file|cannot read"):
            read_text(str(tmp_path / name))


def test_a_missing_file_and_an_impossible_path_are_refused(tmp_path: Path) -> None:
    for path in (str(tmp_path / "nothing"), "a\0b"):
        with pytest.raises(UsageError, match="cannot read"):
            read_text(path)


def test_a_file_that_is_too_long_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"x" * MAX_BYTES)
    assert len(read_text(str(path))) == MAX_BYTES
    path.write_bytes(b"x" * (MAX_BYTES + 1))
    with pytest.raises(UsageError, match="too long"):
        read_text(str(path))


def test_bytes_that_are_no_text_are_refused_with_their_line(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"a\nb\n\xff\n")
    with pytest.raises(UsageError, match=r"f:3: not UTF-8"):
        read_text(str(path))


def test_a_rewritten_file_keeps_its_mode_and_a_link_stays_a_link(tmp_path: Path) -> None:
    path, link = tmp_path / "f", tmp_path / "link"
    path.write_text("old")
    path.chmod(0o600)
    link.symlink_to(path)
    write_text(str(link), "new")
    assert path.read_text() == "new" and link.is_symlink()
    assert path.stat().st_mode & 0o777 == 0o600
    write_text(str(tmp_path / "fresh"), "x")
    assert (tmp_path / "fresh").stat().st_mode & 0o777 == 0o644


def test_a_place_that_cannot_be_written_leaves_the_old_text(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("old")
    with pytest.raises(OrchError, match="cannot write") as caught:
        write_text(str(tmp_path / "file" / "below"), "new")

    assert caught.value.details == ("the file is as it was",)
    assert (tmp_path / "file").read_text() == "old"
