"""Model files made to hurt: refused within seconds, with the reason, and before an engine's parser sees them."""

from __future__ import annotations

import os
import struct
import time
from pathlib import Path

import pytest

from orchestrator.adapters.gguf.reader import MAX_FIELDS, MAX_TENSORS, GgufError, read_gguf
from orchestrator.adapters.gguf.splits import read_splits
from tests.faults.lab import make_workshop, new_lab

HEAD = "<4sIQQ"
HUGE = 64 << 30


def sparse(path: Path, head: bytes) -> str:
    """A file of 64 GiB that costs a few blocks: every count in it has room."""
    path.write_bytes(head)
    os.truncate(path, HUGE)
    return str(path)


def counted(tensors: int, fields: int) -> bytes:
    return struct.pack(HEAD, b"GGUF", 3, tensors, fields)


def key(name: bytes, kind: int) -> bytes:
    return struct.pack("<Q", len(name)) + name + struct.pack("<I", kind)


HOSTILE = {
    "a thousand million tensors": (counted(10**9, 0), f"allowed {MAX_TENSORS}"),
    "a thousand million pairs": (counted(0, 10**9), f"allowed {MAX_FIELDS}"),
    "a thousand million strings": (counted(0, 1) + key(b"k", 9) + struct.pack("<IQ", 8, 10**9), "header is longer"),
    "a thousand million numbers": (counted(0, 1) + key(b"k", 9) + struct.pack("<IQ", 12, 10**9), "header is longer"),
    "a text of 32 GiB": (counted(0, 1) + key(b"k", 8) + struct.pack("<Q", 1 << 35), "header is longer"),
    "a text of 20 MiB": (counted(0, 1) + key(b"k", 8) + struct.pack("<Q", 20 << 20), "allowed"),
    "arrays of arrays of arrays": (counted(0, 1) + key(b"k", 9) + struct.pack("<IQ", 9, 1 << 30), "array of array"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_huge_file_of_small_lies_costs_seconds(tmp_path: Path, name: str) -> None:
    head, reason = HOSTILE[name]
    path = sparse(tmp_path / "m.gguf", head)
    began = time.process_time()
    with pytest.raises(GgufError) as caught:
        read_gguf(path)

    assert reason in caught.value.details[0]
    assert time.process_time() - began < 30.0


def test_splits_that_lead_to_each_other_are_refused(tmp_path: Path) -> None:
    first, second = tmp_path / "m-00001-of-00002.gguf", tmp_path / "m-00002-of-00002.gguf"
    first.symlink_to(second)
    second.symlink_to(first)
    with pytest.raises(GgufError):
        read_splits(str(first))


def test_a_number_of_splits_that_nobody_has_is_answered_at_once(tmp_path: Path) -> None:
    path = tmp_path / "m-00001-of-99999.gguf"
    path.write_bytes(counted(0, 0))
    with pytest.raises(GgufError, match="99998 of the 99999 files") as caught:
        read_splits(str(path))

    assert len(caught.value.details) < 20


@pytest.mark.parametrize("what", ["a pipe", "a device"])
def test_what_is_no_file_does_not_hold_the_reader(tmp_path: Path, what: str) -> None:
    path = "/dev/zero"
    if what == "a pipe":
        path = str(tmp_path / "m.gguf")
        os.mkfifo(path)

    with pytest.raises(GgufError, match="not a GGUF file"):
        read_gguf(path)


def test_an_engine_is_not_started_on_a_model_that_cannot_be_read(tmp_path_factory: pytest.TempPathFactory) -> None:
    with new_lab(make_workshop(str(tmp_path_factory.mktemp("workshop")))) as lab:
        lab.serve()
        for number, (head, _) in enumerate(HOSTILE.values()):
            path = lab.model(f"hostile-{number}")
            Path(path).write_bytes(head + bytes(64))
            done = lab.orch("up", f"hostile-{number}", check=False)
            assert done.returncode == 1
            assert "Traceback" not in done.stderr + lab.daemon_log()
            assert path in done.stderr
            assert lab.starts(f"hostile-{number}") == []

        assert lab.status()["state"] == "stopped"
