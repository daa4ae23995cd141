"""Notices engines that read weights from the disk while they answer, and tells how much of them is in the page cache.

What is noticed decides `core/health/cold_reads.py`. A look is two small files of /proc for each process of
an engine, once a second while requests run and every ten seconds else; the page cache is asked about when somebody
wants to know, or once something is noticed.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection
from dataclasses import dataclass
from time import monotonic

import anyio

from orchestrator.adapters.abandonable import run_abandonable
from orchestrator.adapters.gguf.splits import read_splits
from orchestrator.adapters.hardware.host import io_pressure
from orchestrator.adapters.hardware.page_cache import mapped_spans, residency_of
from orchestrator.adapters.paths import Paths
from orchestrator.adapters.process.tree import process_reads
from orchestrator.api.types import PageCacheStatus
from orchestrator.core.engine_log.loaded_memory import HOST
from orchestrator.core.errors import OrchError
from orchestrator.core.health.cold_reads import ColdReads, ProcessReads, add_look, add_residency, cold_text
from orchestrator.core.plan.memory.host_placement import HostPlacement, fitted_placement, planned_placement
from orchestrator.core.plan.memory.host_spans import FileTensor, HostPart, host_part
from orchestrator.daemon.fleet.engine_run import EngineRun, EngineRuns
from orchestrator.daemon.fleet.owner import Owner
from orchestrator.daemon.fleet.serving_runs import serving_runs
from orchestrator.daemon.telemetry.pace import IDLE_S, sleep_until_tick
from orchestrator.engines.model_file import model_file
from orchestrator.gateway.contract import Finished, Traffic

_log = logging.getLogger(__name__)

LOOK_S = 1.0
CACHE_S = 10.0
"""So old a figure of the page cache may get."""

PATIENCE_S = 1.0
"""For a disk that does not answer; the figure is left out then."""


@dataclass(slots=True)
class ColdWatched:
    """What is known of one instance.

    :ivar part: what it has of the model in host memory; None before it was read
    :ivar part_from: what `part` was made from: whether its placement was known, and its processes
    :ivar figure: the newest of the page cache, and when it was taken
    :ivar asking: a thread reads it
    :ivar used: a request has ended since the last look
    :ivar text: what is noticed, for people; empty while that is nothing
    """

    history: ColdReads
    part: HostPart | None = None
    part_from: tuple[bool, frozenset[int]] = (False, frozenset())
    figure: PageCacheStatus | None = None
    taken: float = float("-inf")
    asking: bool = False
    used: bool = False
    text: str = ""


class ColdReadWatch:
    """Watches the instances that serve.

    :param record: notes an event for people: its kind, and a sentence
    :param on_notice: called when what `notice` says has changed
    :param family: the processes of the engine whose first one has this id, as they were found last
    """

    def __init__(
        self,
        paths: Paths,
        owner: Owner,
        runs: EngineRuns,
        traffic: Traffic,
        record: Callable[[str, str], None],
        on_notice: Callable[[], None],
        family: Callable[[int], Collection[int]],
    ) -> None:
        self._paths = paths
        self._owner = owner
        self._runs = runs
        self._traffic = traffic
        self._record = record
        self._on_notice = on_notice
        self._family = family
        self._watched: dict[str, ColdWatched] = {}

    async def run(self) -> None:
        """Look at every instance that serves, for ever."""
        while True:
            await sleep_until_tick(LOOK_S)
            serving = serving_runs(self._owner, self._runs)
            for instance in self._watched.keys() - serving.keys():
                del self._watched[instance]

            for instance, run in serving.items():
                try:
                    await self._look(instance, run)
                except (OSError, RuntimeError) as error:  # no descriptor or thread left: this look says nothing
                    _log.warning("the reads of %s are not looked at: %s", instance, error)

    def finished(self, record: Finished) -> None:
        """Take note of a request that has ended: it may have begun and ended between two looks."""
        watched = self._watched.get(record.instance or "")
        if watched is not None:
            watched.used = True

    def notice(self, instance: str | None) -> str | None:
        """Return a sentence for people on an instance that reads from the disk; None when all is well."""
        watched = self._watched.get(instance or "")
        return watched.text or None if watched is not None else None

    async def page_cache(self, instance: str | None) -> PageCacheStatus | None:
        """Return how much of an instance's part of the host is in the page cache; None where it has none mapped."""
        run = serving_runs(self._owner, self._runs).get(instance or "")
        if run is None:
            return None

        watched = self._watch_of(run)
        old = monotonic() - watched.taken >= CACHE_S or watched.part_from[0] != (run.read_back is not None)
        if old and not watched.asking:
            watched.taken, watched.asking = monotonic(), True
            try:
                with anyio.move_on_after(PATIENCE_S):
                    watched.figure = await run_abandonable(lambda: self._ask(run, watched))
            except (OSError, RuntimeError) as error:  # no descriptor or thread left
                watched.asking = False
                _log.warning("what of %s is in the page cache cannot be read: %s", run.launch.target, error)

        return watched.figure

    def _ask(self, run: EngineRun, watched: ColdWatched) -> PageCacheStatus | None:
        """Read the figure in a thread that may hang with its disk; then no second one is begun."""
        try:
            return self._read(run, watched)
        finally:
            watched.asking = False

    def _watch_of(self, run: EngineRun) -> ColdWatched:
        watched = self._watched.get(run.launch.instance)
        if watched is None:
            watched = self._watched[run.launch.instance] = _begin(run)

        return watched

    def _processes(self, run: EngineRun) -> frozenset[int]:
        return frozenset(self._family(run.child.pid)) if run.child is not None else frozenset()

    async def _look(self, instance: str, run: EngineRun) -> None:
        watched = self._watch_of(run)
        now, last = monotonic(), watched.history.last
        used = watched.used or self._traffic.in_flight(instance) > 0
        if not used and last is not None and now - last[0] < IDLE_S:
            return

        told = ((pid, process_reads(pid)) for pid in self._processes(run))
        reads = {pid: ProcessReads(*counters) for pid, counters in told if counters is not None}
        if not reads:  # it is gone, or the kernel does not tell
            return

        watched.used = False
        watched.history, news = add_look(watched.history, now, reads, used=used)
        if news == "cold":
            watched.taken = float("-inf")
            share = _share(await self.page_cache(instance))
            copied = watched.part is not None and not watched.part.weights
            locked = run.launch.profile.settings.get("memory.mlock") is True
            watched.text = cold_text(watched.history.cold, share, io_pressure(), mapped=not copied, locked=locked)
        elif watched.text and news is None:
            share = _share(await self.page_cache(instance))
            watched.history, news = add_residency(watched.history, now, share)

        if news is not None:
            self._tell(run, watched, news)

    def _tell(self, run: EngineRun, watched: ColdWatched, news: str) -> None:
        if news == "cold":
            _log.warning("%s: %s", run.launch.target, watched.text)
            self._record("went_cold", f"{run.launch.target}: {watched.text}")
        else:
            watched.text = ""
            self._record("warmed", f"{run.launch.target}: its weights are in the page cache again")

        self._on_notice()

    def _read(self, run: EngineRun, watched: ColdWatched) -> PageCacheStatus | None:
        """Return the figure as it is now."""
        made_from = (run.read_back is not None, self._processes(run))
        if watched.part is None or watched.part_from != made_from:
            watched.part, watched.part_from = self._part_of(run), made_from

        part = watched.part
        if part is None:
            return None

        weights, experts = residency_of(part.weights), residency_of(part.experts or {})
        if weights is None or experts is None or not weights.total_mib:
            return None

        placed = part.experts is not None

        return PageCacheStatus(
            part_mib=weights.total_mib,
            resident_mib=weights.resident_mib,
            experts_mib=experts.total_mib if placed else None,
            experts_resident_mib=experts.resident_mib if placed else None,
            where=part.where,
        )

    def _part_of(self, run: EngineRun) -> HostPart | None:
        """Return what an instance has of its model in host memory; None when its files cannot be read any more."""
        path = model_file(self._paths, run.launch.profile.model).path
        try:
            parts = read_splits(path)
        except OrchError:  # replaced or removed since it was loaded
            return None

        tensors = (
            FileTensor(part.path, tensor.name, tensor.offset, tensor.size_bytes)
            for part in parts
            for tensor in part.tensors
        )
        paths = [part.path for part in parts]
        # One of them computes; a wrapper around it has nothing mapped.
        mapped = next(filter(None, (mapped_spans(pid, paths) for pid in sorted(self._processes(run)))), {})
        return host_part(tensors, mapped, _placement_of(run))


