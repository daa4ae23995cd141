from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.adapters.paths import Paths, find_paths
from orchestrator.adapters.store.lock import DaemonLock
from orchestrator.core.errors import OrchError
from orchestrator.core.setup.service_plan import ServiceHost
from orchestrator.doctor import service as service_check

MACHINE = ServiceHost("system", "/etc/systemd/system")


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory that others may enter, and that does not count as a temporary one."""
    with tempfile.TemporaryDirectory(dir="/var") if os.access("/var", os.W_OK) else _skip() as directory:
        os.chmod(directory, 0o755)
        yield Path(directory)


def _skip() -> tempfile.TemporaryDirectory[str]:
    pytest.skip("needs a directory outside of /tmp that may be written")


def system_warnings(monkeypatch: pytest.MonkeyPatch, program: Path, model: Path | None = None) -> list[str]:
    monkeypatch.setattr(service_check, "installation_places", lambda: (str(program),))
    return service_check._system_warnings(str(model) if model else None)


def make(path: Path, mode: int = 0o755) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("")
    path.chmod(mode)
    return path


def test_an_installation_that_everybody_may_read_is_fine(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert system_warnings(monkeypatch, make(place / "orch")) == []


def test_an_installation_in_a_closed_home_is_refused_with_a_way_out(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = make(place / "ada" / "orch")
    program.parent.chmod(0o700)
    with pytest.raises(OrchError, match="may not read this installation") as caught:
        system_warnings(monkeypatch, program)

    assert str(program.parent) in caught.value.details[0]
    assert "/opt/orch" in (caught.value.hint or "")


@pytest.mark.parametrize("directory", ["/tmp", "/var/tmp"])
def test_nothing_of_a_service_lies_in_a_temporary_directory(
    place: Path, monkeypatch: pytest.MonkeyPatch, directory: str
) -> None:
    gone = Path(directory, "no-such-directory", "file")
    with pytest.raises(OrchError, match="temporary directory"):
        system_warnings(monkeypatch, gone)

    with pytest.raises(OrchError, match="temporary directory"):
        system_warnings(monkeypatch, make(place / "orch"), gone)


def test_a_model_that_the_service_may_not_read_is_warned_of(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program, model = make(place / "orch"), make(place / "m.gguf", 0o600)
    assert "may not read" in system_warnings(monkeypatch, program, model)[0]
    model.chmod(0o644)
    assert system_warnings(monkeypatch, program, model) == []


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    return find_paths({"HOME": "/x", "ORCH_HOME": str(tmp_path)})


def test_a_daemon_that_is_no_service_has_to_end_first(paths: Paths) -> None:
    service_check.refuse_another_daemon(paths, MACHINE)
    lock = DaemonLock(paths.lock_file)
    lock.acquire()
    try:
        with pytest.raises(OrchError, match=f"pid {os.getpid()}") as caught:
            service_check.refuse_another_daemon(paths, MACHINE)

        assert "orch down --all" in (caught.value.hint or "")
        active = ServiceHost("system", "/etc/systemd/system", active=("orch.service",))
        service_check.refuse_another_daemon(paths, active)
    finally:
        lock.release()


def test_the_models_that_may_run_are_the_users_own_and_the_first_but_not_one_that_orch_makes(tmp_path: Path) -> None:
    paths = find_paths({"ORCH_HOME": str(tmp_path)})
    os.makedirs(paths.profiles)
    for name, model in (("mine", "/home/me/m.gguf"), ("made", "orch:demo")):
        Path(paths.profiles, f"{name}.toml").write_text(f'schema = 1\nmodel = "{model}"\n')

    assert service_check._first_model(paths, "mine") == "/home/me/m.gguf"
    assert service_check._first_model(paths, "made") is None
    assert service_check._first_model(paths, "") is None
    assert service_check._model_paths(paths, "/first.gguf") == {"/first.gguf", "/home/me/m.gguf"}
