"""Samples what the devices, the host and the engine do: for the dashboard, its plots and the history.

Every second while somebody looks or an engine has something to do, else every ten. Three loops, so that none waits for
another: the devices and the host, the engine, and the model's page cache. The loops only ever have one question under
way each. A driver that hangs, an engine that is busy with a long batch, a disk that does not answer leave the last
figures.

The engine is asked by HTTP only while it has something to do, once more after that, and once when somebody begins to
look: what is idle does not change, and is not woken.
"""

from __future__ import annotations

import contextlib
import logging
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from time import monotonic, time
from typing import Protocol

import anyio
import anyio.to_thread

from orchestrator.adapters.gguf import split_paths
from orchestrator.adapters.gpu import GpuProvider, GpuReading
from orchestrator.adapters.host import HostReading, Residency, read_host, residency, rss_mib
from orchestrator.adapters.http import EngineProbe
from orchestrator.adapters.linux import stat_of
from orchestrator.adapters.paths import Paths
from orchestrator.adapters.process_tree import ProcessTree
from orchestrator.api.frames import Point
from orchestrator.core import rates
from orchestrator.core.prompt_progress import told_progress
from orchestrator.core.rates import Measured, Meter, Sample, Slot
from orchestrator.core.states import Draining, Ready
from orchestrator.daemon.owner import Owner
from orchestrator.daemon.performing import EnginePerformer
from orchestrator.daemon.run import Run, engine_probe
from orchestrator.engines.render import model_path

_log = logging.getLogger(__name__)

SECOND_S = 1.0
IDLE_S = 10.0
LOOKED_S = 5.0
"""Somebody looks who has asked for a frame within this time."""

TREE_S = 10.0
"""How often the engines' descendants are searched for; that looks at every process of the machine."""

CACHE_S = 30.0
KEPT_POINTS = 3600
"""An hour, when there is something to see in each second of it."""

ENGINE_PATIENCE_S = 10.0
"""For one answer. Both engines answer between two batches; giving up early would only fill their queue."""

FORK_EVERY_S = 2.0
"""While somebody looks, else `IDLE_S`: the fork logs three lines for each question, and sends each prompt along."""

PROGRESS_LINES = 200
"""The end of the log in which a prompt's progress is looked for."""

STALE_S = 15.0
"""Rates that are older are not what happens now."""

NOTHING = Measured(decode_tok_s=0.0, prompt_tok_s=0.0, processing=0, deferred=0)


class Traffic(Protocol):
    """What clients do (`gateway/server.py`)."""

    @property
    def active(self) -> int: ...

    def in_flight(self, instance: str) -> int: ...

    def relayed(self, instance: str) -> int: ...


@dataclass(frozen=True, slots=True)
class Look:
    """The newest figures of the devices and the host.

    :param taken_s: monotonic; before the first sample, minus infinity
    :param engines: pids of the engines' processes
    :param alive: pids that a device names and that exist here
    :param before_mib: device to what was in use before the engines were started
    """

    taken_s: float = float("-inf")
    gpus: tuple[GpuReading, ...] = ()
    gpus_age_s: float | None = None
    host: HostReading | None = None
    engines: frozenset[int] = frozenset()
    alive: frozenset[int] = frozenset()
    before_mib: Mapping[int, int] = field(default_factory=dict)
    rss_mib: int | None = None


@dataclass(frozen=True, slots=True)
class Work:
    """The newest figures of the engine that serves. `answered_s` is monotonic."""

    instance: str | None = None
    slots: tuple[Slot, ...] = ()
    measured: Measured = Measured()
    answered_s: float = float("-inf")


