"""What holds after every fault, whatever it was.

I1  every request that was read ended: nothing is held, nothing in flight; no id was accepted twice
I2  the daemon's processes are the ones that it speaks of, none after the stop, no zombies
I3  it has no descriptor more than it had, and it has no thread more than its pool may keep
I4  the state file can be read, and no half-written one lies beside it
I5  log lines delivered and reported as dropped are those produced: `test_logs.py` counts them
I6  the control API answered all the time, within seconds
I7  nothing listens on a port that an engine was given
"""

from __future__ import annotations

import glob
import json
import os
import threading
import time
from collections import Counter
from functools import partial

from orchestrator.adapters.process.ports import listener_pids
from orchestrator.core.errors import OrchError
from tests.busy import in_time
from tests.faults.lab import Lab, descriptors
from tests.support import alive, has_variable, until

SETTLE_S = 15.0
LAG_S = 3.0
"""The loop's own limit is 0.25 s; the rest is for a machine that does other things as well."""

POOL_THREADS = 8
"""Worker threads that anyio keeps for a while after their last task."""


class Watch:
    """Compares a daemon with what it was, and asks it all the time."""

    def __init__(self, lab: Lab) -> None:
        self._lab = lab
        self._ended = threading.Event()
        self.slowest_s = 0.0
        self._asker = threading.Thread(target=self._ask, daemon=True)
        self._asker.start()

    def check(self) -> None:
        """Settle, compare, stop the daemon, and compare again."""
        lab = self._lab
        self._ended.set()
        self._asker.join()
        running = lab.daemon is not None and lab.daemon.poll() is None
        if running:
            self._check_running()

        lab.end()
        until(lambda: not lab.tagged(), f"no process is left: {lab.tagged()}", SETTLE_S)
        check_exactly_once(lab)
        check_state_file(lab)
        for path in lab.models:
            for start in lab.starts(os.path.basename(path).removesuffix(".gguf")):
                assert not _listens(start["port"]), f"I7: port {start['port']}"
                assert not alive(start["pid"]), f"I2: engine {start['pid']} lives"

        assert in_time(self.slowest_s, LAG_S), f"I6: the control API took {self.slowest_s:.1f} s"

    def _check_running(self) -> None:
        lab = self._lab
        assert lab.daemon is not None
        daemon = lab.daemon.pid

        def quiet() -> bool:
            gateway = lab.status()["gateway"]
            return bool(gateway["queued"] == 0 and gateway["in_flight"] == 0)

        until(quiet, f"I1: no request is held or in flight: {lab.status()['gateway']}", SETTLE_S)
        lab.control("/v1/down", {"force": True})
        lab.state("stopped")
        until(lambda: not lab.tagged(), f"I2: {lab.tagged()} are not in the table", SETTLE_S)
        until(lambda: not _zombies(daemon), f"I2: zombies {_zombies(daemon)}", SETTLE_S)
        before = lab.baseline
        assert before is not None
        more = partial(_more_descriptors, daemon, before)
        until(lambda: not more(), f"I3: {more()} more than before: {before}", SETTLE_S)
        assert len(os.listdir(f"/proc/{daemon}/task")) <= lab.baseline_threads + POOL_THREADS, "I3: threads"

    def _ask(self) -> None:
        while not self._ended.wait(0.25):
            if self._lab.daemon is None or self._lab.baseline is None:
                continue

            began = time.monotonic()
            try:
                self._lab.status()
            except OrchError:
                continue  # not there: it was killed, or has not begun
            except OSError:
                continue

            self.slowest_s = max(self.slowest_s, time.monotonic() - began)


def check_exactly_once(lab: Lab) -> None:
    accepted = Counter(
        row["id"]
        for path in lab.models
        for row in lab.requests(os.path.basename(path).removesuffix(".gguf"), "accepted")
    )
    twice = {name: count for name, count in accepted.items() if count > 1 and name not in lab.replayed}
    assert not twice, f"I1: accepted more than once: {twice}"


def check_state_file(lab: Lab) -> None:
    state = os.path.join(lab.root, "state", "state.json")
    if os.path.exists(state):
        with open(state, encoding="utf-8") as file:
            assert json.load(file)["version"] == 1, "I4"

    halves = glob.glob(os.path.join(lab.root, "state", ".state.json.*"))
    assert not halves, f"I4: {halves}"


def _listens(port: int) -> bool:
    """Return whether something listens on a port, unless it is another test's engine, which was given it since."""
    return any(not has_variable(pid, b"ORCH_HOME_ID=") for pid in listener_pids(port))


def _more_descriptors(pid: int, before: Counter[str]) -> Counter[str]:
    """Return what a process holds beyond what it held: fewer is no leak (a file was being saved at that time)."""
    return descriptors(pid) - before


def _zombies(parent: int) -> list[int]:
    return [pid for pid in _children(parent) if _state(pid) == "Z"]


def _children(parent: int) -> set[int]:
    try:
        with open(f"/proc/{parent}/task/{parent}/children", encoding="ascii") as file:
            return set(map(int, file.read().split()))
    except OSError:
        return set()


def _state(pid: int) -> str:
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as file:
            return file.read().rpartition(")")[2].split()[0]
    except OSError:
        return ""
