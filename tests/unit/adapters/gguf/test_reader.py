from __future__ import annotations

import math
import os
import struct
import tempfile
from dataclasses import replace
from pathlib import Path

import gguf
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from orchestrator.adapters.gguf.reader import (
    MAX_ARRAY_VALUES,
    GgufArray,
    GgufError,
    Spans,
    read_gguf,
    read_header,
)
from orchestrator.adapters.gguf.splits import has_mtp, read_splits, split_paths
from orchestrator.adapters.gguf.types import size_bytes
from orchestrator.adapters.gguf.writer import Field, TensorData, floats, write_gguf, zeros
from orchestrator.core.dialect.tensor_types import TENSOR_TYPES, type_name
from orchestrator.core.errors import OrchError

HEADER = struct.Struct("<4sIQQ")


def packed_string(text: bytes) -> bytes:
    return struct.pack("<Q", len(text)) + text


def packed_tensor(name: bytes, shape: tuple[int, ...], type: int, offset: int) -> bytes:
    dimensions = struct.pack(f"<I{len(shape)}Q", len(shape), *shape)
    return packed_string(name) + dimensions + struct.pack("<IQ", type, offset)


def written(path: Path, content: bytes) -> str:
    path.write_bytes(content)
    return str(path)


def sample(path: Path, *, extra: tuple[Field, ...] = (), tensors: list[TensorData] | None = None) -> str:
    fields = [
        Field("general.architecture", "string", "qwen35moe"),
        Field("qwen35moe.block_count", "u32", 5),
        Field("qwen35moe.nextn_predict_layers", "u32", 1),
        Field("qwen35moe.context_length", "u32", 4096),
        Field("qwen35moe.attention.head_count_kv", "i32", (0, 2, 2)),
        *extra,
    ]
    if tensors is None:
        tensors = [
            TensorData("token_embd.weight", (8, 4), "f32", zeros(32)),
            TensorData("blk.4.nextn.eh_proj.weight", (16, 8), "f16", zeros(128, "f16")),
        ]

    write_gguf(str(path), fields, tensors)
    return str(path)


def failure(path: str) -> str:
    """The message and the details of the refusal, and proof that there was one."""
    with pytest.raises(GgufError) as caught:
        read_gguf(path)

    return "\n".join((caught.value.message, *caught.value.details))


def test_the_header_says_what_the_model_is(tmp_path: Path) -> None:
    header = read_gguf(sample(tmp_path / "model.gguf"))
    assert (header.version, header.architecture, header.number("block_count")) == (3, "qwen35moe", 5)
    assert (header.nextn_predict_layers, has_mtp((header,)), header.context_length) == (1, True, 4096)
    assert header.kv["qwen35moe.attention.head_count_kv"] == GgufArray("i32", 3, (0, 2, 2))
    assert header.file_size == (tmp_path / "model.gguf").stat().st_size
    embedding, projection = header.tensors
    assert (embedding.name, embedding.shape, embedding.type_name) == ("token_embd.weight", (8, 4), "f32")
    assert (embedding.offset, embedding.size_bytes) == (header.data_offset, 128)
    assert (projection.offset, projection.size_bytes) == (header.data_offset + 128, 256)


def test_mtp_layers_that_the_converter_left_out_are_not_mtp(tmp_path: Path) -> None:
    header = read_gguf(sample(tmp_path / "model.gguf", tensors=[TensorData("a", (1,), "f32", [floats([1])])]))
    assert header.nextn_predict_layers == 1
    assert not has_mtp((header,))


def test_long_arrays_and_strings_are_only_counted(tmp_path: Path) -> None:
    extra = (
        Field("tokenizer.ggml.tokens", "string", ["x", "yy", ""]),
        Field("a.long", "f32", [0.0] * (MAX_ARRAY_VALUES + 1)),
        Field("a.flags", "bool", [True, False]),
        Field("a.after", "string", "still read"),
    )
    header = read_gguf(sample(tmp_path / "model.gguf", extra=extra))
    assert header.kv["tokenizer.ggml.tokens"] == GgufArray("string", 3, None)
    assert header.kv["a.long"] == GgufArray("f32", MAX_ARRAY_VALUES + 1, None)
    assert header.kv["a.flags"] == GgufArray("bool", 2, (True, False))
    assert header.kv["a.after"] == "still read"