def _begin(run: EngineRun) -> ColdWatched:
    """Begin with an instance that has become ready."""
    settings = run.launch.profile.settings
    told = run.log_cursor.activity.memory.by_place().get(HOST, {}).get("weights")
    host_bytes = told or run.launch.model_bytes
    # With NUMA placement both engines map the file without having it read (`llama-mmap.cpp`: prefetch = 0).
    when_needed = (
        settings.get("memory.defer_experts") is True or settings.get("memory.lazy") == "on" or "cpu.numa" in settings
    )
    return ColdWatched(ColdReads(host_bytes, allowed_bytes=host_bytes if when_needed else 0))


def _placement_of(run: EngineRun) -> HostPlacement | None:
    """Return what of the model is in host memory; None where neither the profile nor the engine's log tells."""
    plan = run.read_back.plan if run.read_back is not None else None
    if plan is None or not plan.certain:
        return None

    kind = run.launch.capabilities.kind
    if plan.fitted:
        return fitted_placement(run.log_cursor.activity.fitted, plan.geometry, plan.shape, kind)

    return planned_placement(plan.geometry, plan.shape, kind)


def _share(figure: PageCacheStatus | None) -> float | None:
    """Return how much of the host's part is in the page cache; None where one of the two is not known."""
    if figure is None or figure["resident_mib"] is None or figure["experts_mib"] is None:
        return None

    return figure["resident_mib"] / figure["part_mib"]
