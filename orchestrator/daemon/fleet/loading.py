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

    def work_done(self) -> int:
        """Return a number that grows while the process makes progress."""
        ...


def _no_objection(loaded: bool) -> Failure | None:
    return None


async def watch_loading(
    process: Process,
    probe: EngineProbe,
    port: int,
    stall_s: float,
    on_progress: Callable[[], None],
    objection: Callable[[bool], Failure | None] = _no_objection,
) -> Failure | None:
    """Wait until /health is good on a port that is ours.

    :param stall_s: give up after this long without any progress
    :param objection: why it must not serve, from what it says, such as that there is no device; asked with whether it
        has loaded
    :return: None when loaded
    """
    pause_s = POLL_FIRST_S
    progress = LoadingProgress(monotonic())
    while True:
        listens = process.owns(port)
        healthy = listens is True and await probe.health(HEALTH_TIMEOUT_S) == "ok" and process.owns(port) is True
        look = LoadingLook(listens, healthy, process.work_done())
        progress, outcome = assess_loading(progress, look, port, stall_s, monotonic())
        if isinstance(outcome, Failure):
            return outcome

        missing = objection(outcome == "loaded")
        if missing is not None:
            return missing

        if outcome == "loaded":
            return None

        if outcome == "moved":
            on_progress()

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