class Telemetry:
    """Owns the sampling.

    :param on_point: told of each new point
    """

    def __init__(
        self,
        paths: Paths,
        owner: Owner,
        performer: EnginePerformer,
        traffic: Traffic,
        gpus: GpuProvider,
        on_point: Callable[[Point], None] = lambda point: None,
    ) -> None:
        self._paths = paths
        self._owner = owner
        self._performer = performer
        self._traffic = traffic
        self._gpus = gpus
        self._on_point = on_point
        self._looked_at = float("-inf")
        self._woken = anyio.Event()
        self._sampled = anyio.Event()
        self._trees: dict[int, ProcessTree] = {}
        self._pids: frozenset[int] = frozenset()
        self._searched_at = float("-inf")
        self._failing = False
        self._work = Work()
        self._points: deque[Point] = deque(maxlen=KEPT_POINTS)
        self.look = Look()
        self.model: Residency | None = None

    @property
    def work(self) -> Work:
        """Of the instance that serves, or ends its streams; empty where nothing is known of it."""
        return self._work if self._work.instance == self._instance() else Work()

    def points(self, count: int) -> list[Point]:
        """The newest so many, oldest first."""
        return list(self._points)[-count:] if count > 0 else []

    async def wanted(self, patience_s: float = 1.5) -> None:
        """Somebody looks: sample every second from now on. Returns once there is a fresh sample, or after a while."""
        began_to_look = monotonic() - self._looked_at > LOOKED_S
        self._looked_at = monotonic()
        if began_to_look:
            self._woken.set()
            self._woken = anyio.Event()

        with anyio.move_on_after(patience_s):
            while monotonic() - self.look.taken_s > 2 * SECOND_S:
                await self._sampled.wait()

    async def run(self) -> None:
        """For ever."""
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._sample_devices)
            tasks.start_soon(self._sample_engine)
            tasks.start_soon(self._sample_cache)

    @property
    def _watched(self) -> bool:
        return monotonic() - self._looked_at <= LOOKED_S

    def _instance(self) -> str | None:
        state = self._owner.world.state
        return state.instance if isinstance(state, Ready | Draining) else None

    # The devices and the host.

    async def _sample_devices(self) -> None:
        due = monotonic()
        while True:
            began = monotonic()
            if began >= due or self._watched or self._traffic.active:
                await self._sample()
                due = began + IDLE_S

            await self._tick(began + SECOND_S)

    async def _sample(self) -> None:
        children = {child.pid: child.start_time_ticks for child in self._performer.children()}
        before_mib = self._performer.used_before_mib
        try:
            self.look = await anyio.to_thread.run_sync(self._read, children, before_mib)
        except OSError as error:  # no descriptor left to read /proc with, say
            self._complain(error)
            return

        self._failing = False
        measured = self.measured()
        point = Point(
            at_s=round(time(), 3),
            decode_tok_s=rounded(measured.decode_tok_s),
            prompt_tok_s=rounded(measured.prompt_tok_s),
            used_mib=[each.used_mib for each in self.look.gpus],
        )
        self._points.append(point)
        self._on_point(point)
        self._sampled.set()
        self._sampled = anyio.Event()

    def _complain(self, error: OSError) -> None:
        if not self._failing:
            _log.warning("no samples are taken: %s", error)

        self._failing = True

    def _read(self, children: Mapping[int, int], before_mib: Mapping[int, int]) -> Look:
        """Runs in a thread."""
        pids = self._family(children)
        self._gpus.watch(pids)
        gpus = self._gpus.read_now()
        named = {pid for each in gpus for pid in each.processes or ()}
        return Look(
            taken_s=monotonic(),
            gpus=gpus,
            gpus_age_s=self._gpus.age_s,
            host=read_host(),
            engines=pids,
            alive=frozenset(pid for pid in named if stat_of(pid) is not None),
            before_mib=before_mib,
            rss_mib=rss_mib(pids),
        )

    def _family(self, children: Mapping[int, int]) -> frozenset[int]:
        """The engines' processes; descendants as they were found last."""
        if children.keys() != self._trees.keys() or monotonic() - self._searched_at > TREE_S:
            known = {pid: ProcessTree(pid, start) for pid, start in children.items()}
            self._trees = {pid: self._trees.get(pid, tree) for pid, tree in known.items()}
            self._pids = frozenset(pid for tree in self._trees.values() for pid in tree.members())
            self._searched_at = monotonic()

        return self._pids

    # The engine.

    def measured(self) -> Measured:
        """What the engine does right now, as far as that is known."""
        work = self.work
        return work.measured if monotonic() - work.answered_s <= STALE_S else Measured()

    async def _sample_engine(self) -> None:
        while True:
            instance = self._instance()
            run = self._performer.run(instance) if instance is not None else None
            if instance is None or run is None:
                self._work = Work()
                await self._tick(monotonic() + SECOND_S)
                continue

            async with engine_probe(run.launch) as probe:
                await self._follow(instance, run, probe)

    async def _follow(self, instance: str, run: Run, probe: EngineProbe) -> None:
        """Sample one instance while it serves."""
        fork = run.launch.capabilities.kind == "ik"
        meter: Meter | None = None
        relayed = -1
        self._work = Work(instance)
        while self._instance() == instance:
            began = monotonic()
            busy = self._traffic.in_flight(instance) > 0
            moved = self._traffic.relayed(instance) != relayed
            if busy or (moved and (self._watched or meter is not None)):
                relayed = self._traffic.relayed(instance) if not busy else -1
                meter = await self._ask(instance, run, probe, meter)
                rest_s = SECOND_S if not fork else FORK_EVERY_S if self._watched else IDLE_S
                await self._tick(began + rest_s)
            else:
                meter = rates.idle(meter, began) if meter is not None else None
                self._work = replace(self._work, measured=idle_rates(self._work.measured), answered_s=began)
                await self._tick(began + SECOND_S)

    async def _ask(self, instance: str, run: Run, probe: EngineProbe, meter: Meter | None) -> Meter | None:
        """One sample; the totals first, see `core/rates.py`."""
        totals = await probe.metrics(ENGINE_PATIENCE_S)
        slots = rates.read_slots(await probe.slots(ENGINE_PATIENCE_S))
        if totals is None and slots is None:
            return meter

        now = monotonic()
        sample = Sample(now, slots, rates.read_totals(totals or ""))
        if meter is None:
            meter, measured = rates.begin(sample)
        else:
            before = self._work.measured
            meter, measured = rates.advance(meter, sample)
            if measured.draft_acceptance is None:  # drafts are counted when a request ends: the last one holds
                measured = replace(measured, draft_acceptance=before.draft_acceptance)

        self._work = Work(instance, with_progress(slots or (), run), measured, now)
        return meter

    # The page cache.

    async def _sample_cache(self) -> None:
        """Only while somebody looks."""
        asked: tuple[str | None, float] = (None, float("-inf"))
        while True:
            instance, last = asked
            serving = self._instance()
            run = self._performer.run(serving) if serving is not None else None
            if run is None:
                self.model = None
            elif self._watched and (serving != instance or monotonic() - last > CACHE_S):
                paths = split_paths(model_path(self._paths, run.launch.profile.model))
                # A file on a disk that does not answer keeps the thread, but not the daemon from its end.
                self.model = await anyio.to_thread.run_sync(residency, paths, abandon_on_cancel=True)
                asked = (serving, monotonic())

            await self._tick(monotonic() + SECOND_S)

    async def _tick(self, until: float) -> None:
        """Until then, or until somebody begins to look."""
        with contextlib.suppress(TimeoutError), anyio.fail_after(max(until - monotonic(), 0.0)):
            await self._woken.wait()


def with_progress(slots: tuple[Slot, ...], run: Run) -> tuple[Slot, ...]:
    """Add what the engine's log says of the prompts that it reads."""
    if not any(slot.reading for slot in slots):
        return slots

    told = told_progress(line.text for line in run.log.tail(PROGRESS_LINES))
    return tuple(replace(slot, told=told.get(-1 if slot.task is None else slot.task)) for slot in slots)


def idle_rates(measured: Measured) -> Measured:
    """The rates of an engine that has nothing to do; what it holds and its drafts' fate stay as they were."""
    return replace(NOTHING, draft_acceptance=measured.draft_acceptance, kv_used=measured.kv_used)


def rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 2)
