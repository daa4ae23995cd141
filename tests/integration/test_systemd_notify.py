"""What the daemon tells its service manager: scenarios 32, 34 and the reload of 33, against a manager of our own."""

from __future__ import annotations

import http.client
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.adapters.process.ports import free_port
from orchestrator.adapters.systemd.notify import VARIABLES
from tests.busy import in_time
from tests.faults.lab import QUICK, Lab, make_workshop, new_lab
from tests.integration.service_manager import Message, new_manager, python, serve_under
from tests.support import ORCH, PATIENCE_S, until

K_S = 2.0
"""What a busy machine may add."""

BAD_MODEL = "llama_model_load: error loading model: tensor 'token_embd.weight' data is not within the file bounds"


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> str:
    return make_workshop(str(tmp_path_factory.mktemp("workshop")))


@pytest.fixture
def lab(workshop: str) -> Iterator[Lab]:
    with new_lab(workshop) as lab:
        yield lab


# 34. The contract.


@pytest.mark.parametrize("kind", ["path", "abstract"])
def test_ready_is_said_once_when_clients_are_served_and_stopping_before_the_end(lab: Lab, kind: str) -> None:
    lab.env["ORCH_GATEWAY_PORT"] = str(port := free_port())
    answered = []

    def ask(message: Message) -> None:
        if "READY" in message:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE_S)
            began = time.monotonic()
            connection.request("GET", "/health")
            answered.append((connection.getresponse().status, in_time(time.monotonic() - began, 0.5)))
            connection.close()

    with new_manager(kind, ask) as manager:
        daemon = serve_under(lab, {"NOTIFY_SOCKET": manager.address})
        ready = manager.wait("READY")
        assert (ready["MAINPID"], ready["READY"]) == (str(daemon.pid), "1")
        assert f"http://127.0.0.1:{port}" in ready["STATUS"]
        lab.end()
        assert daemon.returncode == 0
        names = [name for message in manager.messages for name, _ in message.fields if name in ("READY", "STOPPING")]
        assert names == ["READY", "STOPPING"]
        assert answered == [(200, True)]
        assert {message.pid for message in manager.messages} == {daemon.pid}


def test_what_ran_before_is_on_its_way_when_ready_is_said(lab: Lab) -> None:
    lab.model("m", {"load_s": 1.0})
    with new_manager() as manager:
        serve_under(lab, {"NOTIFY_SOCKET": manager.address})
        manager.wait("READY")
        lab.up("m")
        lab.ready("m")
        lab.end()
        after = len(manager.messages)
        serve_under(lab, {"NOTIFY_SOCKET": manager.address})
        assert "m@fake-upstream" in manager.wait("READY", after=after)["STATUS"]
        lab.ask("r").check_complete(8)


def test_the_status_is_one_line_that_follows_the_load(lab: Lab) -> None:
    lab.model("m", {"load_s": 1.5})
    lab.model("broken", {"die_at": "load", "say": [BAD_MODEL]})
    with new_manager() as manager:
        serve_under(lab, {"NOTIFY_SOCKET": manager.address})
        assert manager.wait("STATUS", "no model is loaded")
        lab.up("m")
        manager.wait("STATUS", "loading m@fake-upstream")
        manager.wait("STATUS", "ready m@fake-upstream")
        lab.control("/v1/down", {})
        lab.state("stopped")
        lab.up("broken")
        manager.wait("STATUS", "broken@fake-upstream failed: ")
        said = manager.of("STATUS")
        assert all(name.isupper() and value for message in said for name, value in message.fields)
        gaps = [later.at - sooner.at for sooner, later in zip(said[1:], said[2:], strict=False)]
        assert all(gap > 0.5 for gap in gaps)


def test_a_start_that_a_client_asks_for_is_no_switch(lab: Lab) -> None:
    lab.model("m", {"load_s": 2.5})
    with new_manager() as manager:
        serve_under(lab, {"NOTIFY_SOCKET": manager.address})
        manager.wait("READY")
        lab.ask("r", model="m").check_complete(8)
        manager.wait("STATUS", "ready m@fake-upstream")
        said = [message["STATUS"] for message in manager.of("STATUS")]
        assert [line for line in said if line.startswith("loading m@fake-upstream")]
        assert [line for line in said if "switching" in line] == []


