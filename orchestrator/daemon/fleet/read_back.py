"""Keeps what a start that became ready took, and says where that contradicts its plan. Nobody waits for it."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial

import anyio.to_thread

from orchestrator.core.engine_log.activity import EngineActivity
from orchestrator.core.engine_log.loaded_memory import HOST
from orchestrator.core.errors import OrchError
from orchestrator.core.quantities import MIB
from orchestrator.core.starts.readback import memory_rows
from orchestrator.daemon.fleet.device_memory import DeviceMemory
from orchestrator.daemon.fleet.engine_run import EngineRun
from orchestrator.daemon.fleet.preparing import Preparer

_log = logging.getLogger(__name__)

_MOST_BESIDE_MIB = 4096
"""More than a context, its modules and pools: somebody else's."""


async def read_back_start(
    run: EngineRun, preparer: Preparer, devices: DeviceMemory, record: Callable[[str, str], None]
) -> None:
    """Keep a start's memory for the plans to come, and for the status.

    :param record: notes an event for people
    """
    activity = run.log_cursor.activity
    places = activity.memory.by_place()
    beside = await _beside(run, places, devices) if run.alone else {}
    work = partial(preparer.read_back, run.launch, activity.memory, beside, _hidden_mib(activity))
    try:
        found = await anyio.to_thread.run_sync(work)
    except Exception as error:  # noqa: BLE001  (the instance serves, whatever is wrong with this)
        if not isinstance(error, OSError | OrchError):
            _log.exception("what %s took cannot be held against its plan", run.launch.target)

        record("record_lost", f"what {run.launch.target} took of memory could not be kept: {error}")
        return

    if found is None:
        return

    run.read_back = found
    run.memory = memory_rows(found.plan.need, found.start)
    if found.contradicts:
        parts = "; ".join(found.contradicts)
        text = f"{run.launch.target}: the build takes other memory than the plan knows: {parts}"
        record("plan_contradicted", f"{text}; from now on it is planned by what was read")


async def _beside(run: EngineRun, places: dict[str, dict[str, int]], devices: DeviceMemory) -> dict[str, int]:
    """Return what a device has in use beside the buffers that the log tells of; nothing where that is not certain."""
    names = [name for name in places if name != HOST]
    taken = await devices.taken_mib()
    if len(names) != 1 or len(taken) != 1:
        return {}

    beside = taken[0] * MIB - sum(places[names[0]].values())
    return {names[0]: beside} if 0 < beside <= _MOST_BESIDE_MIB * MIB else {}


def _hidden_mib(activity: EngineActivity) -> int | None:
    """Return what upstream's fit took to be in use that was free: its own probe's recurrent state."""
    if activity.fit_free_mib is None or not activity.free_mib:
        return None

    return max(0, sum(activity.free_mib.values()) - activity.fit_free_mib)
