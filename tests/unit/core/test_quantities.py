"""Amounts on a command line."""

from __future__ import annotations

import pytest

from orchestrator.core.errors import UsageError
from orchestrator.core.quantities import KWH_J, energy_text, parse_memory, parse_tokens, shown_change


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


@pytest.mark.parametrize(
    ("joules", "text"),
    [
        (0.0, "0 J"), (0.04, "0.04 J"), (512.34, "512 J"), (3599.0, "3,599 J"), (36_000.0, "10 Wh"),
        (0.9999 * KWH_J, "1,000 Wh"), (1.234 * KWH_J, "1.23 kWh"), (4321 * KWH_J, "4,321 kWh"),
    ],
)  # fmt: skip
def test_energy_has_three_figures_that_matter(joules: float, text: str) -> None:
    assert energy_text(joules) == text


@pytest.mark.parametrize(("ratio", "text"), [(1.125, "+12.5 %"), (0.9, "-10.0 %"), (11.0, "over +900 %")])
def test_a_ratio_is_shown_as_a_change(ratio: float, text: str) -> None:
    assert shown_change(ratio) == text
