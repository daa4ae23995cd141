from __future__ import annotations

import os
from pathlib import Path

import pytest

from orchestrator.adapters.config.key_file import read_keys
from orchestrator.core.errors import UsageError


def key_file(tmp_path: Path, content: bytes, mode: int = 0o600) -> str:
    path = tmp_path / "keys"
    path.write_bytes(content)
    path.chmod(mode)
    return str(path)


def test_each_line_is_a_key_and_comments_and_empty_lines_are_none(tmp_path: Path) -> None:
    assert read_keys(key_file(tmp_path, b"# ours\nfirst\n\n  second \r\n#third\n")) == ("first", "second")


def test_without_a_path_there_are_no_keys() -> None:
    assert read_keys("") == ()


@pytest.mark.parametrize(
    ("content", "message"), [(b"", "has no key"), (b"# none\n\n", "has no key"), (b"\xff\xfe", "it is not UTF-8")]
)
def test_a_file_without_a_usable_key_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        read_keys(key_file(tmp_path, content))


def test_a_missing_file_is_refused_with_its_path(tmp_path: Path) -> None:
    path = str(tmp_path / "nothing")
    with pytest.raises(UsageError, match="No such file") as caught:
        read_keys(path)

    assert caught.value.details == (path,)


def test_a_credential_outside_the_service_is_explained() -> None:
    with pytest.raises(UsageError) as caught:
        read_keys("${CREDENTIALS_DIRECTORY}/keys")

    assert "LoadCredential=" in (caught.value.hint or "")


def test_other_users_that_may_read_it_are_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = key_file(tmp_path, b"k\n", 0o644)
    assert read_keys(path) == ("k",)
    assert f"chmod 600 {path}" in caplog.text


def test_the_mode_of_a_credential_that_was_handed_over_is_no_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert read_keys(key_file(tmp_path, b"k\n", 0o440), f"{tmp_path}{os.sep}") == ("k",)
    assert not caplog.text
