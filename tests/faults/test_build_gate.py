"""The gate of a new build as a whole: a daemon, and fake engines whose speed is known, installed as builds."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor

import pytest

from orchestrator.adapters.paths import Paths, find_paths
from orchestrator.adapters.store.gates import GateRecord, GateStore
from orchestrator.bench.gate import BuildGate, last_profile
from orchestrator.cli.bench_shell import bench_shell
from orchestrator.core.errors import AlreadyRunningError
from orchestrator.engines.build.installs import Install
from tests.faults.lab import Lab
from tests.installed_builds import install_build
from tests.support import until

pytestmark = pytest.mark.timeout(300)


@pytest.fixture
def paths(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> Paths:
    """A profile that is served by the current build of `upstream`."""
    for name in ("ORCH_HOME", "PATH"):
        monkeypatch.setenv(name, lab.env[name])

    paths = find_paths({"ORCH_HOME": lab.root})
    lab.model("mine", {"tokens_s": 200.0}, engine="upstream")
    build(lab, paths, "old", current=True)
    return paths


def build(
    lab: Lab, paths: Paths, name: str, *, slow_by: float = 1.0, current: bool = False, wrapper: str = "exec {}"
) -> Install:
    script = lab.engine_script(name, "upstream", slow_by=slow_by, wrapper=wrapper)
    return install_build(paths, "upstream", name, script, current=current)


def judge(paths: Paths, new: Install) -> GateRecord:
    # A tolerance that a busy machine does not reach, and short answers.
    gate = BuildGate(paths, 0.25, False, lambda store: bench_shell(paths, store), lambda text: None, tokens=48)
    old = next(each for each in installed(paths) if each.current)
    return gate.run(new, old)


def installed(paths: Paths) -> tuple[Install, ...]:
    from orchestrator.engines.build import installs

    return installs.installed("upstream", paths)


def test_a_slower_build_is_refused_and_one_as_fast_is_accepted(lab: Lab, paths: Paths) -> None:
    lab.serve("mine")
    lab.ready("mine")
    slower, equal = build(lab, paths, "slower", slow_by=2.0), build(lab, paths, "equal")
    refused = judge(paths, slower)
    assert (refused.state, refused.profile, refused.against) == ("refused", "mine", "old")
    assert "too slow: -" in refused.reason and "with `mine` against old, -25 % is tolerated" in refused.reason
    accepted = judge(paths, equal)
    assert accepted.state == "accepted", accepted.reason
    assert serves(lab) == ("mine", "upstream", "ready")

    store = GateStore(paths.gates_file)
    assert [store.find("upstream", name) for name in ("slower", "equal")] != [None, None]
    report = lab.orch_json("bench", "show", str(refused.bench))
    assert (report["metric"], report["verdict"]) == ("turn", "a_faster")
    assert [each.current for each in installed(paths) if each.build == "old"] == [True], "a gate flips nothing"


def test_a_build_on_which_the_profile_does_not_start_is_refused(lab: Lab, paths: Paths) -> None:
    lab.serve("mine")
    lab.ready("mine")
    broken = build(lab, paths, "broken", wrapper='case " $* " in *" --port "*) exit 7;; esac; exec {}')
    refused = judge(paths, broken)
    assert refused.state == "refused"
    assert refused.reason.startswith("`mine` runs on the current build, and not on this one: mine@upstream@broken")
    assert lab.ready("mine")["engine"] == "upstream"


def test_a_build_that_is_not_current_can_be_started(lab: Lab, paths: Paths) -> None:
    new = build(lab, paths, "new")
    lab.serve()
    lab.orch("up", "mine", "--engine", "upstream@new")
    assert (lab.status()["engine"], lab.control("/v1/launch")["argv"][0]) == ("upstream@new", new.server)
    assert last_profile(paths, "upstream") == "mine"


def test_where_nothing_ran_on_the_engine_verification_alone_decides(lab: Lab, paths: Paths) -> None:
    assert last_profile(paths, "upstream") is None
    accepted = judge(paths, build(lab, paths, "equal"))
    assert (accepted.state, accepted.bench) == ("accepted", None)
    assert accepted.reason.endswith("its speed was not compared: no profile has run on this engine")
    assert not os.path.exists(paths.control_socket)


def test_where_the_profiles_model_is_gone_verification_alone_decides(lab: Lab, paths: Paths) -> None:
    lab.serve("mine")
    lab.ready("mine")
    lab.orch("down")
    os.unlink(os.path.join(lab.root, "mine.gguf"))
    accepted = judge(paths, build(lab, paths, "equal"))
    assert accepted.state == "accepted"
    assert "`mine` cannot be started" in accepted.reason or "does not run on the current build" in accepted.reason


def test_where_no_daemon_can_be_started_verification_alone_decides(lab: Lab, paths: Paths) -> None:
    lab.serve("mine")
    lab.ready("mine")
    lab.end()
    lab.configure("[gateway]\nhost = 7\n")
    new = build(lab, paths, "equal")
    gate = BuildGate(paths, 0.25, False, lambda store: bench_shell(paths, store), lambda text: None)
    accepted = gate.run(new, next(each for each in installed(paths) if each.current))
    assert accepted.state == "accepted"
    assert "its speed was not compared: no daemon could be started" in accepted.reason


def test_the_profile_is_the_one_that_ran_last_and_is_still_there(lab: Lab, paths: Paths) -> None:
    lab.model("other", {}, engine="upstream")
    lab.model("elsewhere", {})
    lab.serve("mine", "other")
    assert lab.ask("x", 4, model="mine").status == 200
    assert lab.ask("y", 4, model="elsewhere").status == 200
    lab.end()
    assert last_profile(paths, "upstream") in ("mine", "other")
    assert last_profile(paths, "fake-upstream") == "elsewhere"
    os.unlink(os.path.join(paths.profiles, "elsewhere.toml"))
    assert last_profile(paths, "fake-upstream") is None


def test_a_switch_by_a_person_meanwhile_stays_and_judges_nobody(lab: Lab, paths: Paths) -> None:
    lab.model("other")
    lab.serve("mine")
    lab.ready("mine")
    new = build(lab, paths, "equal")
    with ThreadPoolExecutor(1) as pool:
        judged = pool.submit(judge, paths, new)
        until(lambda: lab.status()["engine"] == "upstream@equal", "it is the new one's turn")
        lab.orch("switch", "other")
        record = judged.result()

    assert (record.state, record.bench) == ("undecided", None), record.reason
    assert "`orch switch other` meanwhile" in record.reason
    assert lab.ready("other")
    assert "`orch engines update upstream` goes on" in lab.orch("status").stdout


def test_a_daemon_that_is_killed_as_it_starts_the_new_build_refuses_nobody(lab: Lab, paths: Paths) -> None:
    lab.serve("mine")
    lab.ready("mine")
    lab.faults("mine", {"tokens_s": 200.0, "load_s": 0.5})
    new = build(lab, paths, "equal")
    with ThreadPoolExecutor(1) as pool:
        judged = pool.submit(judge, paths, new)
        until(lambda: serves(lab)[1:] == ("upstream@equal", "starting"), "the new one starts")
        assert lab.daemon is not None
        lab.daemon.kill()
        lab.daemon.wait()
        record = judged.result()

    assert record.state == "undecided", record.reason
    assert "it could not be judged: " in record.reason and "daemon" in record.reason
    assert [each.build for each in installed(paths) if each.current] == ["old"]
    lab.serve()
    until(lambda: serves(lab) == ("mine", "upstream", "ready"), "what served before serves again")
    assert "the daemon ended meanwhile; `orch engines update upstream` goes on" in lab.orch("status").stdout


def serves(lab: Lab) -> tuple[str, str, str]:
    status = lab.status()
    return status["profile"], status["engine"], status["state"]


def test_one_gate_at_a_time(lab: Lab, paths: Paths) -> None:
    new = build(lab, paths, "equal")
    with GateStore(paths.gates_file).lock(), pytest.raises(AlreadyRunningError, match="another new build"):
        judge(paths, new)
