from __future__ import annotations

import os
import pwd
from pathlib import Path

import pytest

from orchestrator.adapters.systemd.user_database import groups_of, has_group, ids_of, user_home
from orchestrator.core.errors import OrchError

PASSWD = "root:x:0:0:root:/root:/bin/bash\norch:x:998:997:orch service:/var/lib/orch:/usr/sbin/nologin\nbroken\n"
GROUP = "root:x:0:\nvideo:x:44:orch,ada\nrender:x:105:orch\norch:x:997:\nbroken\n"


@pytest.fixture
def image(tmp_path: Path) -> str:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc" / "passwd").write_text(PASSWD)
    (tmp_path / "etc" / "group").write_text(GROUP)
    return str(tmp_path)


def test_the_users_of_an_image_are_read_from_its_own_files(image: str) -> None:
    assert user_home("orch", image) == "/var/lib/orch"
    assert ids_of("orch", image) == (998, 997)
    assert groups_of("orch", image) == ("render", "video")
    assert has_group("video", image) and not has_group("kvm", image)


def test_a_user_who_is_not_there_is_named(image: str) -> None:
    assert user_home("ada", image) is None
    with pytest.raises(OrchError, match="no user `ada`") as caught:
        ids_of("ada", image)

    assert caught.value.details == (f"{image}/etc/passwd",)


def test_a_directory_that_is_no_system_is_refused(tmp_path: Path) -> None:
    with pytest.raises(OrchError, match="not the root of a system"):
        user_home("orch", str(tmp_path))


def test_this_machine_is_asked_through_its_own_database() -> None:
    me = pwd.getpwuid(os.geteuid())
    assert user_home(me.pw_name) == me.pw_dir
    assert ids_of(me.pw_name) == (me.pw_uid, me.pw_gid)
    assert user_home("nobody-of-this-name") is None
    assert not has_group("no-group-of-this-name")
