"""`orch service` as a user runs it: systemctl is a program that plays a machine whose state is a directory; `--root`
installs into an image with the real one."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from orchestrator.adapters.process.ports import free_port
from tests.support import PATIENCE_S, ROOT

SYSTEMCTL = """\
#!/bin/sh
echo "$*" >> "$FAKE/log"
[ "$1" = --version ] && { echo "systemd ${SYSTEMD:-252} (test)"; exit; }
[ "$1" = --user ] && shift
verb=$1; shift
[ "$verb" != "$FAIL" ] || { echo "Job for orch.service failed." >&2; exit 1; }
case $verb in
  is-system-running) echo "${RUNNING:-running}"; exit;;
  is-enabled) [ -e "$FAKE/wants-$1" ] && echo enabled || { echo disabled; exit 1; }; exit;;
  is-active) [ -s "$FAKE/runs-$1" ] && cat "$FAKE/runs-$1" && exit 3
    [ -e "$FAKE/runs-$1" ] && echo active || { echo inactive; exit 3; }; exit;;
  show-environment) echo PATH=/usr/bin:/bin; exit;;
  show) [ -e "$FAKE/runs-$1" ] && echo ActiveState=active && echo MainPID=42 || echo ActiveState=inactive; exit;;
esac
for unit in "$@"; do
  case $verb in
    enable) touch "$FAKE/wants-$unit";;
    disable) rm -f "$FAKE/wants-$unit";;
    start) touch "$FAKE/runs-$unit";;
    stop) rm -f "$FAKE/runs-$unit";;
  esac
