from __future__ import annotations

import os
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from orchestrator.adapters import paths
from orchestrator.adapters.paths import MAX_SOCKET_PATH, find_paths, make_private
from orchestrator.adapters.systemd.machine import read_template
from orchestrator.core.errors import OrchError

HOME = {"HOME": "/home/ada"}


def test_one_directory_can_hold_everything() -> None:
    paths = find_paths({**HOME, "ORCH_HOME": "/srv/orch", "XDG_CONFIG_HOME": "/elsewhere"})
    assert paths.directories == (
        "/srv/orch/config",
        "/srv/orch/state",
        "/srv/orch/data",
        "/srv/orch/cache",
        "/srv/orch/run",
    )


def test_a_tilde_in_orch_home_is_the_home_of_the_given_environment() -> None:
    assert find_paths({**HOME, "ORCH_HOME": "~/orch"}).config == "/home/ada/orch/config"


def test_a_relative_orch_home_is_below_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert find_paths({**HOME, "ORCH_HOME": "orch"}).config == str(tmp_path / "orch/config")


def test_without_any_hint_the_directories_are_those_of_xdg() -> None:
    assert find_paths(HOME).directories == (
        "/home/ada/.config/orch",
        "/home/ada/.local/state/orch",
        "/home/ada/.local/share/orch",
        "/home/ada/.cache/orch",
        "/home/ada/.local/state/orch/run",
    )


def test_the_directories_of_xdg_can_be_chosen() -> None:
    names = ("CONFIG_HOME", "STATE_HOME", "DATA_HOME", "CACHE_HOME", "RUNTIME_DIR")
    env = {f"XDG_{name}": f"/x/{name}" for name in names}
    assert find_paths({**HOME, **env}).directories == tuple(f"/x/{name}/orch" for name in names)


def test_a_relative_directory_of_xdg_is_ignored_as_its_specification_says() -> None:
    paths = find_paths({**HOME, "XDG_CONFIG_HOME": "config", "XDG_RUNTIME_DIR": "run"})
    assert paths.config == "/home/ada/.config/orch"
    assert paths.runtime == "/home/ada/.local/state/orch/run"


def test_the_directories_that_systemd_gives_win_over_those_of_xdg() -> None:
    names = ("CONFIGURATION", "STATE", "CACHE", "RUNTIME")
    env = {f"{name}_DIRECTORY": f"/systemd/{name}" for name in names}
    assert find_paths({**HOME, **env, "XDG_STATE_HOME": "/x"}).directories == (
        "/systemd/CONFIGURATION",
        "/systemd/STATE",
        "/systemd/STATE/data",
        "/systemd/CACHE",
        "/systemd/RUNTIME",
    )


def test_of_several_directories_of_systemd_the_first_is_taken() -> None:
    assert find_paths({**HOME, "STATE_DIRECTORY": "/var/lib/orch:/var/lib/other"}).state == "/var/lib/orch"


def test_the_environment_of_the_process_is_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ORCH_HOME", "/srv/orch")
    assert find_paths().control_socket == "/srv/orch/run/control.sock"


def test_the_longest_socket_path_that_the_kernel_takes_is_accepted_and_one_byte_more_is_not() -> None:
    def home(length: int) -> str:
        return "/" + "h" * (length - len("//run/control.sock"))

    longest = find_paths({"ORCH_HOME": home(MAX_SOCKET_PATH)})
    assert len(longest.control_socket) == MAX_SOCKET_PATH
    with pytest.raises(OrchError, match="too long for a unix socket") as raised:
        find_paths({"ORCH_HOME": home(MAX_SOCKET_PATH + 1)})

    assert raised.value.details[0].endswith(f"{MAX_SOCKET_PATH + 1} bytes, allowed {MAX_SOCKET_PATH}")


def test_socket_paths_are_measured_in_bytes() -> None:
    with pytest.raises(OrchError, match="too long"):
        find_paths({"ORCH_HOME": "/" + "ü" * 60})


def test_the_home_of_an_unknown_user_is_an_error() -> None:
    with pytest.raises(OrchError, match="names no directory"):
        find_paths({**HOME, "ORCH_HOME": "~nobody-of-that-name/orch"})


def test_a_private_directory_is_made_with_its_parents(tmp_path: Path) -> None:
    directory = tmp_path / "a/b"
    make_private(str(directory))
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700


def test_a_directory_that_others_can_enter_is_tightened(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    make_private(os.fspath(tmp_path))
    assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o700


def test_logs_lie_in_the_state_unless_systemd_gives_a_place() -> None:
    assert find_paths(HOME).logs == "/home/ada/.local/state/orch/logs"
    assert find_paths({**HOME, "STATE_DIRECTORY": "/s", "LOGS_DIRECTORY": "/l"}).logs == "/l"


AS_SOMEBODY = """
import os, sys
from orchestrator.adapters import paths
paths.SERVICE_STATE = sys.argv[1]
if os.geteuid() == 0:
    os.setuid(int(sys.argv[2]))
found = paths.find_paths({"HOME": "/home/ada", **({"ORCH_HOME": "/o"} if sys.argv[3:] else {})})
print(found.config, found.control_socket, found.logs)
"""


def paths_of(state: Path, uid: int, *more: str) -> list[str]:
    command = [sys.executable, "-c", AS_SOMEBODY, str(state), str(uid), *more]
    return subprocess.run(command, capture_output=True, text=True, timeout=30, check=True).stdout.split()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to be somebody else")
def test_the_services_user_finds_what_the_service_uses() -> None:
    with tempfile.TemporaryDirectory() as parent:  # not pytest's, which others may not enter
        os.chmod(parent, 0o755)
        state = Path(parent, "orch")
        state.mkdir()
        os.chown(state, 4242, 4242)
        assert paths_of(state, 4242) == ["/etc/orch", "/run/orch/control.sock", "/var/log/orch"]
        assert paths_of(state, 4242, "with ORCH_HOME")[0] == "/o/config"
        assert paths_of(state, 4243)[0] == "/home/ada/.config/orch"


def test_root_finds_its_own_even_where_root_owns_the_services_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(paths, "SERVICE_STATE", str(tmp_path))
    assert paths.is_service_user() == (os.geteuid() != 0)
    monkeypatch.setattr(paths, "SERVICE_STATE", str(tmp_path / "absent"))
    assert not paths.is_service_user()


def test_the_services_directories_are_those_of_the_unit() -> None:
    unit = read_template("system", "orch.service")
    for variable, directory in paths.SERVICE_DIRECTORIES.items():
        word = {
            "CONFIGURATION": "Configuration",
            "STATE": "State",
            "CACHE": "Cache",
            "LOGS": "Logs",
            "RUNTIME": "Runtime",
        }
        assert f"\n{word[variable.removesuffix('_DIRECTORY')]}Directory={os.path.basename(directory)}\n" in unit

    assert find_paths(dict(paths.SERVICE_DIRECTORIES)).data == "/var/lib/orch/data"
