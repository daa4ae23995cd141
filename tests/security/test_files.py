"""Links and other surprises where orch writes: refused or replaced, and what they lead to stays as it is."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from orchestrator.adapters.config.key_file import ApiKey, read_keys
from orchestrator.adapters.log.file import LogFile
from orchestrator.adapters.paths import find_paths, make_directories, make_private
from orchestrator.adapters.process.key_handover import make_key
from orchestrator.adapters.store.lock import DaemonLock, read_holder
from orchestrator.adapters.store.state_file import save_state
from orchestrator.core.errors import OrchError
from orchestrator.core.measure.request_stats import RequestRecord
from orchestrator.daemon.control.event_log import EventLog
from orchestrator.daemon.process.sockets import bind_control
from orchestrator.daemon.telemetry.history import HistoryWriter


def write_a_log(path: str) -> None:
    log = LogFile(path)
    log.write(b"line\n")
    assert log.close()


def take_the_lock(path: str) -> None:
    with pytest.raises(OrchError, match="lock file"):
        DaemonLock(path).acquire()

    with pytest.raises(OSError, match="symbolic links"):
        read_holder(path)


def bind(path: str) -> None:
    with pytest.raises(OrchError, match="taken by something else"):
        bind_control(path)


def make_a_key(path: str) -> None:
    home = os.path.dirname(path)
    paths = find_paths({"ORCH_HOME": home})
    make_private(paths.keys)
    os.replace(path, os.path.join(paths.keys, "i-1"))
    key, why = make_key(paths.keys, "i-1")
    assert key.descriptor is not None and why is not None and "File exists" in why
    key.forget()


def keep_a_request(path: str) -> None:
    history = HistoryWriter(path)
    history.add_request(RequestRecord(1.0, "demo", None, None, "/completion", "error", 503, 0.0, 0.0))
    assert history.close(10.0)
    assert history.dropped == 1


WRITERS: dict[str, Callable[[str], None]] = {
    "the engine's log": write_a_log,
    "the events": lambda path: EventLog(path).add("kind", "message"),
    "the history": keep_a_request,
    "the state": lambda path: save_state(path, {"a": 1}),
    "the lock": take_the_lock,
    "the control socket": bind,
    "an engine's key": make_a_key,
}


@pytest.mark.parametrize("exists", [True, False])
@pytest.mark.parametrize("what", WRITERS)
def test_a_planted_link_is_not_followed(tmp_path: Path, what: str, exists: bool) -> None:
    target = tmp_path / "target"
    if exists:
        target.write_text("precious")

    planted = tmp_path / "planted"
    planted.symlink_to(target)
    WRITERS[what](str(planted))
    assert target.exists() is exists
    if exists:
        assert target.read_text() == "precious"


def test_a_file_in_the_place_of_a_directory_is_an_error_that_names_it(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("")
    with pytest.raises(OrchError, match="cannot be used") as caught:
        make_directories(find_paths({"ORCH_HOME": str(tmp_path)}))

    assert f"{tmp_path}/state: File exists" in caught.value.details


def test_a_key_file_that_others_may_read_is_warned_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "keys"
    path.write_text("# a comment\n one \n\ntwo\n")
    path.chmod(0o600)
    assert read_keys(str(path)) == (ApiKey("one"), ApiKey("two"))
    assert caplog.records == []
    path.chmod(0o640)
    assert read_keys(str(path)) == (ApiKey("one"), ApiKey("two"))
    assert "chmod 600" in caplog.text
    assert "one" not in caplog.text


@pytest.mark.parametrize("content", [b"", b"# only a comment\n", b"\xff\xfe"])
def test_a_key_file_without_a_key_is_an_error_and_no_open_gateway(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "keys"
    path.write_bytes(content)
    with pytest.raises(OrchError, match="key file"):
        read_keys(str(path))
