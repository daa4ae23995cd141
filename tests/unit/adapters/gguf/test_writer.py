from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import gguf
import pytest

from orchestrator.adapters.gguf.writer import Field, TensorData, floats, write_gguf, zeros
from orchestrator.core.errors import OrchError


def write_sample(path: Path) -> int:
    return write_gguf(
        str(path),
        [
            Field("general.architecture", "string", "llama"),
            Field("llama.block_count", "u32", 3),
            Field("llama.rope.freq_base", "f32", 0.5),
            Field("llama.flag", "bool", True),
            Field("llama.big", "u64", 2**40),
            Field("llama.signed", "i64", -5),
            Field("llama.heads", "i32", (4, 2, 1)),
            Field("tokenizer.ggml.tokens", "string", ["a", "bé"]),
            Field("tokenizer.ggml.merges", "string", ()),
        ],
        [
            TensorData("first", (3, 2), "f32", [floats([1, 2, 3]), floats([4, 5, 6])]),
            TensorData("second", (40000,), "f16", zeros(40000, "f16")),
            TensorData("third", (1,), "f32", [floats([7])]),
        ],
    )


def contents(read: gguf.GGUFReader, key: str) -> Any:
    field = read.get_field(key)
    assert field is not None, key
    return field.contents()


def test_the_gguf_package_reads_what_was_written(tmp_path: Path) -> None:
    path = tmp_path / "sample.gguf"
    size = write_sample(path)
    assert size == path.stat().st_size
    read = gguf.GGUFReader(path)
    assert contents(read, "general.architecture") == "llama"
    assert contents(read, "llama.block_count") == 3
    assert contents(read, "llama.rope.freq_base") == 0.5
    assert bool(contents(read, "llama.flag")) is True
    assert contents(read, "llama.big") == 2**40
    assert contents(read, "llama.signed") == -5
    assert list(contents(read, "llama.heads")) == [4, 2, 1]
    assert contents(read, "tokenizer.ggml.tokens") == ["a", "bé"]
    tensors = {tensor.name: tensor for tensor in read.tensors}
    assert tensors["first"].data.tolist() == [[1, 2, 3], [4, 5, 6]]
    assert tensors["second"].data.shape == (40000,) and not tensors["second"].data.any()
    assert tensors["third"].data.tolist() == [7]
    assert all(tensor.data_offset % 32 == 0 for tensor in read.tensors)


def test_the_file_is_readable_by_others_and_nothing_else_is_left(tmp_path: Path) -> None:
    write_sample(tmp_path / "deep" / "sample.gguf")
    assert os.listdir(tmp_path / "deep") == ["sample.gguf"]
    assert (tmp_path / "deep" / "sample.gguf").stat().st_mode & 0o777 == 0o644


def test_a_failed_write_leaves_the_old_file_and_no_temporary_one(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(b"old")
    with pytest.raises(OrchError) as caught:
        write_gguf(str(path), [], [TensorData("short", (4,), "f32", [floats([1, 2])])])

    assert caught.value.details == ("tensor short [4]: 8 bytes given, 16 needed",)
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["model.gguf"]


def test_a_directory_that_cannot_be_made_is_reported(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(OrchError, match="could not write"):
        write_gguf(str(tmp_path / "file" / "model.gguf"), [], [])
