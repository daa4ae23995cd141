"""A user's service on a real systemd, on a machine with control groups of version 2 alone, as most are."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from tests.systemd.conftest import Boot
from tests.systemd.machine import Machine

pytestmark = [pytest.mark.systemd, pytest.mark.timeout(240)]

MODELS = (
    "python3 -c \"import urllib.request as u; print(u.urlopen('http://127.0.0.1:8080/v1/models').read().decode())\""
)


@pytest.fixture(scope="module")
def machine(boot: Boot) -> Iterator[Machine]:
    """Installed by ada, who lingers; booted once more, and she has not logged in."""
    with boot(unified=True) as machine:
        machine.do("loginctl enable-linger ada")
        machine.succeeds("systemctl --user is-system-running | grep -qE 'running|degraded'", "ada")
        machine.do("orch service install --profile demo", "ada", timeout_s=120)

    with boot(unified=True) as machine:
        machine.succeeds("systemctl --user is-system-running | grep -qE 'running|degraded'", "ada")
        yield machine


def pids(machine: Machine) -> tuple[int, int]:
    """The daemon's and the engine's."""
    answer = json.loads(machine.succeeds('orch status --json | grep \'"state": *"ready"\'', "ada"))
    return int(answer["daemon_pid"]), int(answer["pid"])


def test_it_serves_after_a_boot_without_a_login(machine: Machine) -> None:
    machine.until("orch", "ActiveState", "active", user="ada")
    daemon, _ = pids(machine)
    assert "demo" in machine.do(MODELS)
    shown = machine.show("orch", "MainPID", "NRestarts", "StatusText", user="ada")
    assert (shown["MainPID"], shown["NRestarts"]) == (str(daemon), "0")
    assert "demo@embedded" in shown["StatusText"]


def test_the_engine_is_in_a_group_of_its_own(machine: Machine) -> None:
    daemon, engine = (machine.do(f"cat /proc/{pid}/cgroup").strip() for pid in pids(machine))
    assert daemon != engine
    assert "user@1000.service" in engine
    assert "/orch.service/" in engine


def test_a_killed_daemon_is_started_again_and_leaves_no_engine(machine: Machine) -> None:
    daemon, engine = pids(machine)
    machine.do(f"kill -9 {daemon}")
    machine.succeeds(f"test $(systemctl --user show -P MainPID orch) -gt 0 -a ! -e /proc/{daemon}", "ada")
    new_daemon, new_engine = pids(machine)
    assert (new_daemon, new_engine) != (daemon, engine)
    assert machine.run(f"test -e /proc/{engine}").returncode != 0


def test_its_commands_say_how_it_is(machine: Machine) -> None:
    pids(machine)
    answer = json.loads(machine.do("orch service status --json", "ada"))
    assert (answer["flavour"], answer["enabled"], answer["active"]) == ("user", True, "active")
    assert "orch.service" in machine.do("systemctl --user list-unit-files --state=enabled --no-legend", "ada")
    doctor = json.loads(machine.run("orch doctor --json", "ada").stdout)
    assert not [each for each in doctor["findings"] if each["level"] == "problem"], doctor


def test_uninstall_leaves_no_unit_and_no_process(machine: Machine) -> None:
    pids(machine)
    machine.do("orch service uninstall --purge", "ada", timeout_s=120)
    assert machine.run("find /home/ada -name '*orch*' -print").stdout == ""
    assert machine.run("pgrep -u ada -f 'orch|embedded'").stdout == ""
    assert machine.run("systemctl --user cat orch", "ada").returncode != 0


def test_init_installs_it_starts_a_profile_in_it_and_asks_that_something(machine: Machine) -> None:
    told = json.loads(machine.do("orch init --yes --service --json", "ada", timeout_s=180))
    assert told["service"] and told["profile"] == "demo" and told["answer"]["text"]
    assert machine.show("orch", "ActiveState", user="ada")["ActiveState"] == "active"
    again = machine.run("orch init --yes --service --json", "ada")
    assert again.returncode == 1 and "installed already" in again.stderr
    machine.do("orch service uninstall --purge", "ada", timeout_s=120)
