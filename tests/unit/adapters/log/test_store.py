from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from orchestrator.adapters.log.file import LogFile
from orchestrator.adapters.log.store import Gap, InstanceLog, LogLine

FULL_DISK = """
import sys, time
from orchestrator.adapters.log.file import LogFile
log = LogFile(sys.argv[1] + "/logs/engine.log")
line = b"x" * 999 + b"\\n"
for _ in range(100):
    log.write(line)
while log.written_bytes + log.dropped_bytes < log.produced_bytes:
    time.sleep(0.01)
assert log.dropped_bytes > 0, "the disk never got full"
assert log.last_error == "No space left on device", log.last_error
import os
os.unlink(sys.argv[1] + "/ballast")
deadline = time.monotonic() + 10
before = log.written_bytes
while log.written_bytes == before and time.monotonic() < deadline:
    log.write(line)
    time.sleep(0.05)
assert log.close(5)
assert log.written_bytes > before, "it did not recover"
assert log.produced_bytes == log.written_bytes + log.dropped_bytes
text = open(log.path).read()
assert "bytes of this log were dropped: No space left on device]" in text
"""


def numbered(first: int, last: int) -> list[LogLine]:
    return [LogLine(seq, str(seq)) for seq in range(first, last)]


def test_the_tail_is_the_newest_lines_oldest_first() -> None:
    log = InstanceLog()
    log.write([str(number) for number in range(10)])
    assert log.tail(3) == numbered(7, 10)
    assert log.tail(100) == numbered(0, 10)
    assert log.tail(0) == []


def test_no_more_lines_are_kept_than_allowed() -> None:
    log = InstanceLog(max_lines=5)
    log.write([str(number) for number in range(12)])
    assert log.tail(100) == numbered(7, 12)


def test_no_more_text_is_kept_than_allowed() -> None:
    log = InstanceLog(max_bytes=100)
    log.write(["x" * 40] * 10)
    assert len(log.tail(100)) == 2


def test_since_says_how_many_lines_are_gone() -> None:
    log = InstanceLog(max_lines=5)
    log.write([str(number) for number in range(12)])
    assert log.since(3) == (4, numbered(7, 12))
    assert log.since(10) == (0, numbered(10, 12))
    assert log.since(12) == (0, [])


async def collect(lines: AsyncIterator[LogLine | Gap]) -> list[LogLine | Gap]:
    return [line async for line in lines]


@pytest.mark.asyncio
async def test_a_subscriber_gets_the_lines_that_follow_and_the_end() -> None:
    log = InstanceLog()
    log.write(["before"])
    reading = asyncio.create_task(collect(log.subscribe()))
    await asyncio.sleep(0)
    log.write(["one"])
    log.write(["two", "three"])
    await log.aclose()
    assert await reading == [LogLine(1, "one"), LogLine(2, "two"), LogLine(3, "three")]


@pytest.mark.asyncio
async def test_a_subscriber_can_begin_with_what_is_kept() -> None:
    log = InstanceLog()
    log.write(["0", "1"])
    await log.aclose()
    assert await collect(log.subscribe(from_seq=0)) == numbered(0, 2)


@pytest.mark.asyncio
async def test_a_subscriber_that_stops_reading_misses_lines_and_is_told_how_many() -> None:
    log = InstanceLog(max_lines=10)
    lines = log.subscribe(from_seq=0)
    log.write(["0"])
    assert await anext(lines) == LogLine(0, "0")
    log.write([str(number) for number in range(1, 1000)])
    await log.aclose()
    rest = await collect(lines)
    gaps = [line for line in rest if isinstance(line, Gap)]
    delivered = [line for line in rest if isinstance(line, LogLine)]
    assert delivered == numbered(990, 1000)
    assert 1 + len(delivered) + sum(gap.dropped for gap in gaps) == log.next_seq


@pytest.mark.asyncio
async def test_a_subscriber_that_leaves_does_not_wake_or_stop_the_others() -> None:
    log = InstanceLog()
    leaving = asyncio.create_task(collect(log.subscribe()))
    staying = asyncio.create_task(collect(log.subscribe()))
    await asyncio.sleep(0)
    leaving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await leaving

    log.write(["0"])
    await log.aclose()
    assert await staying == numbered(0, 1)


