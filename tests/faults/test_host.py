"""What the host and its parts do to the daemon: scenarios 19, 32, 44, 50 and 52."""

from __future__ import annotations

import ast
import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from orchestrator.adapters.process.linux import stat_of
from orchestrator.adapters.process.ports import HOST, free_port
from orchestrator.engines.known.model import write_known_model
from tests.busy import in_time
from tests.faults.lab import QUICK, ROOT, Lab
from tests.support import ORCH, Home, new_home, until

# 19. Many ports, one after the other.

CYCLES = 60
CUT = 200
LOW = 20_000 + os.getpid() % 50 * (CUT + 20)
HIGH = LOW + CUT + 19
"""Hardly more ports than connections that are cut: each stays taken for a minute, for another run of the tests too."""


@pytest.mark.timeout(180)
def test_sixty_starts_and_stops_with_connections_cut_meet_no_port_that_is_taken(lab: Lab) -> None:
    lab.configure(QUICK.replace("drain_s = 5.0", "drain_s = 0.0"))
    lab.run("m", faults={"tokens_s": 50}, more="[context]\nparallel = 4\n")
    for cycle in range(CYCLES):
        cut = [lab.begin_asking(f"{cycle}-{index}", 5000, stream=True) for index in range(2)]
        until(lambda: len(lab.requests("m", "accepted")) == 2 * (cycle + 1), "the streams have begun")  # noqa: B023
        lab.control("/v1/down", {"force": True})
        lab.state("stopped")
        for each in cut:
            assert b":4999" not in each.result().body  # cut, or refused before its first token

        lab.up("m")
        assert [attempt["outcome"] for attempt in lab.ready("m")["attempts"]] == ["ready"]

    assert len(lab.starts("m")) == CYCLES + 1
    lab.ask("last").check_complete(8)


def test_a_port_whose_connections_were_cut_is_not_given_out_until_it_can_be_bound() -> None:
    given = []
    for _ in range(CUT):
        given.append(free_port(low=LOW, high=HIGH))
        with socket.socket() as server, socket.socket() as client:
            server.bind((HOST, given[-1]))  # as an engine without SO_REUSEADDR does
            server.listen()
            client.connect((HOST, given[-1]))
            server.accept()[0].close()
            assert client.recv(1) == b""

    assert len(set(given)) == CUT


# 32. A task that the daemon cannot do without dies.

FAILPOINT = """
import asyncio, signal, sys
from orchestrator.daemon.process import main

class Failing(main.Daemon):
    async def run(self, *sockets):
        asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, lambda: self._owner.post("no event"))
        await super().run(*sockets)

main.Daemon = Failing
sys.exit(main.serve(main.StartOptions()))
"""


def serve_as(lab: Lab, *words: str) -> subprocess.Popen[bytes]:
    """Start the daemon by a command of one's own."""
    with open(os.path.join(lab.root, "daemon.log"), "ab") as log:
        lab.daemon = subprocess.Popen(words, env=lab.env, cwd=ROOT, stdout=log, stderr=log)

    until(lab.answers, "the daemon answers")
    lab.take_baseline()
    return lab.daemon


def test_a_daemon_whose_core_task_died_ends_at_once_and_says_why(lab: Lab) -> None:
    lab.model("m")
    daemon = serve_as(lab, sys.executable, "-c", FAILPOINT)
    lab.up("m")
    engine = lab.ready("m")["pid"]
    began = time.monotonic()
    daemon.send_signal(signal.SIGUSR1)
    assert daemon.wait(10) not in (0, -signal.SIGUSR1)
    assert in_time(time.monotonic() - began, 3.0)
    assert "Traceback" in lab.daemon_log() and "in step_fleet" in lab.daemon_log()
    until(lambda: stat_of(engine) is None, "its engine is gone too")


# 44. Descriptors run out.

DESCRIPTORS = 256
CLIENTS = 300


