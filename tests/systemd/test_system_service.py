"""The system service on a real systemd: from the first start to nothing left."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.systemd.conftest import Boot
from tests.systemd.machine import Machine

pytestmark = [pytest.mark.systemd, pytest.mark.timeout(240)]

ORCH = "runuser -u orch -- /opt/orch/bin/orch"
CLIENT = Path(__file__).with_name("client.py")
CHAT = json.dumps({"model": "demo", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 8})
ANSWER = (
    "python3 -c \"import sys, json, urllib.request as u; r = u.Request('http://127.0.0.1:8080/v1/chat/completions', "
    "sys.argv[1].encode(), {'content-type': 'application/json'}); "
    "print(json.load(u.urlopen(r, timeout=60))['choices'][0]['message']['content'])\" "
    f"'{CHAT}'"
)
PROFILE = """schema = 1
model = "orch:demo"
engine = "embedded"
[context]
size = 2048
"""


@pytest.fixture(scope="module")
def machine(boot: Boot) -> Iterator[Machine]:
    """Installed with its socket, booted once more, and nobody has logged in."""
    with boot() as machine:
        machine.do("orch service install --system --profile demo --socket", timeout_s=120)

    with boot() as machine:
        yield machine


def daemon_pid(machine: Machine) -> int:
    return int(machine.show("orch", "MainPID")["MainPID"])


def engine_pid(machine: Machine) -> int:
    answer = machine.succeeds(f'{ORCH} status --json | grep \'"state": *"ready"\'')
    return int(json.loads(answer)["pid"])


def alive(machine: Machine, pid: int) -> bool:
    return machine.run(f"test -e /proc/{pid}").returncode == 0


def test_it_serves_after_a_boot_without_a_login(machine: Machine) -> None:
    machine.until("orch", "ActiveState", "active")
    assert machine.succeeds(ANSWER).strip()
    shown = machine.show("orch", "Type", "StatusText", "NRestarts", "Result")
    assert shown["NRestarts"] == "0"
    assert "demo@embedded" in shown["StatusText"]


def test_its_processes_are_the_service_users_and_confined(machine: Machine) -> None:
    for pid in (daemon_pid(machine), engine_pid(machine)):
        text = machine.do(f"cat /proc/{pid}/status")
        fields = dict(line.split(":\t", 1) for line in text.splitlines() if ":\t" in line)
        assert fields["Uid"].split()[0] == machine.do("id -u orch").strip()
        assert (fields["NoNewPrivs"], int(fields["CapEff"], 16)) == ("1", 0)


def test_no_child_has_the_variables_of_the_service_manager(machine: Machine) -> None:
    names = machine.do(f"tr '\\0' '\\n' < /proc/{engine_pid(machine)}/environ").splitlines()
    assert not [each for each in names if each.startswith(("NOTIFY_SOCKET", "WATCHDOG_", "LISTEN_", "CREDENTIALS_"))]


def test_the_engine_is_in_a_group_of_its_own(machine: Machine) -> None:
    daemon = machine.do(f"grep ^0: /proc/{daemon_pid(machine)}/cgroup").strip()
    engine = machine.do(f"grep ^0: /proc/{engine_pid(machine)}/cgroup").strip()
    assert daemon != engine
    assert "orch.service" in engine


def test_a_killed_engine_is_started_again(machine: Machine) -> None:
    pid, daemon = engine_pid(machine), daemon_pid(machine)
    machine.do(f"kill -9 {pid}")
    assert machine.succeeds(ANSWER).strip()
    assert engine_pid(machine) != pid
    assert daemon_pid(machine) == daemon


def test_a_killed_daemon_is_started_again_and_leaves_no_engine(machine: Machine) -> None:
    engine, daemon = engine_pid(machine), daemon_pid(machine)
    machine.do(f"kill -9 {daemon}")
    machine.until("orch", "ActiveState", "active")
    assert machine.succeeds(ANSWER).strip()
    assert daemon_pid(machine) != daemon
    assert not alive(machine, engine)


def test_a_daemon_that_hangs_is_ended_by_the_watchdog_with_its_stacks_in_the_journal(machine: Machine) -> None:
    machine.do("mkdir -p /run/systemd/system/orch.service.d")
    machine.do("printf '[Service]\\nWatchdogSec=4\\n' > /run/systemd/system/orch.service.d/watchdog.conf")
    machine.do("systemctl daemon-reload; systemctl restart orch", timeout_s=120)
    try:
        pid, engine = daemon_pid(machine), engine_pid(machine)
        machine.do(f"kill -STOP {pid}")
        # A stopped process takes no SIGABRT; the stacks are those of one that is only stuck, so it goes on at once.
        machine.succeeds("journalctl --no-pager -u orch | grep -q 'Watchdog timeout'")
        machine.run(f"kill -CONT {pid}")
        machine.succeeds(f"test $(systemctl show -P MainPID orch) -ne {pid} -a $(systemctl show -P MainPID orch) -ne 0")
        machine.until("orch", "ActiveState", "active")
        assert machine.succeeds(ANSWER).strip()
        assert not alive(machine, engine)
        assert "most recent call first" in machine.do("journalctl --no-pager -o cat -u orch")
    finally:
        machine.do(
            "rm -r /run/systemd/system/orch.service.d; systemctl daemon-reload; systemctl restart orch", timeout_s=120
        )


def test_reload_takes_up_a_changed_profile(machine: Machine) -> None:
    before, daemon = engine_pid(machine), daemon_pid(machine)
    machine.do("install -o orch -g orch -m 600 /dev/stdin /etc/orch/profiles/demo.toml <<< '" + PROFILE + "'")
    machine.do("systemctl reload orch", timeout_s=120)
    machine.succeeds(f"{ORCH} status --json | grep -q '\"ready\"' && ! test -e /proc/{before}")
    assert "--ctx-size\x002048" in machine.do(f"cat /proc/{engine_pid(machine)}/cmdline")
    assert daemon_pid(machine) == daemon


def test_a_restart_under_load_refuses_no_connection(machine: Machine) -> None:
    assert machine.succeeds(ANSWER).strip()
    clients = [
        machine.client([sys.executable, str(CLIENT), "15", *words])
        for words in (["/health"], ["/v1/models"], ["/v1/chat/completions", CHAT])
    ]
    for _ in range(3):
        machine.do("systemctl reset-failed orch; systemctl restart orch", timeout_s=120)  # StartLimitBurst counts these
        assert machine.succeeds(ANSWER).strip()  # what is held when the daemon ends is told to come again

    outcomes = [json.loads(client.communicate(timeout=120)[0]) for client in clients]
    assert [set(each) for each in outcomes] == [{"200"}, {"200"}, {"200"}], outcomes


def test_a_stop_leaves_no_process_and_no_socket(machine: Machine) -> None:
    engine_pid(machine)
    machine.do("systemctl stop orch.socket orch", timeout_s=120)
    shown = machine.show("orch", "ActiveState", "Result", "ExecMainStatus")
    assert shown == {"ActiveState": "inactive", "Result": "success", "ExecMainStatus": "0"}
    assert machine.run("pgrep -u orch").stdout == ""
    assert machine.run("test -e /run/orch/control.sock").returncode != 0
    machine.do("systemctl start orch.socket orch", timeout_s=120)


def test_uninstall_leaves_nothing(machine: Machine) -> None:
    machine.do("orch service uninstall --system --purge", timeout_s=120)
    elsewhere = " ".join(f"-path {each} -prune -o" for each in ("/opt", "/root", "/proc", "/var/log/journal"))
    assert machine.run(f"find / -xdev {elsewhere} -name '*orch*' -print").stdout == ""
    assert machine.run("id orch").returncode != 0
    assert machine.run("pgrep -f 'orch serve'").stdout == ""
    assert machine.do("systemctl list-units --all 'orch*' --no-legend").strip() == ""
