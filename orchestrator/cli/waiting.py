"""Waits until the daemon has done what was asked, and shows its progress on a terminal."""

from __future__ import annotations

import json
import time

from orchestrator.adapters.process.linux import stat_of
from orchestrator.api import client
from orchestrator.api.types import Status
from orchestrator.cli import diagnostics
from orchestrator.core.errors import NotRunningError, OrchError, TimedOutError

LONG_POLL_S = 20.0
"""The longest time that one request waits for a newer state; then the daemon answers with the old one."""


def status(path: str) -> Status:
    answer: Status = json.loads(client.request(path, "/v1/status"))
    return answer


def until_settled(path: str, after: int, *, timeout_s: float) -> Status:
    """Return the status once it is ready, failed or stopped, and newer than generation `after`.

    :raises TimedOutError: when that takes longer than `timeout_s`; the daemon goes on
    """
    deadline = time.monotonic() + timeout_s
    generation = after
    while True:
        left_s = deadline - time.monotonic()
        if left_s <= 0:
            diagnostics.clear_progress()
            raise TimedOutError(f"not ready after {timeout_s:g} s; it goes on", hint="look at `orch status`")

        wait_s = min(left_s, LONG_POLL_S)
        answer = client.request(path, f"/v1/status?after={generation}&wait_s={wait_s:.3f}", timeout_s=wait_s + 10)
        news: Status = json.loads(answer)
        settled = news["state"] in ("ready", "failed", "stopped") and not news["switching"]
        if settled and news["generation"] > after:
            diagnostics.clear_progress()
            return news

        generation = news["generation"]
        diagnostics.progress(news["progress"])


def until_stopped(path: str, daemon_pid: int, *, daemon_ends: bool, timeout_s: float) -> None:
    """Wait until the engine is gone, and the daemon too when it is to end."""
    deadline = time.monotonic() + timeout_s
    generation = 0
    while True:
        try:
            answer = client.request(path, f"/v1/status?after={generation}&wait_s=1", timeout_s=30)
            news: Status = json.loads(answer)
            if news["state"] == "stopped" and not daemon_ends:
                return

            generation = news["generation"]
        except (NotRunningError, OrchError):
            if not _alive(daemon_pid):
                return

        if time.monotonic() > deadline:
            raise TimedOutError(f"still stopping after {timeout_s:g} s", hint="`orch down --force` cuts requests off")

        if daemon_ends:
            time.sleep(0.02)


def _alive(pid: int) -> bool:
    stat = stat_of(pid)
    return stat is not None and stat.state not in ("Z", "X")
