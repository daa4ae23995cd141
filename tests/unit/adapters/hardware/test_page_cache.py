from __future__ import annotations

import mmap
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from orchestrator.adapters.hardware import page_cache
from orchestrator.adapters.hardware.page_cache import BLOCK_BYTES, mapped_spans, read_ahead, residency, residency_of

MIB = 1 << 20


def never() -> bool:
    return False


@pytest.fixture
def files(tmp_path: Path) -> list[str]:
    """Two files, of two and a half blocks and of half a block."""
    paths = [tmp_path / "m-00001-of-00002.gguf", tmp_path / "m-00002-of-00002.gguf"]
    for path, size in zip(paths, (BLOCK_BYTES * 5 // 2, BLOCK_BYTES // 2), strict=True):
        with open(path, "wb") as file:
            file.truncate(size)

    return [str(path) for path in paths]


def test_every_byte_of_every_file_is_read(files: list[str]) -> None:
    assert read_ahead(files, 1 << 40, never) == 3 * BLOCK_BYTES


def test_what_has_been_read_is_told_after_each_block(files: list[str]) -> None:
    told: list[int] = []
    read_ahead(files, 1 << 40, never, told.append)
    assert told[0] == BLOCK_BYTES
    assert told == sorted(told)
    assert told[-1] == 3 * BLOCK_BYTES


def test_reading_ends_within_a_block_of_the_limit(files: list[str]) -> None:
    limit_bytes = BLOCK_BYTES + 1
    assert limit_bytes <= read_ahead(files, limit_bytes, never) < limit_bytes + BLOCK_BYTES


def test_a_limit_of_nothing_reads_nothing(files: list[str]) -> None:
    assert read_ahead(files, 0, never) == 0


def test_reading_ends_with_the_block_in_which_it_is_cancelled(files: list[str]) -> None:
    asked = iter([False, True])
    assert read_ahead(files, 1 << 40, lambda: next(asked, True)) == BLOCK_BYTES


@pytest.mark.parametrize("kind", ["missing", "folder"])
def test_what_cannot_be_read_is_left_to_the_engine_and_the_rest_is_read(
    tmp_path: Path, files: list[str], kind: str
) -> None:
    bad = tmp_path / "bad"
    if kind == "folder":
        bad.mkdir()

    assert read_ahead([str(bad), *files], 1 << 40, never) == 3 * BLOCK_BYTES


def test_the_files_are_closed(files: list[str]) -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    read_ahead(files, 1 << 40, never)
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_a_thread_that_has_read_ahead_keeps_no_block(tmp_path: Path) -> None:
    """In a fresh process, whose allocator is in the state that the first block leaves it in."""
    path = tmp_path / "model"
    path.write_bytes(bytes(BLOCK_BYTES))
    code = """if True:
        import sys, threading, psutil
        from orchestrator.adapters.hardware.page_cache import read_ahead

        def work(ready, done, end):
            ready.wait()
            for _ in range(3):
                read_ahead([sys.argv[1]], 1 << 30, lambda: False)
            done.set()
            end.wait()

        end = threading.Event()
        threads = [(threading.Event(), threading.Event()) for _ in range(4)]
        for ready, done in threads:
            threading.Thread(target=work, args=(ready, done, end)).start()

        before = psutil.Process().memory_info().rss
        for ready, done in threads:
            ready.set()
            done.wait()

        print(psutil.Process().memory_info().rss - before)
        end.set()
    """
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True)
    assert int(done.stdout) < BLOCK_BYTES


def holding(path: Path, mib: int, resident: list[int]) -> str:
    """A file on disk with only those MiB in the page cache."""
    with path.open("wb") as file:
        for number in range(mib):
            file.write(bytes([number & 0xFF]) * MIB)

        file.flush()
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)

    with path.open("rb", buffering=0) as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_RANDOM)  # no reading ahead
        for number in resident:
            os.pread(file.fileno(), MIB, number * MIB)

    return str(path)


def test_what_was_read_of_a_file_is_in_the_page_cache(tmp_path: Path) -> None:
    path = holding(tmp_path / "model", 16, [])
    empty = residency([path])
    assert empty is not None and empty.total_mib == 16
    if empty.resident_mib:
        pytest.skip("this file system does not give pages back when told to (tmpfs)")

    half = residency([holding(tmp_path / "half", 16, list(range(8)))])
    assert half is not None and half.resident_mib == 8


def test_files_of_one_model_count_together_and_a_missing_one_makes_it_unknown(tmp_path: Path) -> None:
    one, two = holding(tmp_path / "one", 2, [0, 1]), holding(tmp_path / "two", 3, [0, 1, 2])
    found = residency([one, two])
    assert found is not None and (found.total_mib, found.resident_mib) == (5, 5)
    assert residency([one, str(tmp_path / "none")]) is None


def test_a_large_file_costs_no_more_than_its_windows(tmp_path: Path) -> None:
    path = tmp_path / "large"
    with path.open("wb") as file:
        file.truncate(64 << 30)

    began = time.thread_time()
    found = residency([str(path)])
    assert time.thread_time() - began < 0.5
    assert found is not None and found.total_mib == 64 << 10 and found.resident_mib == 0


def test_a_sampled_share_is_close_to_the_true_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = holding(tmp_path / "model", 32, list(range(12)))
    monkeypatch.setattr(page_cache, "WINDOWS", 16)
    found = residency([path])
    assert found is not None and found.resident_mib is not None
    if found.resident_mib == 32:
        pytest.skip("this file system does not give pages back when told to (tmpfs)")

    assert found.resident_mib == pytest.approx(12, abs=2)


def test_the_residency_of_a_file_of_somebody_else_is_not_known(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = holding(tmp_path / "theirs", 1, [0])
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    monkeypatch.setattr(os, "access", lambda *_: False)
    found = residency([path])
    assert found is not None and (found.total_mib, found.resident_mib) == (1, None)


def test_an_empty_file_is_no_model(tmp_path: Path) -> None:
    path = tmp_path / "empty"
    path.touch()
    found = residency([str(path)])
    assert found is not None and found.resident_mib is None
    assert mmap.PAGESIZE >= 4096


def test_ranges_of_a_file_are_looked_at_alone(tmp_path: Path) -> None:
    path = holding(tmp_path / "model", 16, list(range(4, 8)))
    whole = residency_of({path: ((0, 4 * MIB), (8 * MIB, 8 * MIB))})
    assert whole is not None and whole.total_mib == 12
    if whole.resident_mib:
        pytest.skip("this file system does not give pages back when told to (tmpfs)")

    part = residency_of({path: ((4 * MIB + 100, 2 * MIB), (8 * MIB, 2 * MIB))})
    assert part is not None and (part.total_mib, part.resident_mib) == (4, 2)
    assert residency_of({path: ((32 * MIB, MIB),)}) is not None  # past the end: it was cut
    assert residency_of({str(tmp_path / "none"): ((0, MIB),)}) is None


def test_what_a_process_has_mapped_is_told_by_file(tmp_path: Path) -> None:
    path, other = tmp_path / "a model", tmp_path / "other"
    for each in (path, other):
        each.write_bytes(bytes(4 * MIB))

    with path.open("rb") as file, mmap.mmap(file.fileno(), 2 * MIB, prot=mmap.PROT_READ, offset=MIB):
        assert mapped_spans(os.getpid(), [str(path), str(other)]) == {str(path): ((MIB, 2 * MIB),)}

    assert mapped_spans(os.getpid(), [str(path)]) == {}
    assert mapped_spans(1 << 22, [str(path)]) == {}
