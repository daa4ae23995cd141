"""A user's service on a real systemd, on a machine with control groups of version 2 alone, as most are."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator

import pytest

from tests.systemd.conftest import Boot
from tests.systemd.machine import Machine

pytestmark = [pytest.mark.systemd, pytest.mark.timeout(240)]

A_BUILD = """\
from pathlib import Path
from orchestrator.adapters.paths import find_paths
from orchestrator.engines.build import installs
root = Path(installs.root_of("upstream", find_paths()), "b1-cpu")
(root / "bin").mkdir(parents=True)
(root / "bin" / "llama-server").write_text("no program: nothing starts it")
files, links, size = installs.describe(str(root))
source = {"kind": "git", "url": "https://github.com/ggml-org/llama.cpp", "branch": None, "commit": "0" * 40}
facts = {"version": "b1", "backend": "cpu", "source": source, "built_at": "2026-01-01T00:00:00Z"}
installs.write_manifest(str(root), {**facts, "files": files, "links": links, "size_bytes": size})
installs.make_current("upstream", "b1-cpu", find_paths())
"""
"""A build that orch has made from a source on the network, which there is none of in the machine."""

MODELS = (
    "python3 -c \"import urllib.request as u; print(u.urlopen('http://127.0.0.1:8080/v1/models').read().decode())\""
)


@pytest.fixture(scope="module")
def machine(boot: Boot) -> Iterator[Machine]:
    """Installed by ada, who lingers; booted once more, and she has not logged in."""
    with boot(unified=True) as machine:
        machine.do("loginctl enable-linger ada")
        machine.succeeds("systemctl --user is-system-running | grep -qE 'running|degraded'", "ada")
        machine.do("orch service install --profile demo --watch", "ada", timeout_s=120)

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


def test_the_watch_is_at_night_and_what_it_could_not_ask_is_told_by_the_daemon(machine: Machine) -> None:
    timer = machine.show("orch-watch.timer", "ActiveState", "UnitFileState", "NextElapseUSecRealtime", user="ada")
    assert (timer["ActiveState"], timer["UnitFileState"]) == ("active", "enabled")
    assert re.search(r" (03:[345]|04:[0123])\d:", timer["NextElapseUSecRealtime"]), timer

    machine.do("systemctl --user start orch-watch.service", "ada")
    assert machine.show("orch-watch.service", "Result", user="ada") == {"Result": "success"}, (
        "there is nothing to watch"
    )

    daemon, engine = pids(machine)
    machine.do(f"/opt/orch/bin/python -c {shlex.quote(A_BUILD)}", "ada")
    assert machine.run("systemctl --user start orch-watch.service", "ada").returncode != 0
    shown = machine.show("orch-watch.service", "Result", "ExecMainStatus", user="ada")
    assert shown == {"Result": "exit-code", "ExecMainStatus": "1"}, machine.journal("orch-watch", "ada")
    assert "upstream b1-cpu stays current: it is not known what is newer" in machine.journal("orch-watch", "ada")
    rows = map(json.loads, machine.do("orch events --json", "ada").splitlines())
    [told] = [row["message"] for row in rows if row["kind"] == "engine_build"]
    assert told.startswith("upstream b1-cpu stays current: it is not known what is newer")
    assert pids(machine) == (daemon, engine), "the service ran on meanwhile"
    machine.do("rm -r ~/.local/share/orch/engines/upstream", "ada")


def test_uninstall_leaves_no_unit_and_no_process(machine: Machine) -> None:
    pids(machine)
    machine.do("orch service uninstall --purge", "ada", timeout_s=120)
    assert machine.run("find /home/ada -name '*orch*' -print").stdout == ""
    assert machine.run("pgrep -u ada -f 'orch|embedded'").stdout == ""
    for unit in ("orch", "orch-watch.service", "orch-watch.timer"):
        assert machine.run(f"systemctl --user cat {unit}", "ada").returncode != 0, unit


def test_init_installs_it_starts_a_profile_in_it_and_asks_that_something(machine: Machine) -> None:
    told = json.loads(machine.do("orch init --yes --service --json", "ada", timeout_s=180))
    assert told["service"] and told["profile"] == "demo" and told["answer"]["text"]
    assert machine.show("orch", "ActiveState", user="ada")["ActiveState"] == "active"
    again = machine.run("orch init --yes --service --json", "ada")
    assert again.returncode == 1 and "installed already" in again.stderr
    machine.do("orch service uninstall --purge", "ada", timeout_s=120)
