"""Builds the rows of `instances` in `orch status`: a row for each profile that is loaded, starts, failed or sleeps."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from time import monotonic

from orchestrator.adapters.hardware.gpu import GpuReading
from orchestrator.adapters.hardware.host import rss_mib
from orchestrator.api.types import InstanceStatus, MemoryStatus
from orchestrator.core.fleet.fleet_states import Fleet
from orchestrator.core.fleet.lifecycle_states import State, Stopped, Target, describe, instance_of
from orchestrator.core.fleet.resident_states import Resident, target_of
from orchestrator.core.fleet.state_summary import StateName, failure_of, name_of, pid_of, progress_of
from orchestrator.core.plan.amounts import Amount
from orchestrator.core.quantities import MIB
from orchestrator.core.starts.readback import MemoryRow
from orchestrator.daemon.control.clock import Clock
from orchestrator.daemon.fleet.engine_run import EngineRuns
from orchestrator.daemon.fleet.owner import Owner
from orchestrator.gateway.contract import Traffic

HOST = "host"
"""The place of host memory among the rows of a read-back."""


@dataclass(frozen=True, slots=True)
class _Entered:
    """The state of a seat, and since when (monotonic) it has this name; `ready` is when it became ready last."""

    name: StateName
    current: str | None
    since: float
    ready: float | None


class ResidentRows:
    """Builds them, the one in focus first.

    :param waiting: how many requests wait for a profile, and since when, by profile
    :param idle_s: seconds since the last request of a profile; None where it had none
    """

    def __init__(
        self,
        owner: Owner,
        runs: EngineRuns,
        traffic: Traffic,
        waiting: Callable[[], Mapping[str, tuple[int, float]]],
        clock: Clock,
        idle_s: Callable[[str], float | None] = lambda profile: None,
    ) -> None:
        self._owner = owner
        self._runs = runs
        self._traffic = traffic
        self._waiting = waiting
        self._clock = clock
        self._idle_s = idle_s
        self._entered: dict[str, _Entered] = {}
        owner.observe(self._look)

    def rows(self) -> list[InstanceStatus]:
        """Return them without what their processes hold."""
        fleet, waiting = self._owner.fleet, self._waiting()
        shown = [(seat, each, target) for seat, each in ordered(fleet) if (target := shown_target(each)) is not None]
        unnamed = max(self._traffic.queued - sum(count for count, _ in waiting.values()), 0)
        rows = []
        for seat, resident, target in shown:
            named, _ = waiting.get(target.profile, (0, 0.0))
            queued = named + unnamed if seat == fleet.focus else named
            rows.append(self._row(seat, resident, target, fleet, queued))

        return rows

    def _row(self, seat: str, resident: Resident, target: Target, fleet: Fleet, queued: int) -> InstanceStatus:
        state, instances = resident.state, [*filter(None, map(instance_of, resident.slots.values()))]
        instance, failure = instance_of(state), failure_of(state)
        waits = next((fleet.waiting[each].why for each in instances if each in fleet.waiting), None)
        entered = self._entered.get(seat)
        since = self._clock.rfc3339(entered.since if entered is not None else monotonic())
        unloaded = resident.asleep is not None and isinstance(state, Stopped)
        loading = self._runs.loading(instance)
        idle_s = self._idle_s(target.profile)
        if idle_s is None and unloaded and entered is not None and entered.ready is not None:  # it never had a request
            idle_s = monotonic() - entered.ready

        return InstanceStatus(
            profile=target.profile,
            engine=target.engine,
            build=self._runs.build(instance),
            state=name_of(state),
            pid=pid_of(state),
            focus=seat == fleet.focus,
            pinned=fleet.pinned(target.profile),
            idle_s=None if idle_s is None else round(idle_s, 1),
            in_flight=sum(map(self._traffic.in_flight, instances)),
            queued=queued,
            memory=memory_status(self._runs.memory(instance)),
            device_mib=None,
            host_mib=None,
            unloaded_since=since if unloaded else None,
            waits=waits or None,
            cause=describe(failure) if failure is not None else None,
            hint=failure.hint if failure is not None else None,
            since=since,
            progress=resident_progress(state, target, loading, waits, unloaded=unloaded),
        )

    def progress_towards(self, seat: str) -> str:
        """Return one line for those who wait for a seat to come into focus."""
        fleet = self._owner.fleet
        resident = fleet.residents[seat]
        state, switch = resident.state, resident.switch
        target = switch.operation.target if switch is not None else target_of(state)
        start = fleet.waiting.get(instance_of(state) or "")
        waits = start.why if start is not None else None
        loading = self._runs.loading(instance_of(state))
        text = f"it waits: {waits}" if waits else progress_of(state, loading)
        return f"switching to {target}: {text}"

    def add_held(self, rows: Sequence[InstanceStatus], gpus: Sequence[GpuReading]) -> None:
        """Enter what the processes hold: as the driver says by process, else as the engine said. Blocks shortly."""
        instances = {pid_of(state): instance_of(state) for state in self._owner.fleet.slots.values()}
        for row in rows:
            if row["pid"] is not None:
                read = self._runs.memory(instances.get(row["pid"]))
                row["device_mib"] = device_mib(row["pid"], gpus, read)
                row["host_mib"] = rss_mib((row["pid"],))

    def _look(self) -> None:
        now = monotonic()
        before, self._entered = self._entered, {}
        for seat, resident in self._owner.fleet.residents.items():
            name, known = name_of(resident.state), before.get(seat)
            if known is None or (known.name, known.current) != (name, resident.current):
                ready = now if name == "ready" else known.ready if known is not None else None
                known = _Entered(name, resident.current, now, ready)

            self._entered[seat] = known


def ordered(fleet: Fleet) -> list[tuple[str, Resident]]:
    """Return the residents by seat, the one in focus first."""
    return sorted(fleet.residents.items(), key=lambda each: each[0] != fleet.focus)


def shown_target(resident: Resident) -> Target | None:
    """Return what a seat is about; None for one that was stopped for good."""
    if resident.asleep is not None:
        return resident.asleep

    return None if isinstance(resident.state, Stopped) else target_of(resident.state)


def resident_progress(state: State, target: Target, loading: str, waits: str | None, *, unloaded: bool) -> str:
    """Return one line for those who wait for a resident."""
    if unloaded:
        return f"{target} is unloaded; the next request loads it"

    return f"{target} waits to be loaded: {waits}" if waits else progress_of(state, loading)


def device_mib(pid: int, gpus: Sequence[GpuReading], read: Sequence[MemoryRow]) -> int | None:
    """Return the device memory of a process, all devices together: as the driver says, else as the engine said."""
    told = [each.processes[pid] for each in gpus if each.processes is not None and pid in each.processes]
    if told:
        return sum(told)

    measured = [row.measured_bytes for row in read if row.place != HOST and row.measured_bytes is not None]
    return sum(measured) >> 20 if measured else None


def memory_status(rows: Sequence[MemoryRow]) -> list[MemoryStatus]:
    """Return what an engine was planned to take and took, as `orch status` shows it."""
    return [
        MemoryStatus(
            place=row.place,
            component=row.component,
            planned_mib={"low": _rounded(row.planned.low_mib), "high": _upper_mib(row.planned)},
            kind=row.planned.kind,
            measured_mib=None if row.measured_bytes is None else _rounded(row.measured_bytes / MIB),
        )
        for row in rows
    ]


def _rounded(mib: float) -> float:
    return round(mib, 1)


def _upper_mib(amount: Amount) -> float | None:
    return None if amount.is_open else _rounded(amount.high_mib)
