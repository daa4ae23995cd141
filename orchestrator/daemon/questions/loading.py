"""Asks a spawned process until it really answers: whose port it is, /health, who it is, then a canary.

`core/fleet/readiness.py` decides what each answer means.
"""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic
from typing import Protocol

import anyio

from orchestrator.adapters.engine_probe import EngineProbe
from orchestrator.core.dialect.capabilities import Kind
from orchestrator.core.fleet.lifecycle_states import Failure
from orchestrator.core.fleet.model_figures import ModelFigures, engine_figures
from orchestrator.core.fleet.readiness import (
    LoadingLook,
    LoadingProgress,
    assess_identity,
    assess_loading,
)

POLL_FIRST_S = 0.02
POLL_SLOWEST_S = 0.25
HEALTH_TIMEOUT_S = 2.0


class Process(Protocol):
    """The questions to the engine's process."""

    def owns(self, port: int) -> bool | None:
        """Return whether it listens there: True, False when somebody else does, None when nobody does."""
        ...

    def look(self, listens: bool | None, healthy: bool) -> LoadingLook:
        """Return one look at it, with what it has done so far."""
        ...

    def last_line(self) -> str:
        """Return the newest of what it has printed; empty when that is nothing."""
        ...


def _ignore() -> None:
    pass


def _no_objection(loaded: bool) -> Failure | None:
    return None


async def watch_loading(
    process: Process,
    probe: EngineProbe,
    port: int,
    stall_s: float,
    on_progress: Callable[[], None],
    objection: Callable[[bool], Failure | None] = _no_objection,
    on_silence: Callable[[], None] = _ignore,
) -> Failure | None:
    """Wait until /health is good on a port that is ours.

    :param stall_s: give up after this long without any progress
    :param objection: why it must not serve, from what it says, such as that there is no device; asked with whether it
        has loaded
    :param on_silence: called once, when it has been silent for `stall_s` and is at work all the same
    :return: None when loaded
    """
    pause_s = POLL_FIRST_S
    progress = LoadingProgress(monotonic())
    told = False
    while True:
        listens = process.owns(port)
        healthy = listens is True and await probe.health(HEALTH_TIMEOUT_S) == "ok" and process.owns(port) is True
        look = process.look(listens, healthy)
        progress, outcome = assess_loading(progress, look, port, stall_s, monotonic(), process.last_line())
        if isinstance(outcome, Failure):
            return outcome

        missing = objection(outcome == "loaded")
        if missing is not None:
            return missing

        if outcome == "loaded":
            return None

        if outcome in ("moved", "busy"):
            on_progress()

        if outcome == "busy" and not told:
            told = True
            on_silence()

        await anyio.sleep(pause_s)
        pause_s = min(pause_s * 1.5, POLL_SLOWEST_S)


async def check_identity(probe: EngineProbe, kind: Kind, build_number: int | None) -> Failure | None:
    """Ask the engine that answers who it is, and compare that with the build that was started.

    :return: None when nothing speaks against it
    """
    said = await probe.identity(HEALTH_TIMEOUT_S)
    return assess_identity(said.server, said.build_info, kind, build_number)


async def ask_figures(probe: EngineProbe) -> ModelFigures:
    """Ask the engine how large its model and its context are."""
    props = await probe.page("/props", HEALTH_TIMEOUT_S)
    return engine_figures(props, await probe.page("/v1/models", HEALTH_TIMEOUT_S))
