"""Samples what the devices and the host do: for the dashboard, its plots and the history.

Loops of their own for the devices and the host, and for the engine (`engine_samples.py`), so that none waits for
another; each has one question under way at most. A driver that hangs leaves the last figures.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from time import CLOCK_BOOTTIME, clock_gettime, monotonic, time

import anyio
import anyio.to_thread

from orchestrator.adapters.hardware.cpu_energy import CpuEnergy
from orchestrator.adapters.hardware.gpu import GpuProvider, GpuReading
from orchestrator.adapters.hardware.host import HostReading, read_host, rss_mib
from orchestrator.adapters.process.linux import stat_of
from orchestrator.adapters.process.tree import ProcessTree
from orchestrator.api.top_frames import Point
from orchestrator.core.energy.intervals import EnergySample
from orchestrator.core.measure.rates import Measured
from orchestrator.daemon.fleet.device_memory import DeviceMemory
from orchestrator.daemon.fleet.engine_run import EngineRuns
from orchestrator.daemon.fleet.owner import Owner
from orchestrator.daemon.fleet.serving_runs import serving_runs
from orchestrator.daemon.telemetry.energy import EnergyBook, EnergyLook, device_samples, loaded_on
from orchestrator.daemon.telemetry.engine_samples import EngineSamples, Work
from orchestrator.daemon.telemetry.pace import IDLE_S, SECOND_S, Pace
from orchestrator.gateway.contract import Finished, Traffic, Underway

_log = logging.getLogger(__name__)

TREE_S = 10.0
"""How often the engines' descendants are searched for; that looks at every process of the machine."""

FRESH_S = 1.0
"""A reading that is older is the last one of a driver that does not answer: it says nothing about the time since."""

KEPT_POINTS = 3600
"""An hour, when there is something to see in each second of it."""

FIRST_ANSWER_S = 0.3
"""So long who begins to look waits for the engine, whose first answer a single look would miss else."""


@dataclass(frozen=True, slots=True)
class DeviceSnapshot:
    """The newest figures of the devices and the host.

    :param taken_s: monotonic; before the first sample, minus infinity
    :param engines: pids of the engines' processes
    :param alive: pids that a device names and that exist here
    :param before_mib: device to what was in use before the engines were started
    :param energy: what each device told of its energy at `energy_at_s` (monotonic); a driver that is late tells nothing
    """

    taken_s: float = float("-inf")
    gpus: tuple[GpuReading, ...] = ()
    gpus_age_s: float | None = None
    host: HostReading | None = None
    engines: frozenset[int] = frozenset()
    alive: frozenset[int] = frozenset()
    before_mib: Mapping[int, int] = field(default_factory=dict)
    rss_mib: int | None = None
    energy: Mapping[str, EnergySample] = field(default_factory=dict)
    energy_at_s: float = float("-inf")


