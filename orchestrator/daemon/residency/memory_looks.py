"""Reads the memory that admission goes by: free, needed, held. Bounded in time, and cheap enough for each look.

Devices are read anew. What a process has is read from the driver and from /proc, and from its engine's own lines where
neither tells. What is needed is looked up once for each target, until one of its files changes (`memory_needs.py`).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from time import monotonic
from typing import NamedTuple, TypeVar

import anyio

from orchestrator.adapters.abandonable import NoThreadError, run_abandonable
from orchestrator.adapters.hardware.gpu import GpuProvider, GpuReading
from orchestrator.adapters.hardware.host import HostUse, available_memory_bytes, host_use
from orchestrator.adapters.paths import Paths
from orchestrator.adapters.process.tree import ProcessTree
from orchestrator.core.fleet.admission import MemoryLook
from orchestrator.core.fleet.lifecycle_states import Target
from orchestrator.core.quantities import MIB
from orchestrator.core.residency.memory_ledger import (
    DeviceSpace,
    Holding,
    MemoryFigures,
    ProfileNeed,
    memory_look,
    planned_need,
)
from orchestrator.core.residency.places import HOST_PLACE, gpu_place, place_of_device, places_of
from orchestrator.daemon.fleet.engine_run import EngineRun, EngineRuns
from orchestrator.daemon.residency.memory_needs import KnownNeed, NeedBook

_log = logging.getLogger(__name__)

FRESH_S = 0.1
"""So old a reading is taken for one of now: a driver may take milliseconds to answer."""

TREE_S = 1.0
"""Between two looks for processes that an engine started: that reads all of /proc."""

PATIENCE_S = 2.0
"""What does not answer in this time is not waited for: without the needs of a profile whose disk hangs, its start goes
on, and meets that itself."""


T = TypeVar("T")


class _Held(NamedTuple):
    """What the processes of an instance have: MiB by device, and on the host."""

    devices: dict[str, int]
    host: HostUse | None


class MemoryLooks:
    """Reads the memory for one daemon.

    :param needs: by default from the files of the installation
    """

    def __init__(self, paths: Paths, gpus: GpuProvider, runs: EngineRuns, needs: NeedBook | None = None) -> None:
        self._gpus = gpus
        self._runs = runs
        self._needs = needs or NeedBook(paths)
        self._told_totals: dict[str, int] = {}
        self._told_by: frozenset[str] = frozenset()
        self._trees: dict[str, ProcessTree] = {}
        self._pids: dict[str, frozenset[int]] = {}
        self._searched_at = float("-inf")
        self._under_way: set[object] = set()
        """What threads are asking for, or were when nobody waited any more."""

    async def look(self, targets: Sequence[Target]) -> MemoryLook | None:
        """Return the memory now, with what these targets need; None when it could not be read in time, or not as one.

        Loaded profiles, and those that start, are in it whether they are named or not.
        """
        runs = self._living()
        read = await self._ask("the memory", partial(self._read, runs))
        if read is None:
            return None

        readings, available_mib, held = read
        known: dict[Target, KnownNeed] = {}
        for target in dict.fromkeys(targets):
            found = await self._ask(target, partial(self._needs.need_of, target, readings))
            if found is not None:
                known[target] = found

        if self._living() != runs:
            return None  # what was read is of another moment: one has begun or ended

        told = {run.launch.instance: told_mib(run, len(readings)) for run in runs}
        self._note_totals(runs, told, len(readings))
        holdings: dict[str, Holding] = {}
        for run in runs:
            profile = run.launch.target.profile
            has = held.get(run.launch.instance, _Held({}, None))
            holding = Holding(has.devices, told[run.launch.instance], *(has.host or (None, 0)))
            holdings[profile] = both(holdings[profile], holding) if profile in holdings else holding

        needs = {run.launch.target.profile: _need_of_run(run, len(readings)) for run in runs}
        needs |= {target.profile: each.need for target, each in known.items()}
        margins: dict[str, int] = {}
        for each in known.values():
            margins |= {place: max(mib, margins.get(place, 0)) for place, mib in each.margins.items()}

        devices = tuple(
            DeviceSpace(gpu_place(each.index), each.total_mib - each.used_mib, each.total_mib) for each in readings
        )
        return memory_look(MemoryFigures(devices, self._told_totals, available_mib, holdings), needs, margins)

    async def free_host_mib(self) -> int:
        """Return the host memory that a start could take now; 0 when it could not be read in time."""
        look = await self.look(())
        return max(look.free.get(HOST_PLACE, 0), 0) if look is not None else 0

    def _living(self) -> list[EngineRun]:
        return [run for run in self._runs if run.child is not None and run.child.exit is None]

    async def _ask(self, what: object, work: Callable[[], T]) -> T | None:
        """Do what blocks in a thread of its own; None when that takes too long, or the last one is not back yet."""
        if what in self._under_way:
            return None

        def asked() -> T:
            try:
                return work()
            finally:
                self._under_way.discard(what)

        self._under_way.add(what)
        try:
            with anyio.move_on_after(PATIENCE_S):
                return await run_abandonable(asked)
        except NoThreadError as error:
            self._under_way.discard(what)
            _log.warning("%s cannot be looked at now: %s", what, error)
            return None
        except OSError as error:  # no descriptor left to read /proc with, say
            _log.warning("%s cannot be looked at now: %s", what, error)
            return None

        _log.warning("%s could not be looked at within %g s", what, PATIENCE_S)
        return None

    def _read(self, runs: Sequence[EngineRun]) -> tuple[tuple[GpuReading, ...], int, dict[str, _Held]]:
        """Return devices, available host memory, and what each instance has; in a thread."""
        age_s = self._gpus.age_s
        readings = self._gpus.read() if age_s is not None and age_s < FRESH_S else self._gpus.read_now()
        pids = self._family(runs)
        held = {}
        for instance, family in pids.items():
            use = host_use(family)
            devices = {
                gpu_place(each.index): mib
                for each in readings
                if (mib := sum(size for pid, size in (each.processes or {}).items() if pid in family))
            }
            held[instance] = _Held(devices, use)

        return readings, available_memory_bytes() >> 20, held

    def _family(self, runs: Sequence[EngineRun]) -> dict[str, frozenset[int]]:
        """Return the processes of each instance, its descendants as they were found last."""
        children = {run.launch.instance: run.child for run in runs if run.child is not None}
        if children.keys() != self._trees.keys() or monotonic() - self._searched_at > TREE_S:
            self._trees = {
                instance: self._trees.get(instance) or ProcessTree(child.pid, child.start_time_ticks)
                for instance, child in children.items()
            }
            self._pids = {instance: frozenset(tree.members()) for instance, tree in self._trees.items()}
            self._searched_at = monotonic()

        return self._pids

    def _note_totals(self, runs: Sequence[EngineRun], told: Mapping[str, Mapping[str, int]], read: int) -> None:
        """Note what engines say of devices that orch cannot read: free before they loaded, so with what others had."""
        self._told_by &= told.keys()
        for run in runs:
            instance, free_mib = run.launch.instance, run.log_cursor.activity.free_mib
            if instance in self._told_by or not free_mib or run.read_back is None:
                continue

            self._told_by |= {instance}
            for name, mib in free_mib.items():
                place = place_of_device(name, run.launch.profile, read, run.launch.rendered.env)
                others = sum(each.get(place, 0) for other, each in told.items() if other != instance)
                before = 0 if run.alone else self._told_totals.get(place, 0)
                self._told_totals[place] = max(before, mib + (0 if run.alone else others))

        self._told_totals = {place: mib for place, mib in self._told_totals.items() if not _is_read(place, read)}


def told_mib(run: EngineRun, read: int) -> dict[str, int]:
    """Return what an instance has by its engine's own lines, MiB by place; empty before it has told.

    :param read: how many devices orch reads
    """
    if run.read_back is None:
        return {}

    start = run.read_back.start
    found = {HOST_PLACE: _mib(sum(start.host.values()))}
    for device in start.devices:
        place = place_of_device(device.name, run.launch.profile, read, run.launch.rendered.env)
        found[place] = found.get(place, 0) + _mib(sum(device.sizes.values()) + (device.beside or 0))

    return found


def both(one: Holding, other: Holding) -> Holding:
    """Return what two instances of a profile have: during its own switch."""
    host = None if one.host_mib is None and other.host_mib is None else (one.host_mib or 0) + (other.host_mib or 0)
    return Holding(
        _sum(one.devices, other.devices), _sum(one.told, other.told), host, one.mapped_mib + other.mapped_mib
    )


def _need_of_run(run: EngineRun, read: int) -> ProfileNeed:
    launch = run.launch
    places = places_of(launch.profile, read, launch.rendered.env)
    return planned_need(launch.plan, launch.profile, launch.model_bytes >> 20, places)


def _is_read(place: str, read: int) -> bool:
    return any(place == gpu_place(index) for index in range(read))


def _sum(one: Mapping[str, int], other: Mapping[str, int]) -> dict[str, int]:
    return {place: one.get(place, 0) + other.get(place, 0) for place in dict.fromkeys([*one, *other])}


def _mib(size_bytes: int) -> int:
    return -(-size_bytes // MIB)
