"""The instances that serve."""

from __future__ import annotations

from orchestrator.core.fleet.lifecycle_states import Draining, Ready
from orchestrator.daemon.fleet.engine_run import EngineRun, EngineRuns
from orchestrator.daemon.fleet.owner import Owner


def serving_runs(owner: Owner, runs: EngineRuns) -> dict[str, EngineRun]:
    """Return the instances that serve by their ids, those that end their last requests among them."""
    states = (each for each in owner.fleet.slots.values() if isinstance(each, Ready | Draining))
    found = (runs.get(each.instance) for each in states)
    return {run.launch.instance: run for run in found if run is not None}
