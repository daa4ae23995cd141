"""Starts the daemon in the background, for `orch up` and the demo."""

from __future__ import annotations

import os
import subprocess
import sys
import time

from orchestrator.adapters.paths import Paths, make_private
from orchestrator.adapters.process.linux import stat_of
from orchestrator.adapters.systemd.notify import VARIABLES
from orchestrator.api import client
from orchestrator.cli import diagnostics
from orchestrator.core.errors import NotRunningError, OrchError, TimedOutError

START_LIMIT_S = 20.0
"""Without a sign of work. On a busy machine a daemon that works may need longer until it answers."""

LONGEST_START_S = 180.0
SAY_AFTER_S = 3.0


def ensure_daemon(paths: Paths) -> bool:
    """Make sure that a daemon answers.

    :return: whether one had to be started
    :raises OrchError: when it ended instead, with the end of its log
    """
    try:
        client.request(paths.control_socket, "/v1/status")
    except NotRunningError:
        _start(paths)
        return True

    return False


def _start(paths: Paths) -> None:
    make_private(paths.logs)
    log_file = os.path.join(paths.logs, "daemon.log")
    start = os.path.getsize(log_file) if os.path.exists(log_file) else 0
    # A service that runs `orch up` speaks to its manager itself; the daemon is no part of it.
    env = {name: value for name, value in os.environ.items() if name not in VARIABLES}
    with open(log_file, "ab") as log:
        # A session of its own: it outlives the terminal that `orch up` was typed in.
        process = subprocess.Popen(
            [sys.executable, "-m", "orchestrator", "serve", "--started-by-up"],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            cwd="/",
            env=env,
        )

    began = worked_at = time.monotonic()
    ticks = -1
    while (now := time.monotonic()) < min(worked_at + START_LIMIT_S, began + LONGEST_START_S):
        try:
            client.request(paths.control_socket, "/v1/status", timeout_s=START_LIMIT_S)
            diagnostics.clear_progress()
            return
        except (NotRunningError, TimedOutError):
            pass  # not listening yet, or too busy to answer

        if now - began > SAY_AFTER_S:
            diagnostics.progress("the daemon is starting")

        stat = stat_of(process.pid)
        if stat is not None and stat.cpu_ticks > ticks:
            ticks, worked_at = stat.cpu_ticks, now

        if process.poll() is not None:
            raise OrchError(
                f"the daemon ended at once with exit code {process.returncode}",
                details=_tail(log_file, start),
                hint="run `orch serve` in the foreground to see it",
            )

        time.sleep(0.02)

    diagnostics.clear_progress()
    raise TimedOutError(
        f"the daemon did not answer within {time.monotonic() - began:.0f} s",
        details=_tail(log_file, start),
        hint=f"it runs on (pid {process.pid}); once `orch status` is answered, so is this command",
    )


def _tail(path: str, start: int) -> tuple[str, ...]:
    with open(path, "rb") as file:
        file.seek(start)
        return tuple(file.read().decode(errors="replace").splitlines()[-15:])
