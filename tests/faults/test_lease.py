"""Other targets are tried for a while: what served before serves again, whoever is killed or decides otherwise."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from typing import Any

import pytest

from orchestrator.adapters.store.state_file import load_state
from orchestrator.bench.daemon_link import DaemonLink
from orchestrator.bench.lease import LeaseEndedError
from orchestrator.core.errors import AlreadyRunningError, OrchError
from tests.faults.lab import Lab
from tests.faults.test_bench import QUICK, lab_of_two, profiles_left
from tests.support import until


def quiet(text: str) -> None:
    """Nobody looks at the progress."""


def link_of(lab: Lab) -> DaemonLink:
    return DaemonLink(lab.control_socket, quiet)


def lease_of(lab: Lab) -> Any:
    return lab.status()["lease"]


def serves(lab: Lab, profile: str) -> None:
    until(lambda: (lab.status()["profile"], lab.status()["state"]) == (profile, "ready"), f"{profile} serves")


def remembered(lab: Lab) -> dict[str, Any]:
    return load_state(os.path.join(lab.root, "state", "state.json"))[0]


def begin_bench(lab: Lab) -> subprocess.Popen[str]:
    """Begin a bench whose targets are both made for it, and wait until one of them is measured."""
    bench = lab.begin("bench", "slow+context.size=1024", "slow+context.size=2048", *QUICK)

    def measured() -> bool:
        assert bench.poll() is None, bench.communicate()
        return any(each["id"].startswith("bench-") for each in lab.control("/v1/requests")["requests"])

    until(measured, "it measures")
    assert str(lab.status()["profile"]).startswith("bench-")
    return bench


def test_after_a_bench_is_killed_what_served_serves_again_and_that_is_said(lab: Lab) -> None:
    lab_of_two(lab)
    bench = begin_bench(lab)
    held = lease_of(lab)
    assert (held["title"], held["state"], held["serves"]["profile"]) == ("bench 1", "held", "fast")
    assert "fast@fake-upstream serves again at its end" in lab.orch("status").stdout
    assert remembered(lab)["wanted"]["profile"] == "fast"
    bench.kill()
    bench.communicate()
    serves(lab, "fast")
    until(lambda: lease_of(lab)["state"] == "interrupted", "it is said")
    assert "bench 1: its process ended; `orch bench resume 1` goes on" in lab.orch("status").stdout
    assert lab.events("lease_interrupted") == [
        "bench 1 was interrupted: its process ended; `orch bench resume 1` goes on"
    ]
    until(lambda: profiles_left(lab) == [], "its profiles are removed")
    assert [row["state"] for row in json.loads(lab.orch("bench", "list", "--json").stdout)] == ["interrupted"]
    assert lab.ask("mine", 8).status == 200


def test_after_the_daemon_is_killed_the_next_one_starts_what_served_before(lab: Lab) -> None:
    lab_of_two(lab)
    bench = begin_bench(lab)
    assert lab.daemon is not None
    lab.daemon.kill()
    lab.daemon.wait()
    _, err = bench.communicate(timeout=60)
    assert bench.returncode == 1
    assert "the daemon has ended" in err or "no daemon" in err or "closed the connection" in err
    lab.serve()
    serves(lab, "fast")
    assert lease_of(lab)["cause"] == "the daemon ended meanwhile"
    assert lab.events("lease_interrupted")[-1].endswith("`orch bench resume 1` goes on")
    assert profiles_left(lab) == []


def test_profiles_of_a_bench_that_lives_are_not_swept_by_a_new_daemon(lab: Lab) -> None:
    lab_of_two(lab)
    bench = begin_bench(lab)
    bench.send_signal(signal.SIGSTOP)
    assert lab.daemon is not None
    lab.daemon.kill()
    lab.daemon.wait()
    lab.serve()
    serves(lab, "fast")
    assert profiles_left(lab) != []
    bench.send_signal(signal.SIGCONT)
    bench.communicate(timeout=60)
    assert profiles_left(lab) == []
    serves(lab, "fast")


def test_a_daemon_that_is_told_to_end_leaves_what_served_before_to_the_next(lab: Lab) -> None:
    lab_of_two(lab)
    link = link_of(lab)
    with pytest.raises(LeaseEndedError, match="the daemon"), link.lease("a trial"):
        link.switch("slow")
        lab.end()
        until(lambda: broken(link), "it is over")
        link.status()

    assert remembered(lab)["wanted"]["profile"] == "fast"
    lab.serve()
    serves(lab, "fast")
    assert lease_of(lab)["state"] == "interrupted"


def broken(link: DaemonLink) -> bool:
    try:
        link.status()
    except LeaseEndedError:
        return True
    except OrchError:
        return False

    return False


def test_what_is_interrupted_by_ctrl_c_restores_at_once(lab: Lab) -> None:
    lab_of_two(lab)
    bench = begin_bench(lab)
    bench.send_signal(signal.SIGINT)
    bench.communicate(timeout=60)
    assert bench.returncode == 130
    assert (lab.status()["profile"], lab.status()["state"], lease_of(lab)) == ("fast", "ready", None)
    assert lab.events("restored") == ["fast@fake-upstream serves again after bench 1"]


def test_ctrl_c_in_a_load_of_many_clients_sends_nothing_more(lab: Lab) -> None:
    lab_of_two(lab, slow=20.0)
    bench = lab.begin("bench", "load", "slow", "--clients", "8", "--tokens", "4096")
    until(lambda: len(lab.control("/v1/requests")["requests"]) >= 4, "they ask")
    bench.send_signal(signal.SIGINT)
    bench.communicate(timeout=60)
    assert bench.returncode == 130
    assert (lab.status()["profile"], lab.status()["state"]) == ("fast", "ready")
    assert [row["profile"] for row in lab.status()["instances"]] == ["fast"]


def test_a_switch_by_a_person_stays_and_breaks_the_bench_off(lab: Lab) -> None:
    lab_of_two(lab)
    lab.model("mine")
    bench = begin_bench(lab)
    lab.orch("switch", "mine")
    _, err = bench.communicate(timeout=60)
    assert bench.returncode == 1
    assert "bench 1 was broken off: `orch switch mine` meanwhile" in err
    assert "`orch bench resume 1` goes on" in err
    serves(lab, "mine")
    assert remembered(lab)["wanted"]["profile"] == "mine"
    assert lease_of(lab)["state"] == "interrupted"
    assert len(lab.starts("fast")) == 1
    assert [row["state"] for row in json.loads(lab.orch("bench", "list", "--json").stdout)] == ["interrupted"]


def test_a_stop_by_a_person_stays(lab: Lab) -> None:
    lab_of_two(lab)
    link = link_of(lab)
    with pytest.raises(LeaseEndedError, match="orch down"), link.lease("a trial"):
        link.switch("slow")
        lab.orch("down")
        until(lambda: broken(link), "it is over")
        link.switch("slow")

    lab.state("stopped")
    assert remembered(lab)["wanted"] is None


def test_a_switch_by_a_person_that_fails_returns_to_what_served_not_to_what_was_tried(lab: Lab) -> None:
    lab_of_two(lab)
    lab.model("broken", {"die_at": "load", "say": ["gguf_init_from_reader: invalid magic characters: 'oops'"]})
    link = link_of(lab)
    with pytest.raises(LeaseEndedError), link.lease("a trial"):
        link.switch("slow")
        assert lab.orch("switch", "broken", check=False).returncode != 0
        until(lambda: broken(link), "it is over")
        link.status()

    serves(lab, "fast")
    until(lambda: remembered(lab)["wanted"]["profile"] == "fast", "it is remembered")


def test_one_lease_at_a_time(lab: Lab) -> None:
    lab_of_two(lab)
    link = link_of(lab)
    with link.lease("a trial"):
        with pytest.raises(AlreadyRunningError, match="a trial runs"), link_of(lab).lease("another one"):
            pass

        link.switch("slow")
        serves(lab, "slow")

    serves(lab, "fast")
    assert lease_of(lab) is None


def test_a_lease_within_a_lease_ends_with_the_outer_one(lab: Lab) -> None:
    lab_of_two(lab)
    link = link_of(lab)
    with link.lease("a search"):
        with link.lease("a bench of it"):
            link.switch("slow")

        assert (lease_of(lab)["title"], lease_of(lab)["state"], lab.status()["profile"]) == ("a search", "held", "slow")

    assert (lab.status()["profile"], lab.status()["state"]) == ("fast", "ready")


def test_what_cannot_serve_again_is_said_and_nothing_else_is_left_running(lab: Lab) -> None:
    lab_of_two(lab)
    link = link_of(lab)
    path = os.path.join(lab.root, "config", "profiles", "fast.toml")
    with pytest.raises(OrchError, match="fast@fake-upstream does not serve again"), link.lease("a trial"):
        link.switch("slow")
        os.rename(path, f"{path}.aside")

    lab.state("stopped")
    assert lease_of(lab)["state"] == "failed"
    assert "`fast`" in lease_of(lab)["cause"]
    assert "fast@fake-upstream does not serve again" in lab.events("restore_failed")[0]
    os.rename(f"{path}.aside", path)
    lab.up("fast")
    serves(lab, "fast")
    assert lease_of(lab) is None


def test_nothing_ran_before_and_nothing_runs_after_it(lab: Lab) -> None:
    lab.model("slow")
    lab.serve()
    with link_of(lab).lease("a trial"):
        link = link_of(lab)
        with pytest.raises(OrchError, match="lease"):
            lab.control("/v1/switch", {"target": "slow", "lease": "made-up"})

        assert link.status()["profile"] is None

    link = link_of(lab)
    with link.lease("a trial"):
        link.switch("slow")

    lab.state("stopped")


def test_what_a_person_loads_and_pins_meanwhile_is_left_alone(lab: Lab) -> None:
    lab_of_two(lab)
    lab.model("beside")
    link = link_of(lab)
    with link.lease("a trial"):
        link.switch("slow")
        lab.orch("load", "beside")
        link.switch("slow")

    status = lab.status()
    assert {row["profile"]: (row["state"], row["focus"]) for row in status["instances"]} == {
        "fast": ("ready", True), "beside": ("ready", False),
    }  # fmt: skip
    assert len(lab.starts("beside")) == 1


def test_who_resumes_before_what_served_is_back_takes_over_what_is_owed(lab: Lab) -> None:
    lab_of_two(lab)
    bench = begin_bench(lab)
    lab.faults("fast", {"load_s": 600.0})
    bench.kill()
    bench.communicate()
    until(lambda: lease_of(lab)["state"] == "restoring", "it is on its way back")
    lab.faults("fast", {})
    link = link_of(lab)
    with link.lease("another one"):
        assert lease_of(lab)["serves"]["profile"] == "fast"
        link.switch("slow")

    serves(lab, "fast")


def test_a_daemon_that_was_started_for_a_bench_ends_when_that_is_killed(lab: Lab) -> None:
    lab.model("slow", {"tokens_s": 400.0})
    bench = lab.begin("bench", "slow", "slow+context.size=2048", *QUICK)
    until(lambda: lab.starts("slow"), "it runs")
    pid = lab.status()["daemon_pid"]
    bench.kill()
    bench.communicate()
    until(lambda: not os.path.exists(f"/proc/{pid}"), "the daemon ends")
    assert lab.tagged() == []
