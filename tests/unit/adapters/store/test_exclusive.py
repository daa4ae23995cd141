"""A lock file has one holder, and is free again when that one ends."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.adapters.store.exclusive import exclusive_lock, is_locked
from orchestrator.core.errors import OrchError

BUSY = OrchError("busy")


def test_one_holds_it_and_another_is_refused_with_the_reason_given(tmp_path: Path) -> None:
    path = str(tmp_path / "made" / "lock")
    with exclusive_lock(path, BUSY):
        assert is_locked(path)
        with pytest.raises(OrchError) as caught, exclusive_lock(path, BUSY, patience_s=0.03):
            pass

        assert caught.value is BUSY

    assert not is_locked(path)
    with exclusive_lock(path, BUSY):
        assert is_locked(path)


def test_who_looks_makes_nothing_and_needs_no_leave_to_write(tmp_path: Path) -> None:
    assert not is_locked(str(tmp_path / "nobody" / "lock"))
    assert list(tmp_path.iterdir()) == []
    path = tmp_path / "lock"
    with exclusive_lock(str(path), BUSY):
        path.chmod(0o400)
        assert is_locked(str(path))


def test_a_link_in_its_place_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "lock").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError), exclusive_lock(str(tmp_path / "lock"), BUSY):
        pass

    assert not (tmp_path / "elsewhere").exists()
