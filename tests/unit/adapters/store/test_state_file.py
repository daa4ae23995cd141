from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.adapters.store.state_file import VERSION, load_state, save_state, sweep_temporaries, write_atomically
from orchestrator.core.errors import OrchError
from tests.support import until

KILLS = 12

WRITER = """
import sys
from orchestrator.adapters.store.state_file import save_state

number = int(sys.argv[2])
print("ready", flush=True)
while True:
    number += 1
    save_state(sys.argv[1], {"number": number, "padding": [number] * 20000})
"""


def test_what_was_saved_is_loaded(tmp_path: Path) -> None:
    path = str(tmp_path / "new" / "state.json")
    save_state(path, {"wanted": {"profile": "demo", "engine": "upstream"}})
    assert load_state(path) == ({"version": VERSION, "wanted": {"profile": "demo", "engine": "upstream"}}, None)


def test_nothing_saved_is_an_empty_state_and_no_notice(tmp_path: Path) -> None:
    assert load_state(str(tmp_path / "state.json")) == ({}, None)


def test_only_the_owner_can_read_it(tmp_path: Path) -> None:
    path = tmp_path / "new" / "state.json"
    save_state(str(path), {})
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700


@given(st.binary(max_size=200))
def test_whatever_the_file_holds_loading_does_not_fail_and_loses_nothing(
    tmp_path_factory: pytest.TempPathFactory, data: bytes
) -> None:
    path = tmp_path_factory.mktemp("state") / "state.json"
    path.write_bytes(data)
    state, notice = load_state(str(path))
    assert state == {}
    assert notice is not None
    assert not path.exists()
    assert path.with_name("state.json.bad").read_bytes() == data


@pytest.mark.parametrize("text", ["[" * 200_000, "[]", '"text"', "{}", '{"version": "1"}', '{"version": 1, "wan'])
def test_json_that_is_no_state_is_kept_aside(tmp_path: Path, text: str) -> None:
    path = tmp_path / "state.json"
    path.write_text(text)
    state, notice = load_state(str(path))
    assert state == {}
    assert notice == f"{path} could not be read and is kept as {path}.bad; starting without it"
    assert (tmp_path / "state.json.bad").read_text() == text


def test_what_is_kept_aside_does_not_replace_what_was_kept_before(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    for text in ("first", "second", "third"):
        path.write_text(text)
        load_state(str(path))

    kept = {each.name: each.read_text() for each in tmp_path.iterdir()}
    assert kept == {"state.json.bad": "first", "state.json.bad2": "second", "state.json.bad3": "third"}


def test_a_newer_file_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    text = json.dumps({"version": VERSION + 1, "wanted": "more"})
    path.write_text(text)
    with pytest.raises(OrchError, match="newer orch") as caught:
        load_state(str(path))

    assert caught.value.details == (f"version {VERSION + 1}, this orch reads up to {VERSION}",)
    assert path.read_text() == text


def test_a_write_that_fails_leaves_the_old_content_and_no_temporary_file(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    path.mkdir()  # a file cannot replace a directory
    with pytest.raises(OSError, match="directory"):
        write_atomically(str(path), b"new")

    assert [each.name for each in tmp_path.iterdir()] == ["state.json"]


def test_a_reader_never_sees_half_a_write(tmp_path: Path) -> None:
    path = str(tmp_path / "state.json")
    save_state(path, {"number": 0, "padding": [0] * 20000})
    with subprocess.Popen([sys.executable, "-c", WRITER, path, "0"], stdout=subprocess.PIPE) as writer:
        try:
            assert writer.stdout is not None
            assert writer.stdout.readline() == b"ready\n"
            seen: set[int] = set()
            deadline = time.monotonic() + 30
            while len(seen) < 20:
                assert time.monotonic() < deadline
                seen.add(number_in(path))
        finally:
            writer.kill()


def has_passed(path: str, number: int) -> bool:
    return number_in(path) > number


def test_a_writer_killed_at_any_moment_leaves_the_old_content_or_the_new(tmp_path: Path) -> None:
    path = str(tmp_path / "state.json")
    save_state(path, {"number": 0, "padding": [0] * 20000})
    moments = random.Random(7)
    number = 0
    for each in range(KILLS):
        with subprocess.Popen([sys.executable, "-c", WRITER, path, str(number)], stdout=subprocess.PIPE) as writer:
            assert writer.stdout is not None
            assert writer.stdout.readline() == b"ready\n"
            if each % 2:
                until(partial(has_passed, path, number), "something was written")

            time.sleep(moments.uniform(0.0, 0.03))  # the moment of the kill is what is tried
            writer.kill()

        after = number_in(path)
        assert after >= number
        number = after

    assert number >= KILLS // 2
    assert os.path.getsize(path) > 0
    sweep_temporaries(str(tmp_path))
    assert os.listdir(tmp_path) == ["state.json"]


def test_what_a_killed_writer_leaves_is_swept_and_what_a_living_one_writes_is_not(tmp_path: Path) -> None:
    path = str(tmp_path / "state.json")
    stopped = WRITER.replace("import sys\n", "import os, sys, time\n", 1).replace(
        "number = int", "os.replace = lambda *paths: [print('written', flush=True), time.sleep(60)]\nnumber = int"
    )
    with subprocess.Popen([sys.executable, "-c", stopped, path, "0"], stdout=subprocess.PIPE) as writer:
        try:
            assert writer.stdout is not None
            assert [writer.stdout.readline() for _ in range(2)] == [b"ready\n", b"written\n"]
            (temporary,) = os.listdir(tmp_path)
            assert temporary.startswith(".state.json.")
            assert sweep_temporaries(str(tmp_path), str(tmp_path / "nothing")) == 0
            assert os.listdir(tmp_path) == [temporary]
        finally:
            writer.kill()
            writer.wait()

    (tmp_path / ".state.json.swp").touch()
    (tmp_path / ".mine.tmp").touch()
    assert sweep_temporaries(str(tmp_path)) == 1
    assert sorted(os.listdir(tmp_path)) == [".mine.tmp", ".state.json.swp"]


def number_in(path: str) -> int:
    """The number that was saved, after checking that all of the file belongs to it."""
    state, notice = load_state(path)
    assert notice is None
    number = state["number"]
    assert isinstance(number, int)
    assert state["padding"] == [number] * 20000
    return number