def test_children_see_nothing_of_what_the_manager_gave(lab: Lab) -> None:
    lab.model("m")
    with new_manager() as manager:
        env = {"NOTIFY_SOCKET": manager.address, "WATCHDOG_USEC": "9000000", "LISTEN_FDS": "0"}
        daemon = serve_under(lab, env, own_pid=("WATCHDOG_PID",))
        manager.wait("READY")
        lab.up("m")
        lab.ready("m")
        children = [pid for pid in lab.tagged() if pid != daemon.pid]
        guards = [int(pid) for pid in Path(f"/proc/{daemon.pid}/task/{daemon.pid}/children").read_text().split()]
        assert children and set(guards) - set(children)
        for pid in {*children, *guards}:
            given = {entry.partition("=")[0] for entry in Path(f"/proc/{pid}/environ").read_text().split("\0")}
            assert not given & {*VARIABLES, "CREDENTIALS_DIRECTORY"}


def test_a_daemon_that_orch_up_started_does_not_speak_for_the_service_that_ran_it(lab: Lab) -> None:
    lab.model("m")
    with new_manager() as manager:
        lab.env |= {"NOTIFY_SOCKET": manager.address, "WATCHDOG_USEC": "300000"}
        lab.orch("up", "m")
        daemon = int(lab.status()["daemon_pid"])
        given = {entry.partition("=")[0] for entry in Path(f"/proc/{daemon}/environ").read_text().split("\0")}
        lab.orch("down", "--all")
        until(lambda: not lab.tagged(), "it is gone")
        assert not given & set(VARIABLES)
        assert manager.messages == []


def test_a_manager_that_does_not_read_holds_nobody_up(lab: Lab) -> None:
    gate = {"open": False}

    def slow(message: Message) -> None:
        until(lambda: gate["open"], "the manager goes on")

    lab.model("m")
    with new_manager(on_message=slow) as manager:
        serve_under(lab, {"NOTIFY_SOCKET": manager.address, "WATCHDOG_USEC": "60000"})
        until(lab.answers, "the daemon answers")
        lab.up("m")
        lab.ready("m")
        lab.ask("r").check_complete(8)
        gate["open"] = True
        manager.wait("READY")
        manager.wait("STATUS", "ready m@fake-upstream")


# Time: `daemon.ready_when`, and a long drain.

SHORT = """
import sys
from orchestrator.daemon.process import main, manager_link
manager_link.EXTEND_S, manager_link.EXTEND_EVERY_S = 0.9, 0.3
sys.exit(__import__("orchestrator.cli.main").cli.main.main(["serve"]))
"""


def check_extended(messages: list[Message], until_at: float) -> None:
    """Each asked for time that had not run out when the next one came, up to that moment."""
    times = [(message.at, int(message["EXTEND_TIMEOUT_USEC"]) / 1e6) for message in messages]
    assert len(times) >= 3
    for (at, extends_s), later in zip(times, [*(at for at, _ in times[1:]), until_at], strict=True):
        assert later <= at + extends_s


def test_ready_can_mean_that_the_model_is_and_time_is_asked_for_until_then(lab: Lab) -> None:
    lab.configure('[daemon]\nready_when = "model"\ndefault_profile = "m"\n')
    lab.model("m", {"load_s": 2.0})
    with new_manager() as manager:
        serve_under(lab, {"NOTIFY_SOCKET": manager.address}, words=python(SHORT))
        ready = manager.wait("READY")
        assert "ready m@fake-upstream" in ready["STATUS"]
        check_extended(manager.of("EXTEND_TIMEOUT_USEC"), ready.at)
        assert lab.status()["state"] == "ready"


def test_without_a_model_to_load_ready_does_not_wait_for_one(lab: Lab) -> None:
    lab.configure('[daemon]\nready_when = "model"\n')
    with new_manager() as manager:
        serve_under(lab, {"NOTIFY_SOCKET": manager.address})
        manager.wait("READY")


@pytest.mark.parametrize("how", ["fails to load", "cannot be resolved"])
def test_a_model_that_does_not_come_up_is_a_start_that_failed(lab: Lab, how: str) -> None:
    lab.configure(QUICK.replace("[daemon]", '[daemon]\nready_when = "model"\ndefault_profile = "m"'))
    lab.model("m", {"die_at": "load", "say": [BAD_MODEL]})
    if how == "cannot be resolved":
        lab.profile("m", 'schema = 1\nmodel = "/nowhere.gguf"\nengine = "no-such-engine"\n')

    with new_manager() as manager:
        daemon = serve_under(lab, {"NOTIFY_SOCKET": manager.address})
        assert daemon.wait(PATIENCE_S) == 1
        assert "error: " in lab.daemon_log() and "ready_when" in lab.daemon_log()
        manager.wait("STOPPING")
        assert not manager.of("READY")