class Telemetry:
    """Samples devices, host and engine.

    :param energy: shares out what the devices used from one sample to the next
    :param underway: the requests that wait or run
    :param on_point: told of each new point
    """

    def __init__(
        self,
        owner: Owner,
        runs: EngineRuns,
        traffic: Traffic,
        gpus: GpuProvider,
        memory: DeviceMemory,
        energy: EnergyBook,
        underway: Callable[[], Sequence[Underway]],
        on_point: Callable[[Point], None] = lambda point: None,
    ) -> None:
        self._runs = runs
        self._gpus = gpus
        self._memory = memory
        self.energy = energy
        self._underway = underway
        self._on_point = on_point
        self._cpu_energy = CpuEnergy()
        self._owner = owner
        self._pace = Pace(traffic, lambda: energy.waiting)
        self._engine = EngineSamples(owner, runs, traffic, self._pace)
        self._sampled = anyio.Event()
        self._trees: dict[int, ProcessTree] = {}
        self._families: dict[int, frozenset[int]] = {}
        self._searched_at = float("-inf")
        self._failing = False
        self._points: deque[Point] = deque(maxlen=KEPT_POINTS)
        self.look = DeviceSnapshot()

    @property
    def work(self) -> Work:
        """The newest figures of the instance in focus; empty where nothing is known of it."""
        return self._engine.work

    @property
    def works(self) -> tuple[Work, ...]:
        """The newest figures of all instances that serve or drain, as far as anything is known of them."""
        return self._engine.works

    def finished(self, record: Finished) -> None:
        """Take note of a request that has ended."""
        if record.outcome in ("client_gone", "cancelled"):
            self._engine.client_left(record.instance)

    def measured(self) -> Measured:
        """Return the rates and slots of the engine at this moment, as far as they are known."""
        return self._engine.measured()

    def measured_of(self, instance: str | None) -> Measured:
        """Return the same for any instance."""
        return self._engine.measured_of(instance)

    def family(self, pid: int) -> frozenset[int]:
        """Return the processes of the engine whose first one this is, with its descendants as they were found last."""
        return self._families.get(pid, frozenset()) | {pid}

    def points(self, count: int) -> list[Point]:
        """Return the newest points, `count` at most, oldest first."""
        return list(self._points)[-count:] if count > 0 else []

    async def wait_fresh(self, patience_s: float = 1.5) -> None:
        """Sample every second from now on, since somebody looks; return after a fresh sample, or a while."""
        began = monotonic()
        first = self._pace.look()
        with anyio.move_on_after(patience_s):
            while monotonic() - self.look.taken_s > 2 * SECOND_S:
                await self._sampled.wait()

        if first:
            with anyio.move_on_after(FIRST_ANSWER_S):
                await self._engine.since(began)

    async def run(self) -> None:
        """Sample devices, host and engine, for ever."""
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._pace.run)
            tasks.start_soon(self._sample_devices)
            tasks.start_soon(self._engine.run)

    # The devices and the host.

    async def _sample_devices(self) -> None:
        due = monotonic()
        while True:
            began = monotonic()
            if began >= due or self._pace.pause_s < IDLE_S:
                await self._sample()
                due = began + IDLE_S

            await self._pace.rest(began + self._pace.pause_s)

    async def _sample(self) -> None:
        children = {child.pid: child.start_time_ticks for child in self._runs.children()}
        before_mib = self._memory.before
        try:
            self.look = await anyio.to_thread.run_sync(self._read, children, before_mib)
        except OSError as error:  # no descriptor left to read /proc with, say
            self._complain(error)
            self.energy.missed()
            return

        self._failing = False
        self.energy.sampled(self._energy_look(), self._underway())
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

    def _energy_look(self) -> EnergyLook:
        look = self.look
        runs = list(serving_runs(self._owner, self._runs).values())
        loaded = loaded_on(runs, look.gpus, self._cpu_energy.packages)
        return EnergyLook(look.energy_at_s, look.energy, loaded)

    def _complain(self, error: OSError) -> None:
        if not self._failing:
            _log.warning("no samples are taken: %s", error)

        self._failing = True

    def _read(self, children: Mapping[int, int], before_mib: Mapping[int, int]) -> DeviceSnapshot:
        """Read devices and host; runs in a thread."""
        pids = self._family(children)
        self._gpus.watch(pids)
        gpus = self._gpus.read_now()
        gpus_age_s = self._gpus.age_s
        fresh = gpus if gpus_age_s is not None and gpus_age_s < FRESH_S else ()
        energy_at_s = monotonic() - (gpus_age_s or 0.0 if fresh else 0.0)
        energy = device_samples(fresh, self._cpu_energy.read(), energy_at_s, clock_gettime(CLOCK_BOOTTIME))
        named = {pid for each in gpus for pid in each.processes or ()}
        return DeviceSnapshot(
            taken_s=monotonic(),
            gpus=gpus,
            gpus_age_s=gpus_age_s,
            energy=energy,
            energy_at_s=energy_at_s,
            host=read_host(),
            engines=pids,
            alive=frozenset(pid for pid in named if stat_of(pid) is not None),
            before_mib=before_mib,
            rss_mib=rss_mib(pids),
        )

    def _family(self, children: Mapping[int, int]) -> frozenset[int]:
        """Return the process ids of the engines, with the descendants as they were found last."""
        if children.keys() != self._trees.keys() or monotonic() - self._searched_at > TREE_S:
            known = {pid: ProcessTree(pid, start) for pid, start in children.items()}
            self._trees = {pid: self._trees.get(pid, tree) for pid, tree in known.items()}
            self._families = {pid: frozenset(tree.members()) for pid, tree in self._trees.items()}
            self._searched_at = monotonic()

        return frozenset(pid for family in self._families.values() for pid in family)


def rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 2)
