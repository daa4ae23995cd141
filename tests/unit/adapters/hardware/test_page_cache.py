from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from orchestrator.adapters.hardware.page_cache import BLOCK_BYTES, read_ahead


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
