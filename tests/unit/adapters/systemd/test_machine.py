from __future__ import annotations

import os
import pwd
import sys
from pathlib import Path

import pytest

from orchestrator.adapters.systemd import user_database
from orchestrator.adapters.systemd.machine import (
    SYSTEM_DIRECTORY,
    carried_environment,
    closed_to_others,
    installation_places,
    system_paths,
    systemd_version,
    this_orch,
)
from orchestrator.adapters.systemd.steps import Tools
from orchestrator.core.errors import OrchError
from orchestrator.core.setup.service_plan import HOME, PRIVATE_DIRECTORIES


@pytest.mark.parametrize(
    ("text", "version"),
    [("systemd 252 (252.39-1~deb12u2)\n+PAM", 252), ("systemd 255 (255.4-1ubuntu8)", 255), ("systemd 258.1", 258)],
)
def test_the_version_is_the_first_number(
    text: str, version: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "systemctl"
    program.write_text(f"#!/bin/sh\ncat <<'END'\n{text}\nEND\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert systemd_version(Tools()) == version


def test_this_installation_is_named_by_absolute_paths() -> None:
    assert all(os.path.isabs(place) for place in installation_places())
    assert this_orch()[0].startswith(os.path.dirname(sys.executable))


def test_only_what_says_where_things_are_is_carried(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith(("ORCH_", "XDG_")):
            monkeypatch.delenv(name)

    for name in ("ORCH_HOME", "ORCH_ENGINE_IK_FORK", "XDG_DATA_HOME", "ORCH_API_KEY", "XDG_SESSION_ID", "LD_PRELOAD"):
        monkeypatch.setenv(name, "/x")

    assert list(carried_environment("user")) == ["ORCH_ENGINE_IK_FORK", "ORCH_HOME", "XDG_DATA_HOME"]
    assert list(carried_environment("system")) == ["ORCH_ENGINE_IK_FORK"]


def test_the_first_closed_directory_on_the_way_is_found(tmp_path: Path) -> None:
    file = tmp_path / "open" / "closed" / "file"
    file.parent.mkdir(parents=True)
    file.write_text("")
    below = [path for path in file.parents if tmp_path in path.parents]
    for path in below:
        path.chmod(0o755)

    above = closed_to_others(str(tmp_path))  # pytest's own directories may be closed
    file.parent.chmod(0o700)
    assert closed_to_others(str(file)) == (above or str(file.parent))
    assert closed_to_others("/etc/passwd") is None
    assert closed_to_others("/etc/no-such-file") == "/etc/no-such-file"


def test_the_directories_that_are_made_are_those_that_are_used() -> None:
    paths = system_paths()
    assert {paths.config, paths.profiles, paths.state, paths.cache, paths.logs} == set(PRIVATE_DIRECTORIES)
    assert paths.state == HOME
    assert SYSTEM_DIRECTORY.startswith("/etc/")  # a package's units would be in /usr


def test_users_are_those_of_this_machine_or_of_an_image(tmp_path: Path) -> None:
    me = pwd.getpwuid(os.geteuid())
    assert user_database.user_home(me.pw_name) == me.pw_dir
    assert user_database.ids_of(me.pw_name) == (me.pw_uid, me.pw_gid)
    assert user_database.user_home("no-such-user") is None
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc" / "passwd").write_text("orch:x:999:998:orch service:/var/lib/orch:/usr/sbin/nologin\n")
    (tmp_path / "etc" / "group").write_text("video:x:44:ada,orch\nrender:x:106:\norch:x:998:\n")
    image = str(tmp_path)
    assert user_database.user_home("orch", image) == "/var/lib/orch"
    assert user_database.ids_of("orch", image) == (999, 998)
    assert user_database.groups_of("orch", image) == ("video",)
    assert user_database.has_group("render", image)
    assert not user_database.has_group("kvm", image)
    with pytest.raises(OrchError, match="there is no user `bob`"):
        user_database.ids_of("bob", image)
