from __future__ import annotations

import asyncio
import os
import tracemalloc
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.adapters.log.reader import READ_BYTES, READS_PER_TURN, LineSplitter, LogReader
from orchestrator.core.terminal import neutralise


def split(*chunks: bytes, max_line: int = 8192) -> list[str]:
    splitter = LineSplitter(max_line)
    lines = [line for chunk in chunks for line in splitter.feed(chunk)]
    return lines + splitter.finish()


class Collector:
    def __init__(self) -> None:
        self.lines: list[str] = []

    def write(self, lines: Sequence[str]) -> None:
        self.lines += lines


def test_lines_are_cut_at_their_ends_wherever_the_chunks_end() -> None:
    assert split(b"one\ntw", b"o\n", b"", b"\nfour") == ["one", "two", "", "four"]


@pytest.mark.parametrize("chunks", [(b"a\r\nb\r\n",), (b"a\r", b"\nb\r", b"\n"), (b"a", b"\r", b"", b"\nb", b"\r\n")])
def test_a_carriage_return_and_a_newline_are_one_line_end(chunks: tuple[bytes, ...]) -> None:
    assert split(*chunks) == ["a", "b"]


def test_a_progress_bar_that_returns_to_the_margin_gives_a_line_for_each_step() -> None:
    assert split(b"\r 10%\r 20%\r100%\n") == [" 10%", " 20%", "100%"]


def test_progress_dots_can_be_seen_before_their_line_ends() -> None:
    splitter = LineSplitter()
    assert splitter.feed(b"....") == []
    assert splitter.feed(b"..") == []
    assert splitter.pending == "......"
    assert splitter.feed(b"\n") == ["......"]
    assert splitter.pending == ""


def test_a_long_line_is_cut_and_says_how_much_is_missing() -> None:
    assert split(b"abcdefgh\nij\n", max_line=5) == ["abcde …[+3 bytes]", "ij"]


def test_a_line_of_the_allowed_length_is_not_cut() -> None:
    assert split(b"abcde\n", max_line=5) == ["abcde"]


def test_ten_megabytes_without_a_line_end_cost_no_memory() -> None:
    splitter = LineSplitter()
    chunk = b"x" * 65536
    splitter.feed(chunk)
    tracemalloc.start()
    try:
        for _ in range(160):
            assert splitter.feed(chunk) == []
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert peak < 4 * len(chunk)
    (line,) = splitter.feed(b"\n")
    assert line.endswith(f" …[+{161 * 65536 - 8192} bytes]")


def test_bytes_that_are_not_utf_8_are_replaced() -> None:
    assert split(b"caf\xc3\xa9 \xff\xfe ok\n") == ["café \ufffd\ufffd ok"]


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        ("\x1b[1;32mgreen\x1b[0m", "green"),
        ("\x1b]0;owned\x07title", "title"),
        ("\x1b]52;c;ZXZpbA==\x1b\\clipboard", "clipboard"),
        ("\x1b[2J\x1b[Hhome", "home"),
        ("\x1bPq#0\x1b\\picture", "picture"),
        ("unfinished \x1b]0;title", "unfinished ␛]0;title"),
        ("bell\x07 nul\x00 del\x7f", "bell␇ nul␀ del␡"),
        ("c1 \x9b31m", "c1 \ufffd31m"),
        ("two\u2028lines", "two\ufffdlines"),
        ("reversed \u202etxt", "reversed \ufffdtxt"),
        ("tab\tstays, ünïcödé stays 🦙", "tab\tstays, ünïcödé stays 🦙"),
    ],
)
def test_what_a_terminal_would_obey_is_neutralised(raw: str, shown: str) -> None:
    assert neutralise(raw) == shown


@given(st.lists(st.binary(max_size=40)), st.integers(min_value=1, max_value=20))
def test_no_line_holds_a_control_character_or_grows_past_its_bound(chunks: list[bytes], max_line: int) -> None:
    for line in split(*chunks, max_line=max_line):
        assert all(char == "\t" or (ord(char) >= 0x20 and not 0x7F <= ord(char) < 0xA0) for char in line)
        assert len(line) <= max_line + len(" …[+1000 bytes]")


PLAIN_AND_NOT = st.lists(st.sampled_from([b"a", b"bcd", b" ", b"\n", b"\n\n", b"\t", b"\x1b", b"\xc3", b"\xa9"])).map(
    b"".join
)


@given(st.binary(max_size=200) | PLAIN_AND_NOT, st.lists(st.integers(min_value=0, max_value=200)))
def test_where_the_chunks_are_cut_makes_no_difference(data: bytes, cuts: list[int]) -> None:
    data = data.replace(b"\r", b"x")  # an empty line in "\r", "\n" is dropped, in "\r\n" it is not
    ends = sorted({min(cut, len(data)) for cut in cuts} | {len(data)})
    starts = [0, *ends[:-1]]
    chunks = [data[start:end] for start, end in zip(starts, ends, strict=True)]
    assert split(*chunks, max_line=7) == split(data, max_line=7)


@given(PLAIN_AND_NOT)
def test_plain_lines_come_out_as_they_went_in_and_none_is_lost(data: bytes) -> None:
    lines = split(data + b"\n")
    assert len(lines) == data.count(b"\n") + 1
    assert lines == [neutralise(raw.decode("utf-8", "replace")) for raw in data.split(b"\n")]


@pytest.mark.asyncio
async def test_the_reader_delivers_what_came_before_the_end_of_the_stream() -> None:
    read_fd, write_fd = os.pipe()
    log = Collector()
    reader = LogReader(read_fd, log)
    os.write(write_fd, b"first\nunfinished")
    os.close(write_fd)
    assert await reader.drain(5)
    assert log.lines == ["first", "unfinished"]
    assert reader.bytes_read == 16


@pytest.mark.asyncio
async def test_a_drain_gives_up_when_somebody_keeps_the_pipe_open() -> None:
    read_fd, write_fd = os.pipe()
    log = Collector()
    reader = LogReader(read_fd, log)
    os.write(write_fd, b"unfinished")
    try:
        assert not await reader.drain(0.05)
        assert log.lines == ["unfinished"]
    finally:
        os.close(write_fd)


@pytest.mark.asyncio
async def test_a_flood_leaves_the_loop_its_turns() -> None:
    read_fd, write_fd = os.pipe()
    log = Collector()
    reader = LogReader(read_fd, log)  # makes the pipe bigger
    os.set_blocking(write_fd, False)
    written = 0
    while True:
        try:
            written += os.write(write_fd, b"x" * 63 + b"\n")
        except BlockingIOError:
            break

    turns = 0
    while reader.bytes_read < written:
        before = reader.bytes_read
        await asyncio.sleep(0)
        assert reader.bytes_read - before <= READ_BYTES * READS_PER_TURN
        turns += 1

    assert turns >= written // (READ_BYTES * READS_PER_TURN)
    os.close(write_fd)
    assert await reader.drain(5)
    assert len(log.lines) == written // 64


@pytest.mark.asyncio
async def test_a_sink_that_fails_does_not_stop_the_reading() -> None:
    class Broken:
        def write(self, lines: Sequence[str]) -> None:
            raise ValueError("sink")

    seen: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: seen.append(context["exception"]))
    read_fd, write_fd = os.pipe()
    reader = LogReader(read_fd, Broken())
    os.write(write_fd, b"one\n")
    os.close(write_fd)
    assert await reader.drain(5)
    assert reader.lines_refused == 1
    assert [str(error) for error in seen] == ["sink"]
