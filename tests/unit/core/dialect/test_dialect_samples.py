"""What is written down about the dialects is what they do."""

from __future__ import annotations

import pytest

from tests.unit.core.dialect.dialect_samples import DOCUMENT, PROFILES, document, golden, golden_file

HOW = "run `python -m tests.unit.core.dialect.dialect_samples` and look at the difference"


@pytest.mark.parametrize("name", PROFILES)
def test_recorded_command_lines_are_what_is_rendered(name: str) -> None:
    assert golden_file(name).read_text() == golden(name), HOW


def test_the_table_in_the_documentation_is_what_is_rendered() -> None:
    assert DOCUMENT.read_text() == document(), HOW


def test_every_recorded_command_line_belongs_to_a_profile() -> None:
    files = set(golden_file("x").parent.glob("argv-*.txt"))

    assert files == {golden_file(name) for name in PROFILES}