def test_clients_beyond_what_the_descriptors_are_enough_for_are_closed_and_nobody_else_suffers(lab: Lab) -> None:
    lab.model("m", {"tokens_s": 40}, more="[context]\nparallel = 4\n")
    daemon = serve_as(lab, "sh", "-c", f'ulimit -n {DESCRIPTORS}; exec "$@"', "sh", *ORCH, "serve")
    lab.up("m")
    lab.ready("m")
    stream = lab.begin_asking("s", 120, stream=True)
    until(lambda: lab.requests("m", "accepted"), "the stream has begun")
    address = urlsplit(lab.url)
    with contextlib.ExitStack() as stack:
        for _ in range(CLIENTS):
            stack.enter_context(socket.create_connection((address.hostname, address.port), timeout=5))

        began, spent_s = time.monotonic(), processor_s(daemon.pid)
        while not stream.done:
            assert lab.status()["state"] == "ready"
            assert len(os.listdir(f"/proc/{daemon.pid}/fd")) < DESCRIPTORS - 50
            time.sleep(0.1)

        stream.result().check_complete(120)
        assert processor_s(daemon.pid) - spent_s < 0.5 * (time.monotonic() - began)
        os.kill(lab.status()["pid"], signal.SIGKILL)
        until(lambda: len(lab.starts("m")) == 2, "an engine can be started")
        lab.ready("m")

    until(lambda: lab.ask("after").status == 200, "there is room again")


def processor_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


# 50. A clock that jumps.

WALL_CLOCK = {
    ("adapters/http1/wire.py", "time"): "the Date header",
    ("adapters/store/gates.py", "now"): "the date of a gate",
    ("adapters/store/lock.py", "time"): "tells a person since when the lock is held",
    ("adapters/store/lock.py", "gmtime"): "the same",
    ("adapters/store/verifications.py", "now"): "the date of a verification",
    ("bench/session.py", "time"): "the date of a bench",
    ("bench/single.py", "time"): "the date of a measurement, kept beyond this process",
    ("bench/running.py", "time"): "the date of a block, kept beyond this process",
    ("bench/gate.py", "time"): "the date of a gate's bench",
    ("bench/tuning.py", "time"): "the date of a tuning, and since when the user's own requests count",
    ("cli/cost_report.py", "time"): "until when the use of a card is counted",
    ("cli/engine_builds/news.py", "now"): "the age of a build",
    ("cli/engine_builds/watching.py", "now"): "the date of a look for newer builds",
    ("cli/operate/stats.py", "time"): "from which row of the history on",
    ("doctor/measure.py", "now"): "the date of a measurement, kept beyond this process",
    ("engines/build/install.py", "now"): "the date of a build",
    ("engines/registry.py", "now"): "the date beside an engine that was added",
    ("daemon/control/event_log.py", "now"): "the time of an event",
    ("daemon/fleet/preparing.py", "now"): "the date beside a margin that was learned",
    ("daemon/fleet/model_list.py", "time"): "`created` of the models",
    ("daemon/process/daemon.py", "time"): "turns monotonic times into dates, once",
    ("daemon/telemetry/ledger.py", "time"): "the date of a request in the history",
    ("daemon/telemetry/speed_book.py", "now"): "the date of a speed that was measured",
    ("daemon/telemetry/telemetry.py", "time"): "the time of a point, which the history keeps beyond this daemon",
    ("daemon/telemetry/telemetry.py", "clock_gettime"): "CLOCK_BOOTTIME, to see that the machine slept; it never jumps",
    ("daemon/fleet/log_marks.py", "now"): "the time of a mark in an engine's log",
    ("daemon/fleet/exits.py", "now"): "the same",
    ("gateway/server.py", "time"): "turns monotonic times into dates in the list of requests",
    ("gateway/manage/serving.py", "time"): "turns monotonic times into dates in the list of activity",
    ("gateway/errors.py", "time"): "`created_at` of an error",
}
"""Where a date is meant, and what for. Everything else counts with a clock that does not jump."""


READS_THE_WALL = ("time", "time_ns", "localtime", "gmtime", "clock_gettime", "clock_gettime_ns")


def wall_clock_calls(source: str) -> set[str]:
    """Names of the functions called that read the clock on the wall."""
    tree = ast.parse(source)
    imported = [
        (getattr(node, "module", None), alias.name, alias.asname or alias.name)
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in node.names
    ]
    bare = {shown for module, name, shown in imported if module == "time" and name in READS_THE_WALL}
    modules = {shown for module, name, shown in imported if module is None and name == "time"}
    called = set()
    for node in ast.walk(tree):
        match node:
            case ast.Call(func=ast.Name(id=name)) if name in bare:
                called.add(name)
            case ast.Call(func=ast.Attribute(value=ast.Name(id=module), attr=name)) if (
                module in modules and name in READS_THE_WALL
            ):
                called.add(name)
            case ast.Call(func=ast.Attribute(attr="now" | "utcnow" | "today" as name)):
                called.add(name)

    return called


def test_no_timer_uses_the_clock_on_the_wall() -> None:
    package = Path(ROOT, "orchestrator")
    found = {
        (str(path.relative_to(package)), name)
        for path in package.rglob("*.py")
        for name in wall_clock_calls(path.read_text())
    }
    assert found == set(WALL_CLOCK)


