"""The system service in an administrator's hands: keys, mistakes, slow starts, stops, upgrades, failed installs."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.systemd import root
from tests.systemd.conftest import Boot
from tests.systemd.machine import Machine
from tests.systemd.test_system_service import CHAT, CLIENT, ORCH, daemon_pid, engine_pid

pytestmark = [pytest.mark.systemd, pytest.mark.timeout(240)]

STREAM = Path(__file__).with_name("stream.py")
KEYS = "/etc/orch/orch-api-keys"
INSTALL = "orch service install --system --profile demo --socket"
STATE = "/var/lib/orch/state.json"
CONFIG = "/etc/orch/orch.toml"
MODELS = (
    "python3 -c \"import sys, urllib.request as u; r = u.Request('http://127.0.0.1:8080/v1/models', headers=dict("
    "a.split('=', 1) for a in sys.argv[1:])); print(u.urlopen(r, timeout=60).status)\""
)
SLOW_ENGINE = """#!/bin/sh
# An engine that takes its time to load.
case "$*" in *--port*) sleep 6;; esac
exec /opt/orch/bin/orch-embedded-server "$@"
"""
LONG = json.dumps(
    {"model": "demo", "prompt": "the ", "max_tokens": 900, "ignore_eos": True, "temperature": 0, "stream": True}
)


@pytest.fixture(scope="module")
def machine(boot: Boot) -> Iterator[Machine]:
    """Installed as docs/service.md says for one with keys: these first, by root."""
    with boot() as machine:
        machine.do("(umask 077; mkdir /etc/orch)")  # as on machines where root is careful
        machine.do(f"python3 -c 'import secrets; print(secrets.token_hex(32))' | install -m 600 /dev/stdin {KEYS}")
        machine.do(INSTALL, timeout_s=120)
        yield machine


@pytest.fixture
def keyless(machine: Machine) -> None:
    """The gateway asks for no key, whichever tests ran before."""
    if machine.run(f"test -e {KEYS}").returncode == 0:
        machine.do(f"rm {KEYS}; {INSTALL}", timeout_s=120)


def write(machine: Machine, path: str, text: str, mode: str = "600") -> None:
    machine.do(f"install -o orch -g orch -m {mode} /dev/stdin {path} <<'END'\n{text}\nEND")


def restart(machine: Machine, *, check: bool = True) -> int:
    """Also the sixth time within ten minutes."""
    machine.do("systemctl reset-failed orch")
    done = machine.run("systemctl restart orch", timeout_s=120)
    assert done.returncode == 0 or not check, done.stderr + machine.journal("orch")
    return done.returncode


def test_keys_are_asked_of_clients_and_stand_nowhere_else(machine: Machine) -> None:
    key = machine.do(f"cat {KEYS}").strip()
    engine_pid(machine)
    assert "401" in machine.run(MODELS).stderr
    assert machine.do(f"{MODELS} authorization='Bearer {key}'").strip() == "200"
    assert f"LoadCredential=orch-api-keys:{KEYS}" in machine.do("systemctl cat orch")
    # A shell that looks for the key would find itself: the key comes by its file.
    places = "/proc/[0-9]*/environ /proc/[0-9]*/cmdline /etc/systemd /run/systemd /var/lib/orch /var/cache /var/log"
    assert machine.run(f"grep -rlsaF -f {KEYS} {places}").stdout == ""
    assert machine.run(f"journalctl --no-pager | grep -cF -f {KEYS}").stdout.strip() == "0"


def test_other_users_reach_neither_the_keys_nor_the_control_socket(machine: Machine) -> None:
    for path in ("/run/orch", "/run/credentials/orch.service", "/etc/orch", "/var/lib/orch", "/var/log/orch"):
        assert machine.run(f"ls {path}", "ada").returncode != 0, path

    for path in ("/run/orch", "/etc/orch", "/etc/orch/profiles", "/var/lib/orch", "/var/cache/orch", "/var/log/orch"):
        assert machine.do(f"stat -c '%U %a' {path}").split() == ["orch", "700"], path

    assert machine.do("stat -c '%U %a' /run/orch/control.sock").split() == ["orch", "600"]
    assert machine.do(f"stat -c '%U %a' {KEYS}").split() == ["root", "600"]


def test_systemd_finds_nothing_wrong_with_what_was_installed(machine: Machine) -> None:
    units = "/etc/systemd/system/orch.service /etc/systemd/system/orch.socket"
    done = machine.run(f"systemd-analyze verify {units}")
    assert done.returncode == 0 and "orch" not in done.stderr, done.stderr
    machine.do("systemd-analyze security --offline=true --threshold=25 /etc/systemd/system/orch.service")
    newer = int(machine.do("systemctl --version").split()[1]) >= 254
    assert ("RestartSteps=5" in machine.do("systemctl cat orch")) is newer


def test_however_often_it_is_installed_it_starts(machine: Machine) -> None:
    for profile in ("", "--profile demo") * 3:  # each time another unit, and a start
        machine.do(f"orch service install --system --socket {profile}", timeout_s=60)

    assert engine_pid(machine) > 1


def test_a_socket_that_was_stopped_takes_the_address_back(machine: Machine) -> None:
    machine.do("systemctl stop orch.socket; systemctl start orch")
    assert machine.show("orch.socket", "ActiveState")["ActiveState"] != "active"
    machine.do(INSTALL, timeout_s=60)
    assert machine.show("orch.socket", "ActiveState")["ActiveState"] == "active"


def test_without_the_keys_another_installation_asks_for_none(machine: Machine) -> None:
    machine.do(f"rm {KEYS}; {INSTALL}", timeout_s=120)
    assert machine.succeeds(MODELS).strip() == "200"
    assert "LoadCredential" not in machine.do("systemctl cat orch")


def test_roots_doctor_finds_nothing_wrong_with_a_service_that_runs(machine: Machine) -> None:
    engine_pid(machine)
    for command in ("orch doctor --json", f"{ORCH} doctor --json"):
        findings = json.loads(machine.run(command).stdout)["findings"]
        assert not [each for each in findings if each["level"] == "problem"], findings


def test_a_reload_of_a_broken_configuration_says_why_and_changes_nothing(machine: Machine) -> None:
    daemon, engine = daemon_pid(machine), engine_pid(machine)
    write(machine, CONFIG, "bogus = 1")
    assert machine.run("systemctl reload orch").returncode != 0
    assert "orch.toml:1: unknown table `bogus`" in machine.journal("orch")
    machine.do(f"rm {CONFIG}; systemctl reload orch")
    assert (daemon_pid(machine), engine_pid(machine)) == (daemon, engine)


def test_a_second_daemon_is_told_of_the_unit(machine: Machine) -> None:
    done = machine.run(f"{ORCH} serve")
    assert done.returncode == 5
    assert "the service orch.service" in done.stderr
    assert "`systemctl stop orch.service`" in done.stderr


def test_a_start_that_waits_for_the_model_may_take_longer_than_the_limit(machine: Machine) -> None:
    machine.do(f"install -m 755 /dev/stdin /usr/local/bin/slow-server <<'END'\n{SLOW_ENGINE}END")
    machine.do(f"{ORCH} engines add slow /usr/local/bin/slow-server")
    write(machine, "/etc/orch/profiles/slow.toml", 'schema = 1\nmodel = "orch:demo"\nengine = "slow"')
    machine.do(f"{ORCH} up slow", timeout_s=60)
    write(machine, CONFIG, '[daemon]\nready_when = "model"')
    machine.do("mkdir -p /run/systemd/system/orch.service.d")
    machine.do("printf '[Service]\\nTimeoutStartSec=3\\n' > /run/systemd/system/orch.service.d/limit.conf")
    machine.do("systemctl daemon-reload; systemctl reset-failed orch; systemctl restart --no-block orch")
    machine.succeeds("systemctl show -P StatusText orch | grep -q '^loading slow@slow'")
    assert machine.show("orch", "ActiveState")["ActiveState"] == "activating"
    machine.until("orch", "ActiveState", "active")
    shown = machine.show("orch", "NRestarts", "StatusText")
    assert shown == {"NRestarts": "0", "StatusText": "ready slow@slow; http://127.0.0.1:8080"}


def test_a_stop_during_such_a_start_is_no_failure(machine: Machine) -> None:
    machine.do("systemctl restart --no-block orch")
    machine.succeeds("systemctl show -P StatusText orch | grep -q '^loading slow@slow'")
    machine.do("systemctl stop orch.socket orch", timeout_s=60)
    shown = machine.show("orch", "ActiveState", "Result", "ExecMainStatus")
    assert shown == {"ActiveState": "inactive", "Result": "success", "ExecMainStatus": "0"}
    assert machine.run("pgrep -u orch").stdout == ""
    machine.do(f"rm -r /run/systemd/system/orch.service.d {CONFIG}; systemctl daemon-reload")
    machine.do("systemctl start orch.socket orch")
    machine.do(f"{ORCH} up demo", timeout_s=60)


@pytest.mark.usefixtures("keyless")
def test_a_stop_lets_a_stream_end(machine: Machine) -> None:
    engine_pid(machine)
    client = machine.client([sys.executable, str(STREAM), LONG])
    assert client.stdout is not None
    assert client.stdout.readline().strip() == "200"
    machine.do("systemctl stop orch.service", timeout_s=60)
    outcome = json.loads(client.communicate(timeout=60)[0])
    assert outcome["last"] == "data: [DONE]"
    assert outcome["events"] > 900
    assert "draining demo@embedded" in machine.journal("orch")
    assert machine.show("orch", "Result", "ExecMainStatus") == {"Result": "success", "ExecMainStatus": "0"}
    machine.do("systemctl reset-failed orch; systemctl start orch")


def test_state_of_a_newer_orch_stops_the_service_once_and_is_left_alone(machine: Machine) -> None:
    engine_pid(machine)
    machine.do("systemctl stop orch.socket orch", timeout_s=60)
    machine.do(f'cp {STATE} /root/state.json; sed -i \'s/"version": *[0-9]*/"version": 99/\' {STATE}')
    before = machine.do(f"sha256sum {STATE}")
    machine.do("systemctl reset-failed orch")
    assert machine.run("systemctl start orch").returncode != 0
    shown = machine.show("orch", "ActiveState", "NRestarts", "ExecMainStatus")
    assert shown == {"ActiveState": "failed", "NRestarts": "0", "ExecMainStatus": "2"}
    journal = machine.journal("orch")
    assert f"{STATE} was written by a newer orch" in journal
    assert "version 99, this orch reads up to" in journal
    assert machine.do(f"sha256sum {STATE}") == before
    doctor = json.loads(machine.run(f"{ORCH} doctor --json").stdout)["findings"]
    assert {"state", "service"} == {each["what"] for each in doctor if each["level"] == "problem"}
    machine.do(f"cp /root/state.json {STATE}; systemctl reset-failed orch; systemctl start orch.socket orch")
    assert engine_pid(machine)


@pytest.mark.usefixtures("keyless")
def test_an_upgrade_under_load_refuses_no_connection(machine: Machine, tmp_path: Path) -> None:
    wheel = root.build_wheel(tmp_path, version="99.0.0")
    machine.put(wheel, "/root")
    write(machine, "/etc/orch/profiles/kept.toml", 'schema = 1\nmodel = "orch:demo"\nengine = "embedded"')
    machine.do(f"{ORCH} up kept", timeout_s=60)
    daemon, engine = daemon_pid(machine), engine_pid(machine)
    chat = CHAT.replace("demo", "kept")
    clients = [
        machine.client([sys.executable, str(CLIENT), "12", *words])
        for words in (["/health"], ["/v1/models"], ["/v1/chat/completions", chat])
    ]
    machine.do(f"/opt/orch/bin/pip install --quiet --no-index --no-deps /root/{wheel.name}", timeout_s=120)
    machine.do(f"kill -9 {engine}")  # the old daemon still works, on the new one's files
    # What waits for a model when the daemon ends is told to come again: here, nothing does.
    machine.succeeds(f"{ORCH} status --json | grep '\"ready\"' | grep -v '\"pid\": *{engine},'")
    assert daemon_pid(machine) == daemon
    restart(machine)
    outcomes = [json.loads(client.communicate(timeout=60)[0]) for client in clients]
    assert [set(each) for each in outcomes] == [{"200"}, {"200"}, {"200"}], outcomes
    status = json.loads(machine.succeeds(f'{ORCH} status --json | grep \'"state": *"ready"\''))
    assert (status["profile"], status["engine"]) == ("kept", "embedded")
    assert machine.do("orch --version").strip() == "orch 99.0.0"
    assert machine.show("orch", "NRestarts")["NRestarts"] == "0"


def test_a_removed_service_leaves_no_failed_unit(machine: Machine) -> None:
    write(machine, CONFIG, "bogus = 1")
    restart(machine, check=False)
    machine.do("orch service uninstall --system --purge", timeout_s=60)
    assert machine.do("systemctl list-units --all 'orch*' --no-legend").strip() == ""


def test_an_installation_that_fails_or_is_interrupted_leaves_nothing(machine: Machine) -> None:
    machine.do("mkdir -p /run/systemd/system/orch.service.d")
    machine.do("printf '[Service]\\nExecStartPre=false\\n' > /run/systemd/system/orch.service.d/broken.conf")
    done = machine.run("orch service install --system", timeout_s=120)
    assert done.returncode == 1
    assert "everything is as it was before" in done.stderr
    nothing_is_left(machine)
    machine.do("printf '[Service]\\nExecStartPre=sleep 20\\n' > /run/systemd/system/orch.service.d/broken.conf")
    machine.do("setsid orch service install --system > /root/install.log 2>&1 & echo $! > /root/install.pid")
    machine.succeeds("systemctl is-active orch | grep -q activating")
    machine.do("kill -HUP $(cat /root/install.pid)")
    machine.succeeds("! test -e /proc/$(cat /root/install.pid)")
    nothing_is_left(machine)
    machine.do("rm -r /run/systemd/system/orch.service.d")


def nothing_is_left(machine: Machine) -> None:
    assert machine.run("ls -d /etc/orch /var/lib/orch /etc/systemd/system/orch*").stdout == ""
    assert machine.run("id orch").returncode != 0
    assert machine.do("systemctl list-units --all 'orch*' --no-legend").strip() == ""


def test_an_odd_path_is_installed_from(machine: Machine) -> None:
    odd = "/opt/50%h-$USER"
    machine.do(f"mv /opt/orch '{odd}'; sed -i '1s|/opt/orch|{odd}|' '{odd}'/bin/orch*")
    machine.do(f"'{odd}/bin/orch' service install --system --profile demo", timeout_s=120)
    machine.do("systemctl reload orch")
    machine.do(f"'{odd}/bin/orch' doctor")
    machine.do(f"'{odd}/bin/orch' service uninstall --system --purge", timeout_s=60)
    assert machine.do("systemctl list-units --all 'orch*' --no-legend").strip() == ""
