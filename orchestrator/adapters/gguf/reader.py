"""Reads the header of a GGUF file: metadata and tensor descriptions, never tensor data.

Source of the format: ggml's `docs/gguf.md`. The file may be hostile: every length is checked against the bytes that
are left before anything is read or allocated, and nothing recurses. Read through a window and not mapped: a mapped file
that is cut while we read it (a download that starts over) ends the process with SIGBUS. The `gguf` package cannot do
this job: it takes seconds on a large vocabulary and refuses the fork's tensor types.
"""

from __future__ import annotations

import os
import stat
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from orchestrator.adapters.gguf.types import size_bytes
from orchestrator.core.dialect.tensor_types import type_name
from orchestrator.core.errors import OrchError
from orchestrator.core.terminal import quote_text

MAX_ARRAY_VALUES = 1024
"""Arrays of numbers up to this length are read (per-layer settings); longer ones (vocabularies) only counted."""

MAX_KEY_BYTES = 65535  # the format's own limit
MAX_TEXT_BYTES = 16 << 20
"""No chat template comes near; a longer string would only fill our memory."""

MAX_DIMENSIONS = 4  # GGML_MAX_DIMS

MAX_HEADER_BYTES = 64 << 20
MAX_TENSORS, MAX_FIELDS = 1 << 18, 1 << 16
"""Several times what the largest vocabulary and the most experts need: a huge file of small lies costs seconds."""

MAX_SHOWN = 300
"""Characters of a message: it quotes names from the file."""

_WINDOW_BYTES = 1 << 20
_LEAST_BYTES = 24

_MANY_STRINGS = 10_000
_BEHIND_BYTES = 32
"""Bytes behind an array that are compared: the length and most of the name of the next key."""

_SCALARS = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<B", 10: "<Q", 11: "<q", 12: "<d"}
_TYPE_NAMES = {
    0: "u8", 1: "i8", 2: "u16", 3: "i16", 4: "u32", 5: "i32", 6: "f32", 7: "bool", 8: "string", 9: "array", 10: "u64",
    11: "i64", 12: "f64",
}  # fmt: skip
_BOOL = 7
_STRING = 8
_ARRAY = 9
_LEAST_FIELD_BYTES = 8 + 4 + 1
_LEAST_TENSOR_BYTES = 8 + 4 + 8 + 4 + 8


class GgufError(OrchError):
    """Raised when a file is not a GGUF that an engine could load; says where and what."""


@dataclass(frozen=True, slots=True)
class GgufArray:
    """An array: `values` only when it is short and numeric."""

    type: str
    length: int
    values: tuple[bool | int | float, ...] | None


Value = bool | int | float | str | GgufArray


@dataclass(frozen=True, slots=True)
class Tensor:
    """One tensor.

    :param shape: as in the file, the dimension that varies fastest first
    :param type: ggml's number of the type
    :param offset: from the start of the file, bytes
    :param size_bytes: for an unknown type, the room up to the next tensor
    """

    name: str
    shape: tuple[int, ...]
    type: int
    offset: int
    size_bytes: int

    @property
    def type_name(self) -> str:
        return type_name(self.type)


@dataclass(frozen=True)
class GgufHeader:
    """The metadata (`kv`) and the tensors of one file; `data_offset` is where tensor data begins."""

    path: str
    version: int
    kv: Mapping[str, Value]
    tensors: tuple[Tensor, ...]
    data_offset: int
    file_size: int

    @property
    def architecture(self) -> str:
        value = self.kv.get("general.architecture")
        return value if isinstance(value, str) else ""

    @property
    def nextn_predict_layers(self) -> int:
        return self.number("nextn_predict_layers") or 0

    @property
    def context_length(self) -> int | None:
        return self.number("context_length")

    @property
    def split_count(self) -> int:
        value = self.kv.get("split.count")
        return value if isinstance(value, int) and value > 1 else 1

    def number(self, key: str) -> int | None:
        """Return an integer of this architecture, `number("block_count")` for `llama.block_count`; else None."""
        value = self.kv.get(f"{self.architecture}.{key}")
        return value if isinstance(value, int) and not isinstance(value, bool) else None