def test_a_stop_before_the_model_is_there_is_no_readiness(lab: Lab) -> None:
    lab.configure(QUICK.replace("[daemon]", '[daemon]\nready_when = "model"\ndefault_profile = "m"'))
    lab.model("m", {"load_s": 60.0})
    with new_manager() as manager:
        daemon = serve_under(lab, {"NOTIFY_SOCKET": manager.address})
        until(lambda: lab.starts("m"), "it is loading")
        daemon.send_signal(signal.SIGTERM)
        assert daemon.wait(PATIENCE_S) == 0
        manager.wait("STOPPING")
        assert not manager.of("READY")


def test_time_is_asked_for_while_a_stop_waits_for_running_requests(lab: Lab) -> None:
    lab.model("m", {"tokens_s": 20})
    with new_manager() as manager:
        daemon = serve_under(lab, {"NOTIFY_SOCKET": manager.address}, words=python(SHORT))
        manager.wait("READY")
        lab.up("m")
        lab.ready("m")
        stream = lab.begin_asking("s", 50, stream=True)
        until(lambda: lab.requests("m", "accepted"), "the stream runs")
        daemon.send_signal(signal.SIGTERM)
        stopping = manager.wait("STOPPING")
        assert daemon.wait(PATIENCE_S) == 0
        ended = time.monotonic()
        stream.result().check_complete(50)
        extended = manager.of("EXTEND_TIMEOUT_USEC")
        assert all(message.at >= stopping.at for message in extended)
        check_extended(extended, ended - K_S)


# 33. HUP.


def test_hup_is_a_reload_that_the_manager_sees_begin_and_end(lab: Lab) -> None:
    lab.model("m")
    with new_manager() as manager:
        daemon = serve_under(lab, {"NOTIFY_SOCKET": manager.address})
        manager.wait("READY")
        lab.up("m")
        pid = lab.ready("m")["pid"]
        sent, after = time.monotonic_ns() // 1000, len(manager.messages)
        daemon.send_signal(signal.SIGHUP)
        reloading = manager.wait("RELOADING", after=after)
        assert sent <= int(reloading["MONOTONIC_USEC"]) <= reloading.at * 1e6
        assert manager.wait("READY", after=after).at >= reloading.at
        assert lab.ready("m")["pid"] == pid  # its profile has not changed

        after = len(manager.messages)
        lab.model("m", more="[context]\nsize = 512\n")
        daemon.send_signal(signal.SIGHUP)
        manager.wait("READY", after=after)
        until(lambda: lab.ready("m")["pid"] != pid, "what has changed is started anew")
        assert lab.events("reloaded")


@pytest.mark.parametrize("what", ["profile", "configuration"])
def test_a_reload_that_fails_is_said_and_leaves_everything_as_it_was(lab: Lab, what: str) -> None:
    lab.model("m")
    with new_manager() as manager:
        daemon = serve_under(lab, {"NOTIFY_SOCKET": manager.address})
        manager.wait("READY")
        lab.up("m")
        pid = lab.ready("m")["pid"]
        if what == "profile":
            lab.profile("m", "schema = 1\nmodel = \n")
        else:
            lab.configure("[daemon]\ndrain = 3\n")

        after = len(manager.messages)
        daemon.send_signal(signal.SIGHUP)
        ready = manager.wait("READY", after=after)
        name = "m.toml:2" if what == "profile" else "orch.toml:2"
        assert "reload failed" in ready["STATUS"] and name in ready["STATUS"]
        assert "RELOADING" in manager.messages[after]
        assert name in lab.events("reload_failed")[0] and name in lab.daemon_log()
        assert lab.ready("m")["pid"] == pid
        lab.ask("r").check_complete(8)


def test_many_hups_at_once_leave_a_daemon_that_is_ready(lab: Lab) -> None:
    lab.model("m")
    with new_manager() as manager:
        daemon = serve_under(lab, {"NOTIFY_SOCKET": manager.address})
        manager.wait("READY")
        lab.up("m")
        pid = lab.ready("m")["pid"]
        for _ in range(50):
            daemon.send_signal(signal.SIGHUP)

        manager.wait("RELOADING")
        until(lambda: len(manager.of("READY")) == 1 + len(manager.of("RELOADING")), "each reload has ended")
        assert lab.ready("m")["pid"] == pid


# 32. The watchdog, and tasks that the daemon cannot do without.

PERIOD_S = 0.9


