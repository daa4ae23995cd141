"""The files of a model that was split: found by their names, and checked to be parts of one model."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence

from orchestrator.adapters.gguf.reader import GgufError, GgufHeader, Value, gguf_error, read_gguf

_SPLIT = re.compile(r"(?P<stem>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})\.gguf")

_STRANGERS = "the model's files do not belong together"


def split_paths(path: str) -> tuple[str, ...]:
    """Return every file of a split model given one of them; of a model in one file, that file."""
    match = _SPLIT.fullmatch(os.path.basename(path))
    if match is None:
        return (path,)

    count = int(match["count"])
    names = (f"{match['stem']}-{number:05d}-of-{count:05d}.gguf" for number in range(1, count + 1))
    return tuple(os.path.join(os.path.dirname(path), name) for name in names)


def read_splits(path: str) -> tuple[GgufHeader, ...]:
    """Read the headers of every file of a model, the first one (which has the metadata) first.

    :raises GgufError: also when a file is missing, or one of them is not of this model
    """
    paths = split_paths(path)
    if missing := [other for other in paths if not os.path.exists(other)]:
        raise GgufError(
            f"{len(missing)} of the {len(paths)} files of the model are missing", details=tuple(missing[:8])
        )

    headers = tuple(read_gguf(other) for other in paths)
    check_together(headers)
    return headers


def has_mtp(parts: Sequence[GgufHeader]) -> bool:
    """Return whether a model drafts by itself: its MTP layers are described and their tensors are in one of its files.

    A converter can leave the tensors out; of a model in several files the last one has them.
    """
    return parts[0].nextn_predict_layers > 0 and any(
        ".nextn.eh_proj." in tensor.name for part in parts for tensor in part.tensors
    )


def check_together(headers: tuple[GgufHeader, ...]) -> None:
    """Check what the files of a model say of each other: parts of another model, of another size or renamed.

    :param headers: of as many files as their names say that there are
    :raises GgufError: with the file that does not fit
    """
    first = headers[0]
    if first.split_count != len(headers):
        detail = f"`split.count` is {first.split_count}, the names say {len(headers)}"
        raise gguf_error(first.path, _STRANGERS, detail)

    if len(headers) == 1:
        return

    total = first.kv.get("split.tensors.count")
    holders: dict[str, str] = {}
    for number, header in enumerate(headers):
        expected: dict[str, Value | None] = {
            "split.no": number,
            "split.count": len(headers),
            "split.tensors.count": total,
            "general.architecture": first.architecture,
            "general.name": first.kv.get("general.name"),
        }
        for key, value in expected.items():
            found = header.kv.get(key)
            if found is not None and value is not None and found != value:
                raise gguf_error(header.path, _STRANGERS, f"`{key}` is {found}, and should be {value}")

        for tensor in header.tensors:
            other = holders.setdefault(tensor.name, header.path)
            if other != header.path:
                raise gguf_error(
                    header.path, _STRANGERS, f"tensor `{tensor.name}` is also in {os.path.basename(other)}"
                )

    if isinstance(total, int) and total != len(holders):
        raise gguf_error(
            first.path, _STRANGERS, f"`split.tensors.count` is {total}, and they have {len(holders)} tensors"
        )
