"""Waits until the daemon has done what was asked, and shows its progress on a terminal."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from typing import Any

from orchestrator.adapters.process.linux import stat_of
from orchestrator.api import client
from orchestrator.api.types import InstanceStatus, Status, SwitchResult
from orchestrator.cli import diagnostics
from orchestrator.core.errors import NotRunningError, OrchError, TimedOutError

GONE = ("stopped", "failed", "backoff", "preparing", "starting", "ready")
"""States in which what was to be stopped is gone; from `preparing` on, something else was asked for since."""

SAY_AFTER_S = 3.0
ANSWER_S = 10.0

SWITCH_POLL_S = 0.5

LONG_POLL_S = 20.0
"""The longest time that one request waits for a newer state; then the daemon answers with the old one."""


def status_after(path: str, generation: int, wait_s: float = 1.0) -> Status:
    """Return the status once it is newer than this generation, or after a while."""
    target = f"/v1/status?after={generation}&wait_s={wait_s:.3f}"
    answer: Status = json.loads(client.request(path, target, timeout_s=wait_s + ANSWER_S))
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
        news = status_after(path, generation, wait_s)
        settled = news["state"] in ("ready", "failed", "stopped") and not news["switching"]
        if settled and news["generation"] > after:
            diagnostics.clear_progress()
            return news

        generation = news["generation"]
        diagnostics.progress(news["progress"])


def until_switched(path: str, operation: str, timeout_s: float) -> SwitchResult:
    """Wait until a switch has ended, however it ends.

    :raises TimedOutError: when that takes longer than `timeout_s`; the switch goes on
    """
    deadline = time.monotonic() + timeout_s
    while True:
        target = f"/v1/switch?operation={operation}&wait_s={SWITCH_POLL_S}"
        news = json.loads(client.request(path, target, timeout_s=30))
        if news["result"] is not None:
            diagnostics.clear_progress()
            result: SwitchResult = news["result"]
            return result

        diagnostics.progress(news["progress"])
        if time.monotonic() > deadline:
            diagnostics.clear_progress()
            raise TimedOutError(
                f"not switched after {timeout_s:g} s; it goes on", hint="`orch switch --cancel` ends it"
            )


def until_loaded(path: str, profile: str, after: int, *, timeout_s: float) -> InstanceStatus:
    """Return the row of a profile once it serves or has failed, in a status that is newer than generation `after`.

    :raises TimedOutError: when that takes longer than `timeout_s`; the daemon goes on
    :raises OrchError: when it was stopped or unloaded meanwhile
    """
    deadline = time.monotonic() + timeout_s
    generation = after
    while True:
        left_s = deadline - time.monotonic()
        if left_s <= 0:
            diagnostics.clear_progress()
            text = f"{profile} is not loaded after {timeout_s:g} s; it goes on"
            raise TimedOutError(text, hint="look at `orch status`, or end it: `orch down " + profile + "`")

        wait_s = min(left_s, LONG_POLL_S)
        news = status_after(path, generation, wait_s)
        row = next((each for each in news["instances"] if each["profile"] == profile), None)
        generation = news["generation"]
        if row is None or row["unloaded_since"] is not None:
            diagnostics.clear_progress()
            what = "stopped" if row is None else "unloaded again"
            raise OrchError(f"{profile} was {what} meanwhile", hint="`orch events` shows what happened")

        if row["state"] in ("ready", "failed"):
            diagnostics.clear_progress()
            return row

        diagnostics.progress(row["progress"])


def until_unloaded(path: str, profile: str, *, timeout_s: float) -> None:
    """Wait until a profile's engine is gone, or is asked for again.

    :raises TimedOutError: when that takes longer than `timeout_s`; the daemon goes on
    """
    deadline = time.monotonic() + timeout_s
    generation = 0
    while (left_s := deadline - time.monotonic()) > 0:
        wait_s = min(left_s, LONG_POLL_S)
        news = status_after(path, generation, wait_s)
        generation = news["generation"]
        row = next((each for each in news["instances"] if each["profile"] == profile), None)
        if row is None or row["state"] in GONE:
            diagnostics.clear_progress()
            return

        diagnostics.progress(row["progress"])

    diagnostics.clear_progress()
    raise TimedOutError(f"{profile} is not unloaded after {timeout_s:g} s", hint="it goes on; look at `orch status`")


def until_stopped(
    path: str, daemon_pid: int, *, daemon_ends: bool, timeout_s: float, profiles: Sequence[str] = ()
) -> Status | None:
    """Wait until what was stopped is gone, and the daemon too when it is to end. Says what it waits for.

    :param profiles: what was stopped; empty for everything

    :return: the status once the engine is gone; None where the daemon is gone as well
    :raises TimedOutError: when that takes longer than `timeout_s`, with what it waited for
    """
    began = time.monotonic()
    generation = 0
    said, hint = "", ""
    while True:
        try:
            news = status_after(path, generation)
            left = _still_there(news, profiles)
            if left is None and not daemon_ends:
                diagnostics.clear_progress()
                return news

            generation = news["generation"]
            what, hint = _awaited(left or news, daemon_pid)
        except (NotRunningError, OrchError) as error:
            if not _alive(daemon_pid):
                diagnostics.clear_progress()
                return None

            what, hint = f"the daemon (pid {daemon_pid}) to end; {error}", "look at `orch logs --daemon`"

        waited_s = time.monotonic() - began
        if waited_s > timeout_s:
            diagnostics.clear_progress()
            raise TimedOutError(f"gave up after {timeout_s:g} s of waiting for {what}", hint=hint)

        if waited_s > SAY_AFTER_S and what != said:
            said = what
            diagnostics.note(f"waiting for {what}; {hint}")

        diagnostics.progress(f"waiting for {what}")
        if daemon_ends:
            time.sleep(0.02)


def _still_there(news: Status, profiles: Sequence[str]) -> Status | InstanceStatus | None:
    """Return the first of what was stopped that is not gone yet; None once nothing of it is there."""
    if not profiles and news["state"] not in GONE:
        return news

    rows = news.get("instances", [])
    there = (row for row in rows if row["state"] not in GONE and (not profiles or row["profile"] in profiles))
    return next(there, None)


def _awaited(news: Status | InstanceStatus, daemon_pid: int) -> tuple[str, str]:
    """Return what a stop still waits for, and what can be done about it."""
    target = f"{news.get('profile')}@{news.get('engine')}"
    match news["state"]:
        case "draining":
            gateway: Any = news.get("gateway", news)
            count = gateway.get("in_flight", 0)
            requests = "a running request" if count == 1 else f"{count} running requests"
            return f"{requests} of {target}", "`orch down --force` cuts them off"
        case "stopping":
            return f"the engine of {target} to end", "it is killed when its grace is over (`daemon.stop_grace_s`)"
        case _:
            return f"the daemon (pid {daemon_pid}) to end", "look at `orch logs --daemon`"


def _alive(pid: int) -> bool:
    stat = stat_of(pid)
    return stat is not None and stat.state not in ("Z", "X")
