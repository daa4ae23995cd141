"""Files of split models that are not parts of one model."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator.adapters.gguf.reader import GgufError
from orchestrator.adapters.gguf.splits import has_mtp, read_splits
from orchestrator.adapters.gguf.writer import Field, TensorData, write_gguf, zeros

PARTS = {1: ("a.weight", "b.weight"), 2: ("c.weight", "d.weight"), 3: ("e.weight",)}


def parts(directory: Path, strange: int = 0, names: tuple[str, ...] | None = None, **said: int | str) -> str:
    """A model in three files, as `gguf-split` writes them; one of them may say otherwise."""
    for number, tensors in PARTS.items():
        keys: dict[str, int | str] = {"split.no": number - 1, "split.count": 3, "split.tensors.count": 5}
        if number == 1:
            keys |= {"general.architecture": "llama", "general.name": "First"}

        if number == strange:
            keys |= {name.replace("__", "."): value for name, value in said.items()}
            tensors = tensors if names is None else names

        fields = [Field(key, "string" if isinstance(value, str) else "u16", value) for key, value in keys.items()]
        data = [TensorData(name, (32,), "f32", zeros(32)) for name in tensors]
        write_gguf(str(directory / f"m-{number:05d}-of-00003.gguf"), fields, data)

    return str(directory / "m-00001-of-00003.gguf")


def test_parts_that_belong_together_are_read(tmp_path: Path) -> None:
    assert [len(header.tensors) for header in read_splits(parts(tmp_path))] == [2, 2, 1]


@pytest.mark.parametrize(
    ("strange", "said", "names", "file", "words"),
    [
        (2, {"split__no": 2}, None, 2, "`split.no` is 2, and should be 1"),  # renamed
        (1, {"split__no": 1}, None, 1, "`split.no` is 1"),
        (2, {"split__count": 5}, None, 2, "`split.count` is 5"),
        (3, {"split__tensors__count": 99}, None, 3, "`split.tensors.count` is 99"),
        (2, {"general__architecture": "qwen3"}, None, 2, "`general.architecture` is qwen3, and should be llama"),
        (3, {"general__name": "Second"}, None, 3, "`general.name` is Second"),
        (2, {}, ("b.weight", "c.weight"), 2, "tensor `b.weight` is also in m-00001-of-00003.gguf"),
        (3, {}, ("e.weight", "f.weight"), 1, "they have 6 tensors"),
        (3, {}, (), 1, "they have 4 tensors"),
    ],
)
def test_a_part_of_another_model_is_named(
    tmp_path: Path, strange: int, said: dict[str, int | str], names: tuple[str, ...] | None, file: int, words: str
) -> None:
    path = parts(tmp_path, strange, names, **said)
    with pytest.raises(GgufError, match="do not belong together") as caught:
        read_splits(path)

    assert f"m-{file:05d}-of-00003.gguf" in caught.value.message
    assert words in caught.value.details[0]


@pytest.mark.parametrize(("tensor", "found"), [("blk.4.nextn.eh_proj.weight", True), ("e.weight", False)])
def test_the_mtp_layers_of_a_model_in_several_files_are_in_the_last_one(
    tmp_path: Path, tensor: str, found: bool
) -> None:
    path = parts(tmp_path, 3, (tensor,))
    first, *others = read_splits(path)
    described = replace(first, kv={**first.kv, "llama.nextn_predict_layers": 1})
    assert has_mtp((described, *others)) is found
    assert not has_mtp((first, *others))
