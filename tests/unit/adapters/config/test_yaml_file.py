"""YAML with lines: words stay words, anchors are resolved, what is no YAML is said with its line."""

from __future__ import annotations

import pytest

from orchestrator.adapters.config.yaml_file import read_yaml
from orchestrator.core.errors import UsageError


def test_scalars_keep_their_text_and_nodes_their_lines() -> None:
    root = read_yaml("a: on\nb:\n  - 0x1f\n  - 'no'\nc: 012\n", "x")
    assert [(key, node.key_line) for key, node in root.children()] == [("a", 1), ("b", 2), ("c", 5)]
    assert root.value() == {"a": "on", "b": ["0x1f", "no"], "c": 12}


def test_merge_keys_and_anchors_are_resolved() -> None:
    root = read_yaml("base: &b {x: 1, y: 2}\nuse:\n  <<: *b\n  y: 3\n", "x")
    assert root.value()["use"] == {"x": 1, "y": 3}


@pytest.mark.parametrize("text", ["a: [1", "a: b: c", "a: *nobody", "\tx: 1"])
def test_what_is_no_yaml_is_refused_with_its_place(text: str) -> None:
    with pytest.raises(UsageError, match="x:1"):
        read_yaml(text, "x")


def test_a_document_that_repeats_itself_without_end_is_refused() -> None:
    bomb = "a: &a [x, x, x, x, x, x, x, x]\n" + "".join(
        f"{name}: &{name} [{', '.join(['*' + before] * 9)}]\n"
        for before, name in zip("abcdefg", "bcdefgh", strict=True)
    )
    with pytest.raises(UsageError, match="nested too deeply"):
        read_yaml(bomb, "x")