def watched(manager_address: str) -> dict[str, str]:
    return {"NOTIFY_SOCKET": manager_address, "WATCHDOG_USEC": str(round(PERIOD_S * 1e6))}


def test_the_watchdog_hears_at_least_twice_a_period(lab: Lab) -> None:
    lab.model("m", {"load_s": 1.0})
    with new_manager() as manager:
        serve_under(lab, watched(manager.address), own_pid=("WATCHDOG_PID",))
        manager.wait("READY")
        lab.up("m")
        lab.ready("m")
        pings = until(lambda: len(found := manager.of("WATCHDOG")) > 10 and found, "it is pinged")
        gaps = sorted(later.at - sooner.at for sooner, later in zip(pings, pings[1:], strict=False))
        assert gaps[len(gaps) // 2] <= PERIOD_S / 2


def test_a_watchdog_for_another_process_hears_nothing(lab: Lab) -> None:
    with new_manager() as manager:
        serve_under(lab, {**watched(manager.address), "WATCHDOG_PID": "1"})
        began = manager.wait("READY").at
        until(lambda: time.monotonic() > began + 2 * PERIOD_S, "two periods are over")
        assert not manager.of("WATCHDOG")


FAILPOINT = """
import asyncio, signal, sys, threading, time
import anyio, anyio.to_thread
from orchestrator.daemon.process import heartbeat, main

class Failing(main.Daemon):
    async def run(self, *listeners):
        asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, self.fail)
        await super().run(*listeners)

    def fail(self):
        {fail}

main.Daemon = Failing
{more}
sys.exit(__import__("orchestrator.cli.main").cli.main.main(["serve"]))
"""


def test_a_loop_that_is_blocked_is_silent_and_goes_on_when_it_can(lab: Lab) -> None:
    blocked_s = 3 * PERIOD_S
    with new_manager() as manager:
        code = FAILPOINT.format(fail=f"time.sleep({blocked_s})", more="")
        daemon = serve_under(lab, watched(manager.address), words=python(code))
        until(lambda: len(manager.of("WATCHDOG")) > 2, "it is pinged")
        daemon.send_signal(signal.SIGUSR1)
        silence = until(lambda: longest_silence(manager.of("WATCHDOG")) > 2 * PERIOD_S, "it was silent")
        assert silence
        assert daemon.poll() is None


def longest_silence(pings: list[Message]) -> float:
    return max((later.at - sooner.at for sooner, later in zip(pings, pings[1:], strict=False)), default=0.0)


def test_an_owner_that_takes_no_events_is_not_alive_though_the_loop_turns(lab: Lab) -> None:
    with new_manager() as manager:
        code = FAILPOINT.format(fail="self._owner._queue.get = asyncio.get_running_loop().create_future", more="")
        daemon = serve_under(lab, watched(manager.address), words=python(code))
        until(lambda: len(manager.of("WATCHDOG")) > 2, "it is pinged")
        daemon.send_signal(signal.SIGUSR1)
        until(lambda: "the owner has taken no event" in lab.daemon_log(), "it is noticed")
        said = len(manager.of("WATCHDOG"))
        since = time.monotonic()
        until(lambda: time.monotonic() > since + 2 * PERIOD_S, "two periods are over")
        assert len(manager.of("WATCHDOG")) == said
        assert lab.status()["state"] == "stopped"  # the loop turns, and answers
        daemon.kill()
        daemon.wait()


def test_sigabrt_leaves_the_stacks_in_the_log(lab: Lab) -> None:
    with new_manager() as manager:
        daemon = serve_under(lab, watched(manager.address))
        manager.wait("READY")
        daemon.send_signal(signal.SIGABRT)
        assert daemon.wait(PATIENCE_S) == -signal.SIGABRT
        assert "Fatal Python error: Aborted" in lab.daemon_log()
        assert re.search(r'File ".*/daemon/process/main.py"', lab.daemon_log())


TASKS = (
    "owner", "watcher", "slowdown watch", "telemetry", "demand", "state file", "signals", "reaper", "profiles",
    "reload", "gateway", "status line", "heartbeat",
)  # fmt: skip

DIES = """
told = None
start = heartbeat.CoreTasks.start

def failing(self, name, work, **options):
    global told
    async def dies():
        global told
        told = anyio.Event()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(work)
            await told.wait()
            raise AssertionError("the failpoint")
    start(self, name, dies if name == {task!r} else work, **options)

heartbeat.CoreTasks.start = failing
"""


@pytest.mark.parametrize("task", TASKS)
def test_a_daemon_without_one_of_its_tasks_ends_within_a_second_and_says_why(lab: Lab, task: str) -> None:
    lab.model("m")
    with new_manager() as manager:
        code = FAILPOINT.format(fail="told.set()", more=DIES.format(task=task))
        daemon = serve_under(lab, watched(manager.address), words=python(code))
        manager.wait("READY")
        lab.up("m")
        lab.ready("m")
        check_ends(lab, daemon)
        assert f"the task `{task}` died" in lab.daemon_log() and "AssertionError: the failpoint" in lab.daemon_log()


def test_the_end_is_not_held_up_by_a_thread_that_hangs(lab: Lab) -> None:
    hangs = "asyncio.ensure_future(anyio.to_thread.run_sync(time.sleep, 60)), self._owner.post('no event')"
    with new_manager() as manager:
        daemon = serve_under(lab, watched(manager.address), words=python(FAILPOINT.format(fail=hangs, more="")))
        manager.wait("READY")
        check_ends(lab, daemon)


def test_the_gateway_s_own_task_is_one_of_them(lab: Lab) -> None:
    fail = "__import__('orchestrator.gateway.hold').gateway.hold.Hold.release = None"
    with new_manager() as manager:
        daemon = serve_under(lab, watched(manager.address), words=python(FAILPOINT.format(fail=fail, more="")))
        manager.wait("READY")
        daemon.send_signal(signal.SIGUSR1)
        lab.model("new")  # listed within seconds: the view changes, and the gateway looks at it
        assert daemon.wait(PATIENCE_S) == 1
        assert "the task `gateway` died" in lab.daemon_log() and "Traceback" in lab.daemon_log()


def check_ends(lab: Lab, daemon: subprocess.Popen[bytes]) -> None:
    began = time.monotonic()
    daemon.send_signal(signal.SIGUSR1)
    assert daemon.wait(PATIENCE_S) == 1, lab.daemon_log()
    assert in_time(time.monotonic() - began, 1.0 + K_S)
    assert "Traceback" in lab.daemon_log()
    until(lambda: not lab.tagged(), "its engine is gone too")


# Keys, and the lock.

KEY = "sk-handed-over-by-the-manager"


def test_keys_that_the_manager_hands_over_are_asked_of_clients_and_shown_nowhere(lab: Lab, tmp_path: Path) -> None:
    keys = tmp_path / "orch-api-keys"
    keys.write_text(KEY + "\n")
    keys.chmod(0o440)  # what systemd's access list makes of 0400 for the service's own user
    lab.model("m")
    with new_manager() as manager:
        env = {"NOTIFY_SOCKET": manager.address, "CREDENTIALS_DIRECTORY": str(tmp_path)}
        daemon = serve_under(lab, env)
        manager.wait("READY")
        lab.up("m")
        lab.ready("m")
        assert lab.request("GET", "/v1/models")[0] == 401
        assert lab.request("GET", "/v1/models", headers={"authorization": f"Bearer {KEY}"})[0] == 200
        for pid in (daemon.pid, *lab.tagged()):
            for name in ("environ", "cmdline"):
                assert KEY.encode() not in Path(f"/proc/{pid}/{name}").read_bytes()

        assert KEY not in lab.daemon_log() and "other users may read" not in lab.daemon_log()
        assert all(KEY not in value for message in manager.messages for _, value in message.fields)


@pytest.mark.parametrize(
    ("path", "hint"), [("${CREDENTIALS_DIRECTORY}/keys", "LoadCredential="), ("/nowhere/keys", "/nowhere/keys")]
)
def test_a_key_file_that_is_not_there_is_a_mistake_in_the_configuration(lab: Lab, path: str, hint: str) -> None:
    lab.configure(f'[gateway]\napi_key_file = "{path}"\n')
    done = lab.orch("serve", check=False)
    assert done.returncode == 2
    assert "the key file cannot be read" in done.stderr and hint in done.stderr


def test_a_service_that_holds_the_lock_is_named_with_what_stops_it(lab: Lab) -> None:
    lab.serve()
    lock = Path(lab.root, "state", "daemon.lock")
    lock.write_text(lock.read_text().replace('"unit": null', '"unit": ["orch.service", "user"]'))
    done = subprocess.run([*ORCH, "serve"], env=lab.env, capture_output=True, text=True, timeout=PATIENCE_S)
    assert done.returncode == 5
    assert "the service orch.service" in done.stderr and "systemctl --user stop orch.service" in done.stderr