def read_gguf(path: str) -> GgufHeader:
    """Read the header of one file.

    :raises GgufError: when it cannot be opened, is no GGUF, is cut short, or contradicts itself
    """
    try:
        with open(path, "rb", opener=_without_waiting) as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise gguf_error(path, "not a GGUF file", "it is no regular file")

            return read_header(path, _LocalFile(file.fileno(), status.st_size))
    except OSError as error:
        raise GgufError(f"cannot read {path}", details=(error.strerror or str(error),)) from error


class ByteSource(Protocol):
    """The bytes of one file, wherever it lies."""

    @property
    def size(self) -> int:
        """Bytes of the whole file."""
        ...

    def read(self, offset: int, least: int) -> bytes:
        """Return the bytes from an offset on: at least so many, and more where that is cheap.

        Fewer only when the file does not have them any more.
        """
        ...


Spans = dict[tuple[str, int], tuple[int, bytes]]
"""Arrays of many strings, by key and length: the bytes that one takes, and the first bytes behind it."""


def read_header(name: str, source: ByteSource, spans: Spans | None = None) -> GgufHeader:
    """Read a header from any source of bytes.

    :param name: of the file, for messages; the header's `path`
    :param spans: of files alike, such as other quantisations of a model: their vocabularies are not read again where
        the same bytes follow as far behind them. Filled in with this file's
    :raises GgufError: as `read_gguf`
    """
    if source.size < _LEAST_BYTES:
        raise gguf_error(name, "not a GGUF file", f"{source.size} bytes, and a header alone has {_LEAST_BYTES}")

    return _read(_Reader(name, source, spans))


def _without_waiting(path: str, flags: int) -> int:
    # A FIFO without a writer would hold the open for ever.
    return os.open(path, flags | os.O_NONBLOCK)


class _LocalFile:
    """A file on this machine."""

    def __init__(self, descriptor: int, size: int) -> None:
        self.size = size
        self._descriptor = descriptor

    def read(self, offset: int, least: int) -> bytes:
        return os.pread(self._descriptor, max(least, _WINDOW_BYTES), offset)


