from __future__ import annotations

import os
from pathlib import Path

import pytest

from orchestrator.adapters.config.key_file import ApiKey, read_keys
from orchestrator.core.errors import UsageError


def key_file(tmp_path: Path, content: bytes, mode: int = 0o600) -> str:
    path = tmp_path / "keys"
    path.write_bytes(content)
    path.chmod(mode)
    return str(path)


def test_each_line_is_a_key_and_comments_and_empty_lines_are_none(tmp_path: Path) -> None:
    assert read_keys(key_file(tmp_path, b"# ours\nfirst\n\n  second \r\n#third\n")) == (
        ApiKey("first"),
        ApiKey("second"),
    )


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
    assert read_keys(path) == (ApiKey("k"),)
    assert f"chmod 600 {path}" in caplog.text


def test_the_mode_of_a_credential_that_was_handed_over_is_no_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert read_keys(key_file(tmp_path, b"k\n", 0o440), f"{tmp_path}{os.sep}") == (ApiKey("k"),)
    assert not caplog.text


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (b"laptop: 3f9c", ApiKey("3f9c", "laptop")),
        (b"  laptop:\t3f9c  ", ApiKey("3f9c", "laptop")),
        (b"ci@host-1.lan: k # Anna's", ApiKey("k", "ci@host-1.lan")),
        (b"sk-plain", ApiKey("sk-plain")),
        (b"sk-plain   # of the old phone", ApiKey("sk-plain")),
        (b"user:pass", ApiKey("user:pass")),
        (b"a:b: c", ApiKey("a:b: c")),
        (b"k#1", ApiKey("k#1")),
    ],
)
def test_a_key_may_have_a_name_before_a_colon_and_a_space(tmp_path: Path, line: bytes, expected: ApiKey) -> None:
    assert read_keys(key_file(tmp_path, b"# ours\n\n" + line + b"\n")) == (expected,)


def test_two_keys_may_have_one_name_and_a_key_may_be_written_twice(tmp_path: Path) -> None:
    path = key_file(tmp_path, b"a: old\na: new\na: new\n")
    assert set(read_keys(path)) == {ApiKey("old", "a"), ApiKey("new", "a")}


@pytest.mark.parametrize("name", [b"x" * 65, b"-a", "größe".encode(), b"a/b", b"a\x1bb"])
def test_a_name_that_cannot_be_shown_is_refused_with_its_line(tmp_path: Path, name: bytes) -> None:
    with pytest.raises(UsageError, match="line 2") as caught:
        read_keys(key_file(tmp_path, b"# ours\n" + name + b": secret\n"))

    assert "secret" not in repr(caught.value.details) + str(caught.value)


@pytest.mark.parametrize("content", [b"a: k\nb: k\n", b"a: k\nk\n"])
def test_one_key_with_two_names_is_refused(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(UsageError, match="more than one name"):
        read_keys(key_file(tmp_path, content))


def test_a_key_is_not_in_its_own_picture() -> None:
    assert "secret" not in repr(ApiKey("secret", "a"))
