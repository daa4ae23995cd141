"""Every call by which the daemon's own tasks reach outside fails, one after the other, in every way: it serves on.

A daemon is told by a file which call is to fail; the call then fails once in each way, and works again.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
from typing import Any

import pytest

from orchestrator.core.errors import OrchError
from tests.faults.lab import Lab
from tests.faults.test_host import serve_as
from tests.support import PATIENCE_S, until

PROGRAM = """
import importlib, os, sys
home = os.environ["ORCH_HOME"]
ERRORS = (
    OSError(28, "No space left on device"),
    RuntimeError("can't start new thread"),
    ValueError("nobody expected it"),
    UnicodeDecodeError("utf-8", b"\\xff", 0, 1, "invalid start byte"),
    RecursionError("nested too deeply"),
)
left = {}

def armed(point):
    if point not in left:
        if not os.path.exists(os.path.join(home, "fail-" + point)):
            return None
        left[point] = list(ERRORS)
    if left[point]:
        return left[point].pop(0)
    with open(os.path.join(home, "failed-" + point), "w"):
        return None

def patch(point):
    module, _, name = point.partition(":")
    owner = importlib.import_module(module)
    *path, name = name.split(".")
    for each in path:
        owner = getattr(owner, each)
    before = getattr(owner, name)
    def failing(*args, **kwargs):
        error = armed(point)
        if error is not None:
            raise error
        return before(*args, **kwargs)
    setattr(owner, name, failing)

from orchestrator.daemon.process import daemon, desired_target, heartbeat, main
from orchestrator.daemon.fleet import model_list
from orchestrator.daemon.telemetry import cold_read_watch, telemetry
cold_read_watch.LOOK_S = cold_read_watch.IDLE_S = cold_read_watch.CACHE_S = 0.1
daemon.REAP_EVERY_S = telemetry.SECOND_S = 0.1
heartbeat.AGAIN_S = heartbeat.MOST_AGAIN_S = 0.05
desired_target.SAVE_AGAIN_S = 0.1
model_list.LOOK_FOR_PROFILES_S = 0.2
for point in sys.argv[1:]:
    patch(point)
sys.exit(main.serve(main.StartOptions()))
"""

D = "orchestrator.daemon."
REGULAR = (
    f"{D}process.daemon:reap_adopted",
    f"{D}telemetry.telemetry:read_host",
    f"{D}telemetry.slowdown_watch:look_at_cpu",
    f"{D}telemetry.cold_read_watch:process_reads",
    f"{D}telemetry.cold_read_watch:residency_of",
    f"{D}fleet.engine_run:EngineRun.stopped",
    f"{D}fleet.model_list:ModelList._stamps",
    "orchestrator.adapters.engine_probe:EngineProbe.health",
)
"""Asked again and again without anybody's doing."""

ASKED = (
    f"{D}process.desired_target:save_state",
    f"{D}fleet.preparing:Preparer.resolve",
    f"{D}fleet.preparing:Preparer.resolve_text",
    f"{D}fleet.preparing:Preparer.changes",
    f"{D}fleet.preparing:make_key",
    f"{D}fleet.preparing:free_port",
    f"{D}fleet.switcher:available_memory_bytes",
    f"{D}fleet.effect_runner:watch_loading",
    f"{D}fleet.effect_runner:send_canary",
    f"{D}fleet.effect_runner:spawn",
    f"{D}control.status:StatusBuilder.status",
)
"""Asked when somebody wants something."""


def poke(lab: Lab, target: str, body: dict[str, Any] | None = None) -> Any:
    """Ask for something that may fail, as long as there is an answer; None when it did."""
    with contextlib.suppress(OrchError):
        return lab.control(target, body)


def at_rest(status: Any) -> bool:
    """Nothing is on its way that a switch would take the place of."""
    return status is not None and not status["switching"] and status["state"] in ("ready", "failed", "stopped")


@pytest.mark.timeout(600)
def test_the_daemon_outlives_every_call_that_fails(lab: Lab) -> None:
    lab.configure(
        "[daemon]\nstop_grace_s = 1.0\nprobe_s = 0.2\n"
        "[restart]\nfirst_delay_s = 0.05\nmax_delay_s = 0.1\nintensity = 100\ncooldown_s = 0.2\n"
    )
    lab.model("a")
    lab.model("b")
    daemon = serve_as(lab, sys.executable, "-c", PROGRAM, *REGULAR, *ASKED)
    lab.up("a")
    lab.ready("a")
    number = 0
    for point in (*REGULAR, *ASKED):
        lab.write(f"fail-{point}", "")
        deadline = time.monotonic() + PATIENCE_S
        while not os.path.exists(os.path.join(lab.root, f"failed-{point}")):
            assert daemon.poll() is None, (point, lab.daemon_log()[-3000:])
            assert time.monotonic() < deadline, f"{point} was not asked often enough"
            poke(lab, "/v1/frame")
            if at_rest(poke(lab, "/v1/status")) and point in ASKED:
                number += 1
                poke(lab, "/v1/switch", {"target": "b" if number % 2 else "a", "now": True})

            time.sleep(0.05)

        poke(lab, "/v1/up", {"profile": "a"})
        lab.ready("a")
        assert lab.ask(f"after-{number}-{point[-8:]}", 2).status == 200, point

    assert daemon.poll() is None
    log = lab.daemon_log()
    for text in ("No space left on device", "can't start new thread", "nobody expected it", "nested too deeply"):
        assert text in log

    until(lambda: lab.events("task_failed"), "it is said")
    assert lab.events("effect_failed") and lab.events("request_failed")