def test_the_look_for_clocks_finds_them() -> None:
    assert wall_clock_calls("import time\ntime.time()\ntime.monotonic()") == {"time"}
    assert wall_clock_calls("import time as clock\nclock.time_ns()\nclock.monotonic()") == {"time_ns"}
    assert wall_clock_calls("from time import monotonic, time as now_s\nnow_s() - monotonic()") == {"now_s"}
    assert wall_clock_calls("from datetime import UTC, datetime\ndatetime.now(UTC)") == {"now"}


CLOCK = r"""
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static long shift_s(void) {
    char text[32] = {0};
    int error = errno, file = open(getenv("CLOCK_SHIFT"), O_RDONLY | O_CLOEXEC);
    if (file >= 0) {
        if (read(file, text, sizeof text - 1) < 0) text[0] = 0;
        close(file);
    }
    errno = error;
    return atol(text);
}

int clock_gettime(clockid_t clock, struct timespec *now) {
    long failed = syscall(SYS_clock_gettime, clock, now);
    if (!failed && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) now->tv_sec += shift_s();
    return failed;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone) {
    struct timespec time;
    (void)zone;
    clock_gettime(CLOCK_REALTIME, &time);
    now->tv_sec = time.tv_sec;
    now->tv_usec = time.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *where) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (where) *where = now.tv_sec;
    return now.tv_sec;
}
"""
"""Preloaded, it shifts the clock on the wall by the seconds in a file, and leaves the others alone."""

DAY_S = 86_400


def test_nothing_happens_because_the_clock_jumped_a_day(lab: Lab) -> None:
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler")

    source, library = lab.write("clock.c", CLOCK), os.path.join(lab.root, "clock.so")
    shift = Path(lab.write("clock.shift", "0"))
    subprocess.run([compiler, "-shared", "-fPIC", "-o", library, source], check=True)
    lab.env |= {"LD_PRELOAD": library, "CLOCK_SHIFT": str(shift)}
    lab.configure(QUICK.replace("[daemon]", "[daemon]\nprobe_s = 0.2\nstall_s = 1.5"))
    pid = lab.run("m", faults={"tokens_s": 20})["pid"]
    request = lab.begin_asking("r", 100, stream=True)
    until(lambda: lab.requests("m", "accepted"), "it is being answered")
    for jump_s in (DAY_S, -DAY_S):
        shift.write_text(str(jump_s))
        other = lab.ask(f"after-{jump_s}", 20)
        other.check_complete(20)

    request.result().check_complete(100)
    assert (lab.ready("m")["pid"], len(lab.starts("m"))) == (pid, 1)
    assert not lab.events("unrouted")

    os.kill(pid, signal.SIGKILL)  # a timer that runs, begun before the jump and due after it
    shift.write_text(str(2 * DAY_S))
    until(lambda: len(lab.starts("m")) == 2, "it is started again in its time", 5.0)
    lab.ready("m")
    rows = map(json.loads, lab.orch("events", "-n", "1", "--json").stdout.splitlines())
    jumped = datetime.fromisoformat([row["time"] for row in rows][0]) - datetime.now(UTC)
    assert jumped.total_seconds() > DAY_S  # the clock did jump


# 52. The model is cut while an engine has it mapped.


@pytest.fixture
def real() -> Iterator[Home]:
    with new_home() as home:
        home.write("config/orch.toml", QUICK)
        yield home


def test_a_model_cut_under_a_real_engine_is_named_and_not_tried_until_it_is_whole(real: Home) -> None:
    pytest.importorskip("xllamacpp", reason="the embedded engine is an optional extra")
    model = os.path.join(real.root, "own.gguf")
    write_known_model(model, "llama", layers=2)
    whole = Path(model).read_bytes()
    real.profile("own", f'schema = 1\nmodel = "{model}"\nengine = "embedded"\n[cpu]\nthreads = 1\n')
    real.serve("own")
    until(lambda: real.status()["state"] == "ready", "it is ready")
    os.truncate(model, 0)
    real.request("POST", "/completion", {"prompt": "A supervisor", "n_predict": 8, "temperature": 0})
    status = until(lambda: (now := real.status())["state"] == "failed" and now, "it has failed for good")
    assert [attempt["outcome"] for attempt in status["attempts"]] == ["bad_model"]
    assert status["attempts"][0]["next"].startswith("give up")
    refused = real.orch("up", "own", check=False)
    assert refused.returncode == 1 and model in refused.stderr
    Path(model).write_bytes(whole)
    real.orch("up", "own")
    assert real.status()["state"] == "ready"
