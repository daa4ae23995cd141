"""Writes small GGUF files (version 3, little-endian) without numpy.

Source of the format: ggml's `docs/gguf.md`. Only what a generated model needs: scalars, strings, arrays, and tensors
whose bytes come as an iterable, so that no tensor is held in memory as a whole.
"""

from __future__ import annotations

import os
import struct
import tempfile
from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import BinaryIO

from orchestrator.adapters.gguf.types import size_bytes
from orchestrator.core.dialect.tensor_types import TENSOR_TYPES
from orchestrator.core.errors import OrchError

ALIGNMENT = 32

VALUE_TYPES = {
    "u8": (0, "<B"), "i8": (1, "<b"), "u16": (2, "<H"), "i16": (3, "<h"), "u32": (4, "<I"), "i32": (5, "<i"),
    "f32": (6, "<f"), "bool": (7, "<?"), "u64": (10, "<Q"), "i64": (11, "<q"), "f64": (12, "<d"),
}  # fmt: skip
"""Scalar types by name: the id in the file, and how `struct` packs one."""

_STRING = 8
_ARRAY = 9

_TENSOR_TYPES = {known.name: number for number, known in TENSOR_TYPES.items()}

Scalar = bool | int | float | str


@dataclass(frozen=True, slots=True)
class Field:
    """One metadata pair.

    :param type: a name of VALUE_TYPES or `string`; of the elements, where `value` is a list or a tuple
    """

    key: str
    type: str
    value: Scalar | Sequence[Scalar]


@dataclass(frozen=True, slots=True)
class TensorData:
    """One tensor to write.

    :param shape: as GGUF has it, the dimension that varies fastest first
    :param type: a name of TENSOR_TYPES; its rows are whole blocks
    :param chunks: its bytes, in pieces of any size; read once, while writing
    """

    name: str
    shape: tuple[int, ...]
    type: str
    chunks: Iterable[bytes]

    @property
    def size_bytes(self) -> int:
        return size_bytes(_TENSOR_TYPES[self.type], self.shape) or 0


def write_gguf(path: str, fields: Sequence[Field], tensors: Sequence[TensorData]) -> int:
    """Write the file next to its final name and move it there when it is complete.

    :return: its size in bytes
    :raises OrchError: when a tensor's chunks do not add up to its shape, or the disk refuses
    """
    directory = os.path.dirname(os.path.abspath(path))
    try:
        os.makedirs(directory, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(prefix=".gguf-", dir=directory)
        try:
            with os.fdopen(descriptor, "wb") as file:
                _write(file, fields, tensors)
                size = file.tell()

            os.chmod(temporary, 0o644)  # mkstemp gives 0600; a model is not a secret
            os.replace(temporary, path)
        except BaseException:
            os.unlink(temporary)
            raise
    except OSError as error:
        raise OrchError(f"could not write {path}", details=(str(error),)) from error

    return size


def floats(values: Iterable[float]) -> bytes:
    """Return values as the bytes of f32."""
    return _little_endian(array("f", values))


def zeros(count: int, type: str = "f32") -> Iterator[bytes]:
    """Yield the bytes of `count` zeros, in pieces of at most 64 KiB."""
    left = size_bytes(_TENSOR_TYPES[type], (count,)) or 0
    piece = bytes(min(left, 65536))
    while left > 0:
        yield piece[:left]
        left -= len(piece)


def _write(file: BinaryIO, fields: Sequence[Field], tensors: Sequence[TensorData]) -> None:
    file.write(struct.pack("<4sIQQ", b"GGUF", 3, len(tensors), len(fields)))
    for field in fields:
        file.write(_string(field.key) + _value(field))

    offset = 0
    for tensor in tensors:
        info = struct.pack("<I", len(tensor.shape)) + struct.pack(f"<{len(tensor.shape)}Q", *tensor.shape)
        file.write(_string(tensor.name) + info + struct.pack("<IQ", _TENSOR_TYPES[tensor.type], offset))
        offset += tensor.size_bytes + -tensor.size_bytes % ALIGNMENT

    _pad(file)
    for tensor in tensors:
        written = 0
        for chunk in tensor.chunks:
            file.write(chunk)
            written += len(chunk)

        if written != tensor.size_bytes:
            detail = f"tensor {tensor.name} {list(tensor.shape)}: {written} bytes given, {tensor.size_bytes} needed"
            raise OrchError("a tensor's data does not match its shape", details=(detail,))

        _pad(file)


def _value(field: Field) -> bytes:
    if isinstance(field.value, list | tuple):
        head = struct.pack("<IIQ", _ARRAY, _type_id(field.type), len(field.value))
        return head + b"".join(_scalar(field.type, item) for item in field.value)

    assert not isinstance(field.value, Sequence) or isinstance(field.value, str)
    return struct.pack("<I", _type_id(field.type)) + _scalar(field.type, field.value)


def _type_id(type: str) -> int:
    return _STRING if type == "string" else VALUE_TYPES[type][0]


def _scalar(type: str, value: Scalar) -> bytes:
    return _string(str(value)) if type == "string" else struct.pack(VALUE_TYPES[type][1], value)


def _string(text: str) -> bytes:
    data = text.encode()
    return struct.pack("<Q", len(data)) + data


def _pad(file: BinaryIO) -> None:
    file.write(bytes(-file.tell() % ALIGNMENT))


def _little_endian(values: array[float]) -> bytes:
    if struct.pack("=H", 1) != struct.pack("<H", 1):
        values.byteswap()

    return values.tobytes()