class _Reader:
    """Reads from a position in the file; every read is checked against its end."""

    def __init__(self, path: str, source: ByteSource, spans: Spans | None = None) -> None:
        self.path = path
        self.size = source.size
        self.at = 0
        self._spans = spans
        self._source = source
        self._window = b""
        self._window_at = 0

    def take(self, count: int, what: str) -> int:
        """Move past the next bytes and have them in the window.

        :return: where in the window they begin
        """
        self._check(count, what)
        begin = self.at - self._window_at
        if begin < 0 or begin + count > len(self._window):
            self._window = self._source.read(self.at, count)
            self._window_at, begin = self.at, 0
            if len(self._window) < count:
                raise self.error(f"{what} could not be read: the file was changed meanwhile")

        self.at += count
        return begin

    def skip(self, count: int, what: str) -> None:
        self._check(count, what)
        self.at += count

    def skip_array(self, key: str, count: int) -> None:
        """Move past an array of strings; at once, where a file alike had the same one."""
        what, start = f"`{key}`", self.at
        if self._spans is None or count < _MANY_STRINGS:
            self.skip_strings(count, what)
            return

        size, behind = self._spans.get((key, count), (0, b""))
        if behind and start + size + len(behind) <= min(self.size, MAX_HEADER_BYTES):
            self.at = start + size
            if self.raw(len(behind), what) == behind:
                self.at = start + size
                return

            self.at = start

        self.skip_strings(count, what)
        end = self.at
        if end + _BEHIND_BYTES <= min(self.size, MAX_HEADER_BYTES):
            self._spans[key, count] = end - start, self.raw(_BEHIND_BYTES, what)
            self.at = end

    def skip_strings(self, count: int, what: str) -> None:
        """Move past so many strings: a vocabulary has hundreds of thousands, so without a call for each."""
        length_at = struct.Struct("<Q").unpack_from
        while count:
            begin = self.take(8, what)
            window, base, done = self._window, self._window_at, 0
            try:
                for done in range(1, count + 1):  # noqa: B007 - how many there were
                    begin += 8 + length_at(window, begin)[0]
            except (struct.error, OverflowError):  # the next length is not in the window
                done -= 1

            count -= done
            self.at = base + begin
            self._check(0, what)

    def unpack(self, layout: str, what: str) -> tuple[int | float, ...]:
        begin = self.take(struct.calcsize(layout), what)
        return struct.unpack_from(layout, self._window, begin)

    def integer(self, layout: str, what: str) -> int:
        return int(self.unpack(layout, what)[0])

    def raw(self, count: int, what: str) -> bytes:
        begin = self.take(count, what)
        return self._window[begin : begin + count]

    def text(self, what: str, limit: int = MAX_TEXT_BYTES) -> str:
        length = self.integer("<Q", what)
        self._check(length, what)
        if length > limit:
            raise self.error(f"{what} has {length} bytes, allowed {limit}")

        return self.raw(length, what).decode("utf-8", "replace")

    def _check(self, count: int, what: str) -> None:
        missing = self.at + count - self.size
        if missing > 0:
            detail = f"byte {self.at}: {what} needs {count} bytes, the file lacks {missing} of them"
            if not count:
                detail = f"{what} ends {missing} bytes after the file"

            raise gguf_error(self.path, "the header is cut short or corrupt", detail)

        if self.at + count > MAX_HEADER_BYTES:
            raise self.error(f"the header is longer than {MAX_HEADER_BYTES} bytes")

    def error(self, detail: str) -> GgufError:
        return gguf_error(self.path, "the header is corrupt", f"byte {self.at}: {detail}")


def _read(reader: _Reader) -> GgufHeader:
    magic = reader.raw(4, "the magic")
    if magic != b"GGUF":
        raise gguf_error(reader.path, "not a GGUF file", f"it begins with {magic!r}, expected b'GGUF'")

    version = reader.integer("<I", "the version")
    if version not in (2, 3):
        turned = " (a big-endian file)" if version in (2 << 24, 3 << 24) else ""
        raise gguf_error(reader.path, "unsupported GGUF version", f"version {version}{turned}, supported are 2 and 3")

    tensor_count = reader.integer("<Q", "the number of tensors")
    field_count = reader.integer("<Q", "the number of metadata pairs")
    _check_count(reader, field_count, _LEAST_FIELD_BYTES, "metadata pairs", MAX_FIELDS)
    kv: dict[str, Value] = {}
    for _ in range(field_count):
        key = reader.text("a key", MAX_KEY_BYTES)
        if key in kv:
            raise reader.error(f"key `{key}` occurs twice")

        kv[key] = _value(reader, key)

    _check_count(reader, tensor_count, _LEAST_TENSOR_BYTES, "tensors", MAX_TENSORS)
    described = [_tensor(reader) for _ in range(tensor_count)]
    if len({tensor.name for tensor in described}) < tensor_count:
        raise reader.error("two tensors have the same name")

    alignment = kv.get("general.alignment", 32)
    if not isinstance(alignment, int) or alignment < 1 or alignment & (alignment - 1) or alignment > 1 << 30:
        raise gguf_error(
            reader.path, "the header is corrupt", f"`general.alignment` is {alignment}, expected a power of two"
        )

    start = reader.at + -reader.at % alignment
    return GgufHeader(reader.path, version, kv, _place_tensors(reader, described, start), start, reader.size)


def _check_count(reader: _Reader, count: int, least: int, what: str, most: int | None = None) -> None:
    left = reader.size - reader.at
    if count * least > left:
        raise reader.error(f"{count} {what} cannot fit into the {left} bytes that are left")

    if most is not None and count > most:
        raise reader.error(f"{count} {what}, allowed {most}")