@pytest.mark.asyncio
async def test_the_lines_are_in_the_file_after_closing(tmp_path: Path) -> None:
    log = InstanceLog(LogFile(str(tmp_path / "logs" / "engine.log")))
    log.write(["one", "zwei ü"])
    log.write(["three"])
    await log.aclose()
    path = tmp_path / "logs" / "engine.log"
    assert path.read_text(encoding="utf-8") == "one\nzwei ü\nthree\n"
    assert path.stat().st_mode & 0o137 == 0  # 0640 at most
    assert path.parent.stat().st_mode & 0o777 == 0o700


def wait_written(log: LogFile) -> None:
    """Until the thread has taken everything; it has its own time."""
    while log.written_bytes + log.dropped_bytes < log.produced_bytes:
        os.sched_yield()


def test_the_file_is_rotated_and_the_disk_holds_two_at_most(tmp_path: Path) -> None:
    log = LogFile(str(tmp_path / "logs" / "engine.log"), max_bytes=1000)
    for number in range(100):
        log.write(f"{number:099}\n".encode())
        wait_written(log)

    assert log.close()
    names = sorted(path.name for path in (tmp_path / "logs").iterdir())
    assert names == ["engine.log", "engine.log.1"]
    assert all(path.stat().st_size <= 1000 for path in (tmp_path / "logs").iterdir())
    kept = [int(line) for name in reversed(names) for line in (tmp_path / "logs" / name).read_text().split()]
    assert kept == list(range(100 - len(kept), 100))
    assert len(kept) > 10


@pytest.mark.parametrize("how", ["rename", "truncate", "delete"])
def test_rotation_by_another_program_is_noticed(tmp_path: Path, how: str) -> None:
    path = tmp_path / "logs" / "engine.log"
    aside = tmp_path / "aside"
    log = LogFile(str(path))
    log.write(b"before\n")
    wait_written(log)
    match how:
        case "rename":
            path.rename(aside)
        case "truncate":
            shutil.copy(path, aside)
            os.truncate(path, 0)
        case "delete":
            os.link(path, aside)
            path.unlink()

    log.write(b"after\n")
    assert log.close()
    assert aside.read_text() + path.read_text() == "before\nafter\n"
    assert (log.written_bytes, log.dropped_bytes) == (13, 0)


def test_a_disk_that_is_too_slow_costs_log_lines_and_not_memory(tmp_path: Path) -> None:
    log = LogFile(str(tmp_path / "logs" / "engine.log"), backlog_bytes=1000)
    for _ in range(5000):
        log.write(b"x" * 99 + b"\n")

    assert log.close()
    assert log.produced_bytes == 500_000
    assert log.written_bytes + log.dropped_bytes == log.produced_bytes
    assert log.written_bytes > 0


def test_a_planted_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "logs").mkdir()
    target = tmp_path / "precious"
    target.write_text("mine")
    (tmp_path / "logs" / "engine.log").symlink_to(target)
    log = LogFile(str(tmp_path / "logs" / "engine.log"))
    log.write(b"log\n")
    assert log.close()
    assert target.read_text() == "mine"
    assert log.dropped_bytes == 4


def test_a_full_disk_drops_and_counts_and_the_log_goes_on_when_there_is_space(tmp_path: Path) -> None:
    mount = tmp_path / "disk"
    mount.mkdir()
    setup = f'mount -t tmpfs -o size=64k none {mount} && head -c 40000 /dev/zero > {mount}/ballast && exec "$@"'
    namespace = ["unshare", "-Urm", "sh", "-c", setup, "sh"]
    tried = subprocess.run([*namespace, "true"], capture_output=True, text=True)
    if tried.returncode != 0:
        pytest.skip(f"no private mount here: {tried.stderr.strip()}")

    done = subprocess.run([*namespace, sys.executable, "-c", FULL_DISK, str(mount)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
