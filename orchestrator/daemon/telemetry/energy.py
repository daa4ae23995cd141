"""Keeps the book of energy: at each sample of the devices it shares out what they used since the last one.

Nothing waits for it but a request's row in the history, which needs the sample after its end: within a second or two.
Of a model on whose devices nobody tells, it is written at once.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from orchestrator.adapters.hardware.cpu_energy import PackageEnergy
from orchestrator.adapters.hardware.gpu import GpuReading
from orchestrator.core.energy.intervals import EnergySample
from orchestrator.core.energy.sharing import (
    IdleRecord,
    ModelEnergy,
    Pair,
    RequestAtWork,
    share_out,
)
from orchestrator.core.quantities import HOUR_S
from orchestrator.daemon.fleet.engine_run import EngineRun
from orchestrator.daemon.residency.shares import device_shares
from orchestrator.daemon.telemetry.totals import MAX_PAIRS, OTHER
from orchestrator.gateway.contract import Finished, RequestFacts

KEEP_EVERY_S = 60.0
"""Idle energy is given to the history so often."""

Settle = Callable[[float | None], None]
"""Takes a request's energy, J; None when it is unknown."""


@dataclass(frozen=True, slots=True)
class EnergyLook:
    """What a sample says about energy.

    :param taken_s: monotonic
    :param devices: by name, those that told something
    :param loaded: the devices that each loaded model is on
    """

    taken_s: float
    devices: Mapping[str, EnergySample]
    loaded: Mapping[Pair, Collection[str]]


