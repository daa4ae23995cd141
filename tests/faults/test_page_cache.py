"""A model's pages are taken from under the engine that serves it: that is noticed, and reading ahead brings them back.

`posix_fadvise(POSIX_FADV_DONTNEED)` does not do it: the kernel leaves pages that a process has mapped (one MiB of 93 of
a real model went, its header). `process_madvise(MADV_PAGEOUT)` on the engine's own mapping takes them out of it first,
as the kernel does when memory is short.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator

import pytest

from orchestrator.adapters.hardware.page_cache import mapped_spans, read_ahead, residency
from orchestrator.adapters.process.tree import process_reads
from orchestrator.engines.known.model import write_known_model
from tests.support import Home, new_home, until

pytest.importorskip("xllamacpp", reason="the embedded engine is an optional extra")

LAYERS = 24
SYS_PROCESS_MADVISE, MADV_PAGEOUT = 440, 21
PROFILE = """\
schema = 1
engine = "embedded"
model = "{}"

[context]
size = 512
parallel = 1

[cpu]
threads = 1
threads_batch = 1
"""


@pytest.fixture
def home() -> Iterator[Home]:
    with new_home() as home:
        yield home


class Range(ctypes.Structure):
    """`struct iovec`."""

    _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))


def evict(pid: int, path: str) -> None:
    """Take a file that a process has mapped out of the page cache; skip the test where that cannot be done."""
    with open(path, "rb") as file:
        os.fsync(file.fileno())  # what is still to be written stays

    libc = ctypes.CDLL(None, use_errno=True)
    process = os.pidfd_open(pid)
    try:
        with open(f"/proc/{pid}/maps", encoding="utf-8") as lines:
            for line in lines:
                if line.rstrip().endswith(path):
                    first, end = (int(each, 16) for each in line.split()[0].split("-"))
                    mapped = Range(first, end - first)
                    libc.syscall(
                        SYS_PROCESS_MADVISE, process, ctypes.byref(mapped), ctypes.c_size_t(1), MADV_PAGEOUT, 0
                    )
    finally:
        os.close(process)

    with open(path, "rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)

    found = residency([path])
    if found is None or found.resident_mib is None or found.resident_mib > found.total_mib // 10:
        pytest.skip(f"this kernel or file system keeps the pages: {found}")


def test_weights_that_are_read_from_the_disk_are_noticed_and_reading_ahead_brings_them_back(home: Home) -> None:
    path = os.path.join(home.root, "known.gguf")
    write_known_model(path, "qwen35moe", layers=LAYERS)
    home.profile("known", PROFILE.format(path))
    home.serve("known")
    pid = home.ready("known")["pid"]
    home.complete("Hi", 8)
    until(lambda: home.status()["page_cache"]["experts_mib"], "it is known where its layers are")
    healthy = home.status()
    assert healthy["notice"] is None
    cached = healthy["page_cache"]
    assert cached["resident_mib"] == cached["part_mib"] > 0
    assert 0 < cached["experts_mib"] < cached["part_mib"]
    assert mapped_spans(pid, [path])

    def noticed() -> object:
        evict(pid, path)
        home.complete("Hi", 8)
        return home.status()["notice"]

    # What is read before the watch's first look, up to a second after the model is ready, counts as loading.
    notice = until(noticed, "it is noticed", 30.0)
    assert "weights are read from the disk while it answers" in notice
    assert notice in home.orch("events", "--lines", "5").stdout

    evict(pid, path)
    size = os.path.getsize(path)
    assert read_ahead([path], size, lambda: False) == size
    before = process_reads(pid)
    home.complete("Hi", 8)
    after = process_reads(pid)
    assert before is not None and after is not None
    assert after[0] - before[0] < size / 20
