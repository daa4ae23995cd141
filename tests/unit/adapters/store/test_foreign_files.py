"""Something else in the place of a file of ours: a directory, a FIFO, a socket, a link in a circle, rubbish.

Each must be read at once (a FIFO without a writer blocks whoever opens it), and keep nothing from starting.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from orchestrator.adapters.config.key_file import read_keys
from orchestrator.adapters.log.file import LogFile
from orchestrator.adapters.store.history import open_history
from orchestrator.adapters.store.lock import DaemonLock, read_holder
from orchestrator.adapters.store.margins import MarginStore
from orchestrator.adapters.store.state_file import load_state, save_state
from orchestrator.core.errors import OrchError
from orchestrator.daemon.control.event_log import EventLog


def make_socket(path: str) -> None:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(path)


def write(content: bytes) -> Callable[[str], None]:
    def written(path: str) -> None:
        Path(path).write_bytes(content)

    return written


FOREIGN = {
    "directory": os.mkdir,
    "fifo": os.mkfifo,
    "socket": make_socket,
    "link in a circle": lambda path: os.symlink(path, path),
    "empty": write(b""),
    "binary": write(bytes(range(256))),
    "nested": write(b"[" * 100_000),
    "long number": write(b'{"version": ' + b"9" * 5000 + b"}"),
    "no object": write(b"[1]"),
    "no version": write(b"{}"),
}
foreign = pytest.mark.parametrize("kind", FOREIGN)


NO_FILES = ("directory", "fifo", "socket", "link in a circle")


@foreign
def test_what_lies_in_the_state_s_place_is_kept_and_said(tmp_path: Path, kind: str) -> None:
    path = str(tmp_path / "state.json")
    FOREIGN[kind](path)
    state, notice = load_state(path)
    assert state == {} and notice is not None and "starting without it" in notice
    assert os.path.lexists(path if kind in NO_FILES else f"{path}.bad")


@pytest.mark.parametrize("kind", [kind for kind in FOREIGN if kind != "directory"])
def test_the_next_state_takes_its_place(tmp_path: Path, kind: str) -> None:
    path = str(tmp_path / "state.json")
    FOREIGN[kind](path)
    load_state(path)
    save_state(path, {"wanted": None})
    assert load_state(path) == ({"version": 1, "wanted": None}, None)


@foreign
def test_margins_that_are_none_are_no_margins(tmp_path: Path, kind: str, caplog: pytest.LogCaptureFixture) -> None:
    path = str(tmp_path / "margins.json")
    FOREIGN[kind](path)
    assert MarginStore(path).entries() == {}
    assert "starting without it" in caplog.text


def test_a_file_that_cannot_be_read_now_stays_where_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = str(tmp_path / "state.json")
    save_state(path, {"wanted": None})

    def refused(*args: object) -> int:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patched:
        patched.setattr(os, "open", refused)
        state, notice = load_state(path)

    assert state == {} and notice is not None and "Input/output error" in notice
    assert load_state(path)[0] == {"version": 1, "wanted": None}


def test_what_cannot_be_moved_away_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = str(tmp_path / "state.json")
    Path(path).write_bytes(b"rubbish")

    def refused(*args: object) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(os, "replace", refused)
    state, notice = load_state(path)
    assert state == {} and notice is not None and "Read-only file system" in notice


@pytest.mark.parametrize("kind", ["directory", "fifo", "socket"])
def test_a_history_is_begun_anew_beside_what_lay_there(tmp_path: Path, kind: str) -> None:
    path = str(tmp_path / "history.sqlite3")
    FOREIGN[kind](path)
    store, notice = open_history(path)
    store.close()
    assert notice is not None and f"{path}.bad" in notice
    assert os.path.isfile(path)


@foreign
def test_events_are_read_and_written_at_once_or_not_at_all(tmp_path: Path, kind: str) -> None:
    path = str(tmp_path / "events.jsonl")
    FOREIGN[kind](path)
    log = EventLog(path)
    log.add("started", "the daemon")
    assert [event["message"] for event in log.after(0)] == ["the daemon"]


def test_an_event_may_quote_a_name_that_is_not_utf_8(tmp_path: Path) -> None:
    log = EventLog(str(tmp_path / "events.jsonl"))
    log.add("refused", os.fsdecode(b"there is no \xff.toml"))
    assert [event["message"] for event in EventLog(str(tmp_path / "events.jsonl")).after(0)] == [
        "there is no \\udcff.toml"
    ]


@pytest.mark.parametrize("kind", ["directory", "fifo", "link in a circle"])
def test_a_lock_is_taken_or_refused_at_once(tmp_path: Path, kind: str) -> None:
    path = str(tmp_path / "daemon.lock")
    FOREIGN[kind](path)
    lock = DaemonLock(path)
    try:
        lock.acquire()
        assert read_holder(path) == {}
    except OrchError as error:
        assert path in error.details[0]
    finally:
        lock.release()


@pytest.mark.parametrize("kind", ["directory", "fifo", "socket"])
def test_a_key_file_that_is_none_is_refused_at_once(tmp_path: Path, kind: str) -> None:
    path = str(tmp_path / "keys")
    FOREIGN[kind](path)
    with pytest.raises(OrchError, match="key file") as caught:
        read_keys(path)

    assert caught.value.details == (path,)


def test_a_log_whose_place_is_taken_drops_and_does_not_hang(tmp_path: Path) -> None:
    path = str(tmp_path / "engine.log")
    os.mkfifo(path)
    log = LogFile(path)
    log.write(b"a line\n")
    assert log.close()
    assert (log.written_bytes, log.dropped_bytes) == (0, 7)