class EnergyBook:
    """Shares out energy, and settles requests that have ended. Belongs to the loop.

    :param keep: takes idle energy for the history
    :param clock: Unix time
    :ivar models: what each model has used since the daemon began, by profile and engine; only of those of which
        anything was ever known
    """

    def __init__(self, keep: Callable[[IdleRecord], None], clock: Callable[[], float]) -> None:
        self._keep = keep
        self._clock = clock
        self.models: dict[Pair, ModelEnergy] = {}
        self._last: EnergyLook | None = None
        self._idle_w: dict[str, float] = {}
        self._joules: dict[int, float | None] = {}
        """Of the requests that were at an engine at the last sample, until then."""
        self._ended: dict[int, tuple[RequestAtWork, Settle]] = {}
        self._unkept: dict[Pair, ModelEnergy] = {}
        self._keep_at = float("-inf")

    @property
    def waiting(self) -> bool:
        """Whether a request has ended whose energy the next sample gives."""
        return bool(self._ended)

    def finished(self, record: Finished, settle: Settle) -> None:
        """Settle a request that has ended: at the next sample, or at once when there is nothing to wait for."""
        request = _at_work(record, record.started + record.total_s)
        if request is None or not self._may_be_told(request.model):
            self._joules.pop(record.id, None)
            settle(None)
        else:
            self._ended[record.id] = (request, settle)

    def sampled(self, look: EnergyLook, underway: Sequence[RequestFacts]) -> None:
        """Share out what was used since the last sample, and settle the requests that ended before this one."""
        last, self._last = self._last, look
        running = {each.id: _at_work(each, float("inf")) for each in underway if each.outcome == "running"}
        requests = {number: request for number, request in running.items() if request is not None}
        requests.update((number, request) for number, (request, _) in self._ended.items())
        if last is None:  # what began before the first sample is never known as a whole
            self._joules = dict.fromkeys(requests)
        else:
            self._add(last, look, requests)

        for number in [number for number, (request, _) in self._ended.items() if request.span[1] <= look.taken_s]:
            _, settle = self._ended.pop(number)
            settle(self._joules.pop(number))

        self._joules = {number: joules for number, joules in self._joules.items() if number in requests}

    def _add(self, last: EnergyLook, look: EnergyLook, requests: Mapping[int, RequestAtWork]) -> None:
        """Add what was used between two samples to the requests and the models."""
        for number in requests.keys() - self._joules.keys():  # not at an engine when the last sample was taken
            self._joules[number] = 0.0

        # Also what was unloaded since: its last requests were answered before that.
        loaded = {**last.loaded, **look.loaded}
        samples = {name: (last.devices[name], now) for name, now in look.devices.items() if name in last.devices}
        shared = share_out((last.taken_s, look.taken_s), samples, loaded, requests, self._idle_w)
        for number, more_j in shared.requests.items():
            before_j = self._joules[number]
            self._joules[number] = None if before_j is None or more_j is None else before_j + more_j

        self._idle_w.update(shared.idle_w)
        self._count(shared.models, look.taken_s)

    def missed(self) -> None:
        """Settle what waits without its energy: no sample could be taken, or none comes any more."""
        self._last = None
        self._joules.clear()
        ended, self._ended = list(self._ended.values()), {}
        for _, settle in ended:
            settle(None)

    def close(self) -> None:
        """Give everything that waits to the history."""
        self.missed()
        self._keep_idle()

    def _may_be_told(self, model: Pair) -> bool:
        """Return whether the next sample may tell the energy of a model, by what the last one had."""
        if self._last is None or model not in self._last.loaded:  # loaded since: on which devices is not known yet
            return self._last is not None and bool(self._last.devices)

        devices = self._last.loaded[model]
        return bool(devices) and all(device in self._last.devices for device in devices)

    def _count(self, models: Mapping[Pair, ModelEnergy], now_s: float) -> None:
        for model, energy in models.items():
            name = model if model in self.models or len(self.models) < MAX_PAIRS else OTHER
            if name in self.models or energy.busy_j or energy.idle_j:
                self.models.setdefault(name, ModelEnergy()).add(energy)

            self._unkept.setdefault(model, ModelEnergy()).add(energy)

        if now_s >= self._keep_at + KEEP_EVERY_S:
            self._keep_at = now_s
            self._keep_idle()

    def _keep_idle(self) -> None:
        hour_s = int(self._clock() // HOUR_S) * HOUR_S
        for (profile, engine), each in self._unkept.items():
            if each.idle_s or each.idle_unknown_s:
                self._keep(IdleRecord(hour_s, profile, engine, each.idle_j, each.idle_s, each.idle_unknown_s))

        self._unkept.clear()


def _at_work(request: RequestFacts, end_s: float) -> RequestAtWork | None:
    """Return a request with its time at the engine; None for one that never got to an engine."""
    if request.instance is None or request.profile is None or request.engine is None:
        return None

    return RequestAtWork((request.profile, request.engine), (request.started + request.held_s, end_s))


def device_samples(
    gpus: Iterable[GpuReading], packages: Iterable[PackageEnergy], taken_s: float, boot_s: float
) -> dict[str, EnergySample]:
    """Return what each device tells about its energy, without those that tell nothing."""
    samples = {
        device_name(each): EnergySample(taken_s, boot_s, each.energy_j, each.power_w)
        for each in gpus
        if each.energy_j is not None or each.power_w is not None
    }
    samples.update(
        (each.name, EnergySample(taken_s, boot_s, each.counter_j, wraps_at_j=each.wraps_at_j)) for each in packages
    )
    return samples


def device_name(gpu: GpuReading) -> str:
    """Return what a device is called in the book: its name for good, where it has one."""
    return gpu.uuid or f"gpu{gpu.index}"


def loaded_on(
    runs: Sequence[EngineRun], gpus: Sequence[GpuReading], packages: Collection[str]
) -> dict[Pair, tuple[str, ...]]:
    """Return the devices whose energy is each model's: those that it has memory on, else all processors.

    An engine that said to have memory on a device is on no processors, whoever tells about the device: its driver may
    be gone for now, or it may be another machine's.
    """
    shares = device_shares(runs, gpus)
    loaded: dict[Pair, tuple[str, ...]] = {}
    for run in runs:
        target = run.launch.target
        own = tuple(device_name(each) for each in gpus if target.profile in shares[each.index])
        elsewhere = run.read_back is not None and run.read_back.start.devices
        loaded[target.profile, target.engine] = own or (() if elsewhere else tuple(packages))

    return loaded
