"""Amounts on a command line."""

from __future__ import annotations

import pytest

from orchestrator.core.errors import UsageError
from orchestrator.core.quantities import parse_memory, parse_tokens


@pytest.mark.parametrize(
    ("text", "mib"),
    [
        ("12G", 12288), ("12GB", 12288), ("12GiB", 12288), ("12g", 12288), ("12 GB", 12288), ("11500M", 11500),
        ("11500MiB", 11500), ("11.5G", 11776), ("0", 0), ("0G", 0), ("1T", 1 << 20), ("7.6gb", 7782),
    ],
)  # fmt: skip
def test_memory_is_read_as_people_write_it(text: str, mib: int) -> None:
    assert parse_memory(text, "--vram") == mib


@pytest.mark.parametrize("text", ["", "G", "12", "12.5", "-12G", "12Q", "12GG", "1e3G", "twelve", "12G,", "99999999T"])
def test_other_memory_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(UsageError, match="--vram") as caught:
        parse_memory(text, "--vram")

    assert "--vram" in (caught.value.hint or "")


@pytest.mark.parametrize(
    ("text", "tokens"), [("32768", 32768), ("32k", 32768), ("32K", 32768), ("1M", 1 << 20), ("1.5k", 1536), ("1", 1)]
)
def test_tokens_are_read_as_people_write_them(text: str, tokens: int) -> None:
    assert parse_tokens(text, "--context") == tokens


@pytest.mark.parametrize("text", ["", "0", "-1", "32kk", "k", "32G", "many", "99999M"])
def test_other_tokens_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match="no number of tokens"):
        parse_tokens(text, "--context")