def test_a_header_larger_than_the_window_is_read(tmp_path: Path) -> None:
    tokens = Field("tokenizer.ggml.tokens", "string", [f"token {number}" for number in range(150_000)])
    template = Field("tokenizer.chat_template", "string", "x" * 3_000_000)
    header = read_gguf(sample(tmp_path / "model.gguf", extra=(tokens, template, Field("a.last", "u8", 7))))
    assert header.kv["tokenizer.ggml.tokens"] == GgufArray("string", 150_000, None)
    assert header.kv["tokenizer.chat_template"] == "x" * 3_000_000
    assert header.kv["a.last"] == 7


def test_a_truncated_file_says_how_much_is_missing(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    content = Path(sample(path)).read_bytes()
    text = failure(written(path, content[:-100]))
    assert "incomplete: 100 bytes are missing" in text
    assert "blk.4.nextn.eh_proj.weight" in text


@pytest.mark.parametrize("length", [30, 60, 150, 300])
def test_a_file_cut_within_its_header_is_refused(tmp_path: Path, length: int) -> None:
    path = tmp_path / "model.gguf"
    content = Path(sample(path)).read_bytes()
    assert "cut short" in (text := failure(written(path, content[:length]))) or "cannot fit" in text


def test_what_is_no_gguf_is_refused_with_its_first_bytes(tmp_path: Path) -> None:
    assert "it begins with b'PK" in failure(written(tmp_path / "a", b"PK\x03\x04" + bytes(60)))
    assert "3 bytes" in failure(written(tmp_path / "b", b"GGU"))
    assert "version 1," in failure(written(tmp_path / "c", HEADER.pack(b"GGUF", 1, 0, 0)))
    assert "big-endian" in failure(written(tmp_path / "d", struct.pack(">4sIQQ", b"GGUF", 3, 0, 0)))


def test_a_missing_file_and_a_directory_are_refused(tmp_path: Path) -> None:
    assert "No such file" in failure(str(tmp_path / "none.gguf"))
    assert "directory" in failure(str(tmp_path))


HOSTILE = {
    "metadata pairs than bytes": (HEADER.pack(b"GGUF", 3, 0, 2**63), "cannot fit"),
    "tensors than bytes": (HEADER.pack(b"GGUF", 3, 2**63, 0), "cannot fit"),
    "a key longer than the file": (HEADER.pack(b"GGUF", 3, 0, 1) + struct.pack("<Q", 2**62) + bytes(40), "cut short"),
    "an array longer than the file": (
        HEADER.pack(b"GGUF", 3, 0, 1) + packed_string(b"k") + struct.pack("<IIQ", 9, 5, 2**61) + bytes(40),
        "cannot fit",
    ),
    "strings longer than the file": (
        HEADER.pack(b"GGUF", 3, 0, 1) + packed_string(b"k") + struct.pack("<IIQQ", 9, 8, 2, 2**60) + bytes(40),
        "cut short",
    ),
    "an array of arrays": (
        HEADER.pack(b"GGUF", 3, 0, 1) + packed_string(b"k") + struct.pack("<IIQ", 9, 9, 1) + bytes(40),
        "array of array",
    ),
    "an unknown value type": (
        HEADER.pack(b"GGUF", 3, 0, 1) + packed_string(b"k") + struct.pack("<I", 77) + bytes(40),
        "no GGUF type",
    ),
    "a key twice": (
        HEADER.pack(b"GGUF", 3, 0, 2) + (packed_string(b"k") + struct.pack("<IB", 0, 1)) * 2 + bytes(40),
        "occurs twice",
    ),
    "an alignment of zero": (
        HEADER.pack(b"GGUF", 3, 0, 1) + packed_string(b"general.alignment") + struct.pack("<II", 4, 0),
        "power of two",
    ),
    "too many dimensions": (
        HEADER.pack(b"GGUF", 3, 1, 0) + packed_string(b"t") + struct.pack("<I", 2**31) + bytes(80),
        "dimensions",
    ),
    "a shape that overflows": (
        HEADER.pack(b"GGUF", 3, 1, 0) + packed_tensor(b"t", (2**62, 2**62), 0, 0) + bytes(64),
        "bytes are missing",
    ),
    "an offset beyond the file": (
        HEADER.pack(b"GGUF", 3, 1, 0) + packed_tensor(b"t", (8,), 0, 2**60) + bytes(64),
        "bytes are missing",
    ),
    "overlapping tensors": (
        HEADER.pack(b"GGUF", 3, 2, 0)
        + packed_tensor(b"a", (16,), 0, 0)
        + packed_tensor(b"b", (8,), 0, 32)
        + bytes(200),
        "`a` (64 bytes at 0) runs into the next one",
    ),
    "one name twice": (
        HEADER.pack(b"GGUF", 3, 2, 0) + packed_tensor(b"a", (8,), 0, 0) + packed_tensor(b"a", (8,), 0, 32) + bytes(200),
        "same name",
    ),
    "a row that is no number of blocks": (
        HEADER.pack(b"GGUF", 3, 1, 0) + packed_tensor(b"t", (33, 4), 8, 0) + bytes(400),
        "blocks of 32 (q8_0)",
    ),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_file_is_refused_with_the_reason(tmp_path: Path, name: str) -> None:
    content, expected = HOSTILE[name]
    assert expected in failure(written(tmp_path / "hostile.gguf", content))


def test_a_type_that_nobody_knows_is_named_by_its_number(tmp_path: Path) -> None:
    content = (
        HEADER.pack(b"GGUF", 3, 2, 0)
        + packed_tensor(b"a", (7,), 999, 0)
        + packed_tensor(b"b", (8,), 0, 64)
        + bytes(128)
    )
    header = read_gguf(written(tmp_path / "new.gguf", content))
    assert (header.tensors[0].type_name, header.tensors[0].size_bytes) == ("type 999", 64)


def test_the_forks_types_are_known_and_counted(tmp_path: Path) -> None:
    content = HEADER.pack(b"GGUF", 3, 1, 0) + packed_tensor(b"a", (512, 3), 144, 0) + bytes(64 + 3 * (2 * 136 + 4))
    header = read_gguf(written(tmp_path / "fork.gguf", content))
    assert [tensor.type_name for tensor in header.tensors] == ["iq4_ks"]
    assert header.tensors[0].size_bytes == 3 * (2 * 136 + 4)
    assert type_name(137) == "iq2_k"


def test_sizes_of_plain_types_agree_with_the_gguf_package() -> None:
    scratch = {gguf.GGMLQuantizationType.Q8_1, gguf.GGMLQuantizationType.Q8_K}  # never stored in files
    for kind, (block, bytes_each) in gguf.GGML_QUANT_SIZES.items():
        if kind not in scratch:
            assert TENSOR_TYPES[int(kind)][1:] == (block, bytes_each, 0), kind.name
            assert size_bytes(int(kind), (block * 2, 3)) == bytes_each * 6


def test_split_files_are_found_from_any_of_them() -> None:
    expected = tuple(f"/m/big-{number:05d}-of-00003.gguf" for number in (1, 2, 3))
    assert split_paths("/m/big-00002-of-00003.gguf") == expected
    assert split_paths("/m/plain.gguf") == ("/m/plain.gguf",)


def test_a_split_model_is_read_whole(tmp_path: Path) -> None:
    first = sample(tmp_path / "m-00001-of-00002.gguf", extra=(Field("split.count", "u16", 2),))
    write_gguf(str(tmp_path / "m-00002-of-00002.gguf"), [Field("split.count", "u16", 2)], [])
    assert [header.split_count for header in read_splits(first)] == [2, 2]


def test_a_missing_split_is_named(tmp_path: Path) -> None:
    first = sample(tmp_path / "m-00001-of-00003.gguf", extra=(Field("split.count", "u16", 3),))
    with pytest.raises(GgufError, match="2 of the 3 files") as caught:
        read_splits(first)

    assert caught.value.details[0].endswith("m-00002-of-00003.gguf")


def test_splits_that_do_not_belong_together_are_refused(tmp_path: Path) -> None:
    sample(tmp_path / "m-00001-of-00002.gguf", extra=(Field("split.count", "u16", 4),))
    sample(tmp_path / "m-00002-of-00002.gguf")
    with pytest.raises(GgufError, match="do not belong together"):
        read_splits(str(tmp_path / "m-00002-of-00002.gguf"))


def is_kept(value: object, expected: object) -> bool:
    if isinstance(expected, float) and isinstance(value, float):
        return math.isclose(value, expected, rel_tol=1e-6, abs_tol=1e-30)

    return value == expected


SCALARS = st.one_of(
    st.tuples(st.just("u32"), st.integers(0, 2**32 - 1)),
    st.tuples(st.just("i8"), st.integers(-128, 127)),
    st.tuples(st.just("u64"), st.integers(0, 2**64 - 1)),
    st.tuples(st.just("i64"), st.integers(-(2**63), 2**63 - 1)),
    st.tuples(st.just("bool"), st.booleans()),
    st.tuples(st.just("f64"), st.floats(allow_nan=False, allow_infinity=False)),
    st.tuples(st.just("string"), st.text(st.characters(exclude_categories=["Cs"]), max_size=40)),
    st.tuples(st.just("u16"), st.lists(st.integers(0, 65535), max_size=20).map(tuple)),
)
NAMES = st.text(st.sampled_from("abcdefgh.0123"), min_size=1, max_size=20)
SHAPES = st.lists(st.integers(1, 5), min_size=1, max_size=4).map(tuple)


@settings(max_examples=60, deadline=None)
@given(
    fields=st.dictionaries(NAMES, SCALARS, max_size=6),
    tensors=st.dictionaries(NAMES, SHAPES, max_size=5),
    kind=st.sampled_from(["f32", "f16"]),
)
def test_what_is_written_is_read_by_us_and_by_the_gguf_package(
    fields: dict[str, tuple[str, object]], tensors: dict[str, tuple[int, ...]], kind: str
) -> None:
    # An empty array has no element type to the gguf package, which then cannot decode it.
    with tempfile.TemporaryDirectory() as directory:
        path = os.path.join(directory, "model.gguf")
        write_gguf(
            path,
            [Field(f"k.{key}", type, value) for key, (type, value) in fields.items()],  # type: ignore[arg-type]
            [TensorData(name, shape, kind, zeros(math.prod(shape), kind)) for name, shape in tensors.items()],
        )
        header = read_gguf(path)
        for key, (_, expected) in fields.items():
            value = header.kv[f"k.{key}"]
            assert is_kept(value.values if isinstance(value, GgufArray) else value, expected)

        oracle = {tensor.name: tensor for tensor in gguf.GGUFReader(path).tensors}
        assert [tensor.name for tensor in header.tensors] == list(tensors)
        for tensor in header.tensors:
            same = oracle[tensor.name]
            assert (tensor.offset, tensor.size_bytes) == (same.data_offset, same.n_bytes)
            assert list(tensor.shape) == same.shape.tolist()


@settings(max_examples=300, deadline=None)
@given(st.integers(0, 10_000), st.binary(min_size=1, max_size=12))
@example(8, b"\xff" * 8)
def test_a_damaged_file_is_read_or_refused_but_never_breaks_the_reader(position: int, damage: bytes) -> None:
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "model.gguf"
        content = bytearray(Path(sample(path)).read_bytes())
        at = position % len(content)
        content[at : at + len(damage)] = damage
        path.write_bytes(content)
        try:
            header = read_gguf(str(path))
        except OrchError as error:
            assert error.details
        else:
            assert all(tensor.offset + tensor.size_bytes <= header.file_size for tensor in header.tensors)


class Counting:
    """A source that counts what is asked of it."""

    def __init__(self, path: str) -> None:
        self.content = Path(path).read_bytes()
        self.size = len(self.content)
        self.taken = 0

    def read(self, offset: int, least: int) -> bytes:
        piece = self.content[offset : offset + max(least, 4096)]
        self.taken += len(piece)
        return piece


def vocabulary(path: Path, words: list[str], behind: str = "tokenizer.ggml.token_type_of_each") -> str:
    tokens = Field("tokenizer.ggml.tokens", "string", tuple(words))
    return sample(path, extra=(tokens, Field(behind, "u32", 7), Field("x.y", "u32", 8)))


def test_a_vocabulary_that_a_file_alike_had_is_not_read_again(tmp_path: Path) -> None:
    words = [f"word {index}" for index in range(20_000)]
    spans: Spans = {}
    first = Counting(vocabulary(tmp_path / "a.gguf", words))
    second = Counting(vocabulary(tmp_path / "b.gguf", list(reversed(words))))
    read_header("a", first, spans)
    header = read_header("b", second, spans)
    assert first.taken > 300_000 > 20_000 > second.taken
    assert header == replace(read_gguf(str(tmp_path / "b.gguf")), path="b")


@pytest.mark.parametrize("change", ["another word", "another key behind", "another number of words"])
def test_a_vocabulary_that_only_seems_alike_is_read(tmp_path: Path, change: str) -> None:
    words = [f"word {index}" for index in range(20_000)]
    spans: Spans = {}
    read_header("a", Counting(vocabulary(tmp_path / "a.gguf", words)), spans)
    changed = words
    if change == "another word":
        changed = [*words[:-1], "a word that is longer"]
    elif change == "another number of words":
        changed = words[:-1]

    behind = "tokenizer.ggml.something_else" if change == "another key behind" else "tokenizer.ggml.token_type_of_each"
    path = vocabulary(tmp_path / "b.gguf", changed, behind)
    assert read_header("b", Counting(path), spans) == replace(read_gguf(path), path="b")
