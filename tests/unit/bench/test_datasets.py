"""Prompts from files of the usual shapes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from orchestrator.bench.datasets import load_workload
from orchestrator.core.errors import UsageError

SPEED_BENCH = {"question_id": 7, "category": "coding", "turns": ["Write a parser.", "And a test."]}
SHARE_GPT = {
    "id": "x",
    "conversations": [{"from": "system", "value": "Be brief."}, {"from": "human", "value": "Hello."}],
}
OPENAI = {"messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Good day."}]}


@pytest.mark.parametrize(
    ("entry", "text"),
    [
        (SPEED_BENCH, "Write a parser."),
        ({"turns": [{"role": "user", "content": "Write."}]}, "Write."),
        (SHARE_GPT, "Hello."),
        (OPENAI, "Good day."),
        ({"prompt": "Once"}, "Once"),
        ({"question": "Why?"}, "Why?"),
        ("a plain string", "a plain string"),
    ],
)
@pytest.mark.parametrize("as_list", [False, True])
def test_each_shape_gives_its_first_question(tmp_path: Path, entry: object, text: str, as_list: bool) -> None:
    path = tmp_path / "set.json"
    path.write_text(json.dumps([entry], indent=1) if as_list else json.dumps(entry) + "\n\n")
    assert [each.text for each in load_workload(str(path)).prompts] == [text]


def test_twelve_prompts_are_taken_from_all_of_a_long_file(tmp_path: Path) -> None:
    path = tmp_path / "set.jsonl"
    path.write_text("".join(json.dumps({"prompt": f"p{number}"}) + "\n" for number in range(120)))
    found = load_workload(str(path))
    assert [each.text for each in found.prompts] == [f"p{number}" for number in range(0, 120, 10)]
    assert found.name == "set.jsonl"


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("{", "is not JSON Lines"),
        ('{"prompt": "a"}\n{"answer": "b"}\n', "line 2: no prompt"),
        ("", "has no prompt"),
        ('{"conversations": [{"from": "gpt", "value": "a"}]}\n', "has no prompt"),
    ],
)
def test_another_shape_is_told_with_its_place(tmp_path: Path, content: str, says: str) -> None:
    path = tmp_path / "set.jsonl"
    path.write_text(content)
    with pytest.raises(UsageError, match=says):
        load_workload(str(path))


def test_an_unknown_name_is_told() -> None:
    with pytest.raises(UsageError, match="no prompts `caht`") as caught:
        load_workload("caht")

    assert "chat" in str(caught.value.hint)