def _value(reader: _Reader, key: str) -> Value:
    type = reader.integer("<I", f"the type of `{key}`")
    if type == _STRING:
        return reader.text(f"`{key}`")

    if type == _ARRAY:
        return _array(reader, key)

    if type not in _SCALARS:
        raise reader.error(f"`{key}` has type {type}, which is no GGUF type")

    value = reader.unpack(_SCALARS[type], f"`{key}`")[0]
    return bool(value) if type == _BOOL else value


def _array(reader: _Reader, key: str) -> GgufArray:
    type = reader.integer("<I", f"the type of `{key}`")
    length = reader.integer("<Q", f"the length of `{key}`")
    name = _TYPE_NAMES.get(type, f"type {type}")
    if type == _STRING:
        _check_count(reader, length, 8, f"strings of `{key}`")
        reader.skip_array(key, length)
        return GgufArray(name, length, None)

    if type not in _SCALARS:  # arrays of arrays are in the format's text, but no engine reads them
        raise reader.error(f"`{key}` is an array of {name}")

    layout = _SCALARS[type]
    size = struct.calcsize(layout)
    _check_count(reader, length, size, f"values of `{key}`")
    values: tuple[bool | int | float, ...] | None = None
    if length <= MAX_ARRAY_VALUES:
        values = reader.unpack(f"<{length}{layout[1]}", f"`{key}`")
        values = tuple(map(bool, values)) if type == _BOOL else values
    else:
        reader.skip(length * size, f"`{key}`")

    return GgufArray(name, length, values)


def _tensor(reader: _Reader) -> Tensor:
    name = reader.text("a tensor's name", MAX_KEY_BYTES)
    dimensions = reader.integer("<I", f"the dimensions of `{name}`")
    if dimensions > MAX_DIMENSIONS:
        raise reader.error(f"tensor `{name}` has {dimensions} dimensions, allowed {MAX_DIMENSIONS}")

    shape = tuple(map(int, reader.unpack(f"<{dimensions}Q", f"the shape of `{name}`")))
    type, offset = map(int, reader.unpack("<IQ", f"the type and the offset of `{name}`"))
    try:
        size = size_bytes(type, shape)
    except ValueError as error:
        raise reader.error(f"tensor `{name}`: {error}") from error

    return Tensor(name, shape, type, offset, -1 if size is None else size)


def _place_tensors(reader: _Reader, described: list[Tensor], start: int) -> tuple[Tensor, ...]:
    """Return the tensors with offsets from the start of the file, each inside it and clear of the next."""
    placed = []
    order = sorted(range(len(described)), key=lambda index: (described[index].offset, described[index].size_bytes))
    following = [described[index].offset for index in order[1:]] + [max(reader.size - start, 0)]
    next_offset = dict(zip(order, following, strict=False))
    last = order[-1] if order else -1
    missing, worst = 0, ""
    for index, tensor in enumerate(described):
        room = next_offset[index] - tensor.offset
        size = max(room, 0) if tensor.size_bytes < 0 else tensor.size_bytes
        if size > room and index != last:
            detail = f"tensor `{tensor.name}` ({size} bytes at {tensor.offset}) runs into the next one"
            raise gguf_error(reader.path, "the header is corrupt", detail)

        lacking = start + tensor.offset + size - reader.size
        if lacking > missing:
            missing, worst = lacking, tensor.name

        placed.append(Tensor(tensor.name, tensor.shape, tensor.type, start + tensor.offset, size))

    if missing:
        detail = f"the data of tensor `{worst}` ends {missing} bytes after the file ({reader.size} bytes)"
        raise GgufError(
            f"{reader.path} is incomplete: {missing} bytes are missing",
            details=(quote_text(detail, MAX_SHOWN),),
            hint="download the file again",
        )

    return tuple(placed)


def gguf_error(path: str, what: str, detail: str) -> GgufError:
    """Return the error for one file, with what was found in it."""
    return GgufError(f"{path}: {what}", details=(quote_text(detail, MAX_SHOWN),))