done
"""
LOGINCTL = '#!/bin/sh\necho "${LINGER:-no}"\n'
JOURNALCTL = '#!/bin/sh\necho "$*"\n'


class User:
    """Somebody with a home, a session, and a systemd."""

    def __init__(self, directory: Path) -> None:
        self.home = directory / "home"
        self.fake = directory / "machine"
        programs = directory / "bin"
        for path in (self.home, self.fake, programs):
            path.mkdir()

        for name, text in (("systemctl", SYSTEMCTL), ("loginctl", LOGINCTL), ("journalctl", JOURNALCTL)):
            (programs / name).write_text(text)
            (programs / name).chmod(0o755)

        self.unit = self.home / ".config" / "systemd" / "user" / "orch.service"
        self.env = {
            "HOME": str(self.home),
            "PATH": f"{programs}:{os.environ['PATH']}",
            "XDG_RUNTIME_DIR": str(directory / "run"),
            "FAKE": str(self.fake),
            "ORCH_GATEWAY_PORT": str(free_port()),  # the default may be somebody's
        }

    def __call__(self, *words: str, code: int = 0, **more: str) -> tuple[str, str]:
        return self.orch("service", *words, code=code, **more)

    def doctor(self, **more: str) -> list[tuple[str, str]]:
        """What is said of the service: level and text."""
        done = subprocess.run(
            [sys.executable, "-m", "orchestrator", "doctor", "--json"],
            env={**self.env, **more}, capture_output=True, text=True, timeout=PATIENCE_S, check=False,
        )  # fmt: skip
        found = json.loads(done.stdout)["findings"]
        return [(each["level"], each["text"]) for each in found if each["what"] == "service"]

    def orch(self, *words: str, code: int = 0, **more: str) -> tuple[str, str]:
        done = subprocess.run(
            [sys.executable, "-m", "orchestrator", *words],
            env={**self.env, **more}, capture_output=True, text=True, timeout=PATIENCE_S, check=False,
        )  # fmt: skip
        assert done.returncode == code, f"{done.returncode}\n{done.stdout}{done.stderr}"
        return done.stdout, done.stderr

    def state(self) -> list[str]:
        """Every file there is, and what is enabled and runs."""
        files = [str(path.relative_to(self.home)) for path in self.home.rglob("*") if path.is_file()]
        return sorted([*files, *(path.name for path in self.fake.iterdir() if path.name != "log")])

    def asked(self) -> list[str]:
        """What systemctl was asked to change."""
        lines = (self.fake / "log").read_text().splitlines()
        return [line for line in lines if not line.startswith("--version") and not re.search(r"(^| )(is|show)\b", line)]


@pytest.fixture
def user(tmp_path: Path) -> User:
    return User(tmp_path)


def test_the_users_service_is_installed_shown_and_removed(user: User) -> None:
    out, err = user("install", "--user", "--profile", "demo")
    assert out == "orch.service (user): installed\n"
    assert f"write {user.unit}" in err
    text = user.unit.read_text()
    assert "\nEnvironment=ORCH_DEFAULT_PROFILE=demo\n" in text
    assert "RestartSteps" not in text
    assert user.asked() == [f"--user {verb}" for verb in ("daemon-reload", "enable orch.service", "start orch.service")]
    shown = json.loads(user("status", "--user", "--json")[0])
    assert (shown["active"], shown["enabled"], shown["edited"], shown["pid"]) == ("active", True, False, 42)
    out, err = user("uninstall", "--user")
    assert out == "orch.service (user): removed\n"
    assert not user.unit.exists()
    assert not [name for name in user.state() if name.startswith(("wants", "runs"))]
    assert "is not installed" in user("status", "--user", code=3)[1]


def test_a_timer_is_installed_beside_the_service_and_removed_with_it(user: User) -> None:
    user("install", "--user", "--watch")
    timer, watch = (user.unit.with_name(name) for name in ("orch-watch.timer", "orch-watch.service"))
    assert "engines watch" in watch.read_text() and "OnCalendar=" in timer.read_text()
    assert user.asked() == [
        f"--user {verb}"
        for verb in ("daemon-reload", "enable orch.service orch-watch.timer", "start orch.service orch-watch.timer")
    ]
    assert json.loads(user("status", "--user", "--json")[0])["watch"] is True
    assert "nothing to do" in user("install", "--user", "--watch")[0]
    user("install", "--user")
    assert not timer.exists() and not watch.exists() and user.unit.exists()
    user("install", "--user", "--watch")
    user("uninstall", "--user")
    assert not timer.exists() and not watch.exists() and not user.unit.exists()
    assert not [name for name in user.state() if name.startswith(("wants", "runs"))]


def test_several_profiles_are_the_first_start_and_what_is_loaded_beside_it(user: User) -> None:
    profiles = user.home / ".config" / "orch" / "profiles"
    profiles.mkdir(parents=True)
    (profiles / "other.toml").write_text((ROOT / "profiles" / "demo.toml").read_text())
    user("install", "--user", "--profile", "demo", "other")
    text = user.unit.read_text()
    assert "\nEnvironment=ORCH_DEFAULT_PROFILE=demo\n" in text
    assert "\nEnvironment=ORCH_PRELOAD=other\n" in text
    assert "nosuch" in user("install", "--user", "--profile", "demo", "nosuch", code=2)[1]


def test_a_second_time_there_is_nothing_to_do(user: User) -> None:
    user("install", "--user")
    assert "nothing to do" in user("install", "--user")[0]
    user("uninstall", "--user")
    assert "nothing to do" in user("uninstall", "--user")[0]


def test_a_dry_run_shows_each_file_and_command_and_does_none(user: User) -> None:
    out, _ = user("install", "--user", "--socket", "--dry-run")
    assert f"write {user.unit}" in out
    assert "    WatchdogSec=30" in out
    assert "    FileDescriptorName=gateway" in out
    assert "run systemctl --user enable orch.service orch.socket" in out
    steps = json.loads(user("install", "--user", "--socket", "--dry-run", "--json")[0])["steps"]
    assert [step["kind"] for step in steps] == ["WriteFile", "WriteFile", "Run", "Run", "Run"]
    assert user.state() == []
    assert user.asked() == []


@pytest.mark.parametrize("verb", ["daemon-reload", "enable", "start"])
def test_a_command_that_fails_leaves_nothing_behind(user: User, verb: str) -> None:
    _, err = user("install", "--user", "--socket", code=1, FAIL=verb)
    assert "Job for orch.service failed." in err
    assert "hint: what the service said is in `orch service logs --user`" in err
    assert user.state() == []


@pytest.mark.parametrize("verb", ["stop", "start", "daemon-reload"])
def test_an_upgrade_that_fails_keeps_the_old_unit(user: User, verb: str) -> None:
    user("install", "--user")
    before = user.unit.read_text()
    user("install", "--user", "--profile", "demo", code=1, FAIL=verb)
    assert user.unit.read_text() == before
    assert (user.fake / "wants-orch.service").exists()


def test_a_newer_systemd_gets_what_it_can_read(user: User) -> None:
    assert "    RestartSteps=5" in user("install", "--user", "--dry-run", SYSTEMD="255.4-1ubuntu8")[0]


def test_a_unit_that_a_person_edited_is_shown_and_kept(user: User) -> None:
    user("install", "--user")
    user.unit.write_text(user.unit.read_text().replace("WatchdogSec=30", "WatchdogSec=90"))
    edited = user.unit.read_text()
    _, err = user("install", "--user", "--profile", "demo", code=2)
    assert "-WatchdogSec=90" in err
    assert "+WatchdogSec=30" in err
    assert "systemctl edit" in err
    user("uninstall", "--user", code=2)
    assert user.unit.read_text() == edited
    assert json.loads(user("status", "--user", "--json")[0])["edited"] is True
    user("install", "--user", "--force")
    assert "WatchdogSec=30" in user.unit.read_text()


@pytest.mark.parametrize(
    ("words", "file", "text", "said"),
    [
        (("--profile", "nmae"), None, None, "there is no profile `nmae`"),
        (("--profile", "./demo.toml"), None, None, "a service finds profiles by name"),
        (("--profile", "mine"), "profiles/mine.toml", "schema = 1\nmodle = 1\n", "did you mean `model`"),
        ((), "orch.toml", "[gateway]\nprot = 1\n", "orch.toml:2"),
        ((), "orch.toml", '[gateway]\nhost = "0.0.0.0"\n', "can be reached from other machines"),
        (("--socket",), "orch.toml", "[gateway]\nport = 0\n", "a socket unit needs a port"),
    ],
)
def test_a_mistake_is_found_before_anything_is_touched(
    user: User, words: tuple[str, ...], file: str | None, text: str | None, said: str
) -> None:
    if file is not None and text is not None:
        path = user.home / ".config" / "orch" / file
        path.parent.mkdir(parents=True)
        path.write_text(text)

    before = user.state()
    assert said in user("install", "--user", *words, code=2, ORCH_GATEWAY_PORT="")[1]
    assert user.state() == before
    assert user.asked() == []


def test_without_systemd_there_is_a_way_out(user: User) -> None:
    _, err = user("install", "--user", code=1, RUNNING="offline")
    assert "error: systemd does not run here" in err
    assert "`orch serve`" in err


def test_a_service_that_ends_with_the_session_is_warned_of(user: User) -> None:
    assert "`loginctl enable-linger`" in user("install", "--user", "--dry-run")[1]
    assert "enable-linger" not in user("install", "--user", "--dry-run", LINGER="yes")[1]


def test_the_service_sees_what_the_users_commands_see(user: User, tmp_path: Path) -> None:
    text, _ = user(
        "install", "--user", "--dry-run", ORCH_HOME=str(tmp_path / "o"), ORCH_GATEWAY_PORT="9000", SECRET="x"
    )
    assert f"    Environment=ORCH_HOME={tmp_path}/o" in text
    assert "    Environment=ORCH_GATEWAY_PORT=9000" in text
    assert "SECRET" not in text


def test_a_profile_whose_engine_is_not_there_is_installed_with_a_warning(user: User) -> None:
    model = user.home / "m.gguf"
    model.write_bytes(b"GGUF")
    profile = user.home / ".config" / "orch" / "profiles" / "mine.toml"
    profile.parent.mkdir(parents=True)
    profile.write_text(f'schema = 1\nmodel = "{model}"\nengine = "ik-fork"\n')
    _, err = user("install", "--user", "--profile", "mine")
    assert "warning: `mine` cannot start yet" in err
    assert user.unit.exists()


def test_an_engine_that_only_the_shell_finds_is_warned_of(user: User, tmp_path: Path) -> None:
    programs = tmp_path / "bin"
    server = Path(sys.executable).with_name("orch-embedded-server")
    (programs / "llama-server").write_text(f'#!/bin/sh\nexec {server} "$@"\n')
    (programs / "llama-server").chmod(0o755)
    profile = user.home / ".config" / "orch" / "profiles" / "mine.toml"
    profile.parent.mkdir(parents=True)
    profile.write_text('schema = 1\nmodel = "orch:demo"\nengine = "upstream"\n')
    user.orch("profile", "render", "mine")
    assert "warning: `mine` cannot start yet" in user("install", "--user", "--profile", "mine")[1]


def test_purging_takes_what_uninstalling_leaves(user: User) -> None:
    for name in (".config/orch/orch.toml", ".local/state/orch/state.json", ".local/share/orch/data", ".cache/orch/x"):
        path = user.home / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("")

    user("install", "--user")
    _, err = user("uninstall", "--user")
    assert "left as they are" in err
    assert (user.home / ".config/orch/orch.toml").exists()
    user("uninstall", "--user", "--purge")
    assert user.state() == []


def test_what_was_written_by_systemctl_edit_stays_until_purged(user: User) -> None:
    user("install", "--user")
    override = user.unit.with_name("orch.service.d") / "override.conf"
    override.parent.mkdir()
    override.write_text("[Service]\nNice=5\n")
    assert str(override.parent) in user("uninstall", "--user")[1]
    assert override.exists()
    user("uninstall", "--user", "--purge")
    assert not override.exists()


def test_an_address_that_somebody_has_is_said_before_anything_is_touched(user: User) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = str(server.getsockname()[1])
        _, err = user("install", "--user", code=1, ORCH_GATEWAY_PORT=port)

    assert f"127.0.0.1:{port}: it is taken" in err
    assert user.state() == []


def test_the_doctor_knows_the_service(user: User) -> None:
    assert user.doctor()[0] == ("note", "not installed as a service")
    user("install", "--user")
    assert ("ok", "the user's service is enabled and active") in user.doctor(LINGER="yes")
    assert ("warning", "the user's service runs only while you are logged in") in user.doctor()
    (user.fake / "wants-orch.service").unlink()
    assert ("warning", "the user's service is active, and does not start at boot") in user.doctor()
    (user.fake / "runs-orch.service").write_text("failed")
    assert ("problem", "the user's service has failed") in user.doctor()
    config = user.home / ".config" / "orch" / "orch.toml"
    config.parent.mkdir(parents=True, exist_ok=True)
    config.write_text("[daemon]\ndrain_s = 999\n")
    assert ("warning", "the user's service does not wait as long as orch.toml lets a stop take") in user.doctor()
    config.write_text("[daemon]\ndrain = 999\n")
    assert ("problem", "the user's service has failed") in user.doctor(), "whatever is wrong besides"
    user.unit.write_text(user.unit.read_text().replace("ExecStart=/", "ExecStart=/gone/"))
    levels = {text.split(":")[0].split(" /")[0]: level for level, text in user.doctor()}
    assert levels["the user's service was edited by hand"] == "note"
    assert levels["the user's service runs"] == "problem"


def test_the_doctor_knows_a_socket_that_does_not_listen(user: User) -> None:
    user("install", "--user", "--socket")
    text = "orch.socket does not listen: a restart of the user's service refuses connections"
    assert ("warning", text) not in user.doctor(LINGER="yes")
    (user.fake / "runs-orch.socket").unlink()
    assert ("warning", text) in user.doctor(LINGER="yes")
    user("install", "--user", "--socket")
    assert ("warning", text) not in user.doctor(LINGER="yes")


def test_the_journal_is_journalctls(user: User) -> None:
    out, _ = user("logs", "--user", "-f", "-n", "5")
    assert out == "--user-unit orch.service --lines 5 --follow\n"


@pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("systemctl") is None or shutil.which("useradd") is None,
    reason="needs root, systemctl and useradd",
)
class TestImage:
    """The system's service in the root of a machine that does not run, by the real systemctl and useradd."""

    @pytest.fixture
    def image(self, tmp_path: Path) -> Path:
        root = tmp_path / "image"
        (root / "etc" / "systemd" / "system").mkdir(parents=True)
        (root / "usr" / "lib" / "systemd" / "system").mkdir(parents=True)
        (root / "etc" / "passwd").write_text("root:x:0:0:root:/root:/bin/bash\n")
        (root / "etc" / "group").write_text("root:x:0:\nvideo:x:44:\n")
        (root / "etc" / "login.defs").write_text("USERGROUPS_ENAB yes\n")
        return root

    def orch(self, *words: str, code: int = 0) -> tuple[str, str]:
        command = [sys.executable, "-m", "orchestrator", "service", *words]
        done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
        assert done.returncode == code, done.stderr
        return done.stdout, done.stderr

    def tree(self, root: Path) -> dict[str, tuple[int, int, str]]:
        # `-` ends the copies that useradd and userdel leave of what they change.
        return {
            str(path.relative_to(root)): (path.lstat().st_mode, path.lstat().st_uid, self.content(path))
            for path in root.rglob("*")
            if not path.name.endswith("-")
        }

    def content(self, path: Path) -> str:
        return os.readlink(path) if path.is_symlink() else path.read_text() if path.is_file() else ""

    def test_it_is_made_enabled_and_removed_to_the_last_file(self, image: Path) -> None:
        before = self.tree(image)
        self.orch("install", "--system", "--root", str(image), "--profile", "demo", "--socket")
        passwd = (image / "etc" / "passwd").read_text().splitlines()[-1].split(":")
        assert (passwd[0], passwd[5], passwd[6]) == ("orch", "/var/lib/orch", "/usr/sbin/nologin")
        assert "video:x:44:orch" in (image / "etc" / "group").read_text()
        for name in ("etc/orch", "etc/orch/profiles", "var/lib/orch", "var/cache/orch", "var/log/orch"):
            status = (image / name).stat()
            assert (status.st_mode & 0o777, status.st_uid) == (0o700, int(passwd[2])), name

        system = image / "etc" / "systemd" / "system"
        assert (system / "multi-user.target.wants" / "orch.service").is_symlink()
        assert (system / "sockets.target.wants" / "orch.socket").is_symlink()
        assert (
            "nothing to do"
            in self.orch("install", "--system", "--root", str(image), "--profile", "demo", "--socket")[0]
        )
        self.orch("uninstall", "--system", "--root", str(image))
        assert (image / "etc" / "orch").is_dir()
        assert not (system / "orch.service").exists()
        self.orch("uninstall", "--system", "--root", str(image), "--purge")
        after = self.tree(image)
        made = {"var", "var/lib", "var/cache", "var/log", "etc/gshadow", "etc/shadow", "etc/subuid", "etc/subgid"}
        assert {name: entry for name, entry in after.items() if name not in made} == before

    @pytest.mark.parametrize(
        "obstacle", ["etc/systemd/system/multi-user.target.wants", "var/lib", "etc/orch", "var/cache/orch"]
    )
    def test_a_step_that_cannot_be_done_leaves_no_trace(self, image: Path, obstacle: str) -> None:
        path = image / obstacle
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("a file in the way")
        before = self.tree(image)
        _, err = self.orch("install", "--system", "--root", str(image), code=1)
        assert "everything is as it was before" in err
        ignored = {"etc/gshadow", "etc/shadow", "etc/subuid", "etc/subgid"}
        assert {name: entry for name, entry in self.tree(image).items() if name not in ignored} == before

    def test_keys_are_handed_over_as_a_credential(self, image: Path) -> None:
        directory = image / "etc" / "orch"
        directory.mkdir()
        (directory / "orch.toml").write_text('[gateway]\nhost = "0.0.0.0"\n')
        assert "can be reached" in self.orch("install", "--system", "--root", str(image), code=2)[1]
        (directory / "orch-api-keys").write_text("k\n")
        self.orch("install", "--system", "--root", str(image))
        text = (image / "etc" / "systemd" / "system" / "orch.service").read_text()
        assert "\nLoadCredential=orch-api-keys:/etc/orch/orch-api-keys\n" in text

    def test_somebody_else_who_is_called_orch_is_left_alone(self, image: Path) -> None:
        with (image / "etc" / "passwd").open("a") as file:
            file.write("orch:x:1000:1000::/home/orch:/bin/bash\n")

        assert "there is a user `orch`" in self.orch("install", "--system", "--root", str(image), code=1)[1]

    def test_what_is_no_system_is_refused(self, tmp_path: Path) -> None:
        assert "not the root of a system" in self.orch("install", "--system", "--root", str(tmp_path), code=1)[1]
        assert "for the system's service" in self.orch("install", "--user", "--root", str(tmp_path), code=2)[1]
