"""Asks the engine that serves what it does: `/metrics` and `/slots`, one question at a time.

It is asked by HTTP only while it has something to do, once more after that, and once when somebody begins to look:
what is idle does not change, and is not woken. One that is busy with a long batch leaves the last figures.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from time import monotonic

import anyio

from orchestrator.adapters.engine_probe import EngineProbe
from orchestrator.core.fleet.lifecycle_states import Draining, Ready
from orchestrator.core.measure import rates
from orchestrator.core.measure.rates import CounterSample, Measured, Meter
from orchestrator.core.measure.slots import Slot, read_slots
from orchestrator.daemon.fleet.engine_run import EngineRun, EngineRuns, engine_probe
from orchestrator.daemon.fleet.owner import Owner
from orchestrator.daemon.telemetry.pace import IDLE_S, SECOND_S, Pace
from orchestrator.gateway.contract import Traffic

PATIENCE_S = 10.0
"""For one answer. Both engines answer between two batches; giving up early would only fill their queue."""

FORK_EVERY_S = 2.0
"""While somebody looks, else `IDLE_S`: the fork logs three lines for each question, and sends each prompt along."""

STALE_S = 15.0
"""Rates that are older are not what happens now."""

NOTHING = Measured(decode_tok_s=0.0, prompt_tok_s=0.0, processing=0, deferred=0)


@dataclass(frozen=True, slots=True)
class Work:
    """The newest figures of one engine that serves.

    :param asked_s: when the slots were asked for, monotonic; `answered_s` is when all was known
    :param busy_since: when each busy slot was first seen at its present task, by slot and task (monotonic)
    """

    instance: str | None = None
    slots: tuple[Slot, ...] = ()
    measured: Measured = Measured()
    asked_s: float = float("-inf")
    answered_s: float = float("-inf")
    busy_since: Mapping[tuple[int, int | None], float] = field(default_factory=dict)


class EngineSamples:
    """Owns the questions to engines: one at a time to each that serves."""

    def __init__(self, owner: Owner, runs: EngineRuns, traffic: Traffic, pace: Pace) -> None:
        self._owner = owner
        self._runs = runs
        self._traffic = traffic
        self._pace = pace
        self._works: dict[str, Work] = {}
        self._answered = anyio.Event()
        self._left: set[str] = set()

    @property
    def serving(self) -> str | None:
        """The instance in focus, if it serves or drains."""
        state = self._owner.fleet.state
        return state.instance if isinstance(state, Ready | Draining) else None

    @property
    def work(self) -> Work:
        """The newest figures of the instance in focus; empty where nothing is known of it."""
        return self._works.get(self.serving or "", Work())

    @property
    def works(self) -> tuple[Work, ...]:
        """The newest figures of all instances that serve or drain, as far as anything is known of them."""
        serving = self._all_serving()
        return tuple(work for instance, work in self._works.items() if instance in serving)

    def measured(self) -> Measured:
        """Return the rates and slots of the engine in focus at this moment, as far as they are known."""
        work = self.work
        return work.measured if monotonic() - work.answered_s <= STALE_S else Measured()

    def measured_of(self, instance: str | None) -> Measured:
        """Return the same for any instance."""
        work = self._works.get(instance or "", Work())
        return work.measured if monotonic() - work.answered_s <= STALE_S else Measured()

    def client_left(self, instance: str | None) -> None:
        """Look at an engine once more: a client left before its answer, and its slot may work on."""
        if instance in self._works:
            self._left.add(instance)

    async def since(self, began: float) -> None:
        """Wait until the engine in focus has answered since then (monotonic), or was found to have nothing to do."""
        while self.serving is not None and self.work.answered_s < began:
            await self._answered.wait()

    async def run(self) -> None:
        """Ask each engine that serves at the pace of sampling, for ever."""
        generation = 0
        async with anyio.create_task_group() as tasks:
            while True:
                await self._owner.published.changed(generation)
                generation = self._owner.published.generation
                for instance in self._all_serving() - self._works.keys():
                    run = self._runs.get(instance)
                    if run is not None:
                        self._works[instance] = Work(instance)
                        tasks.start_soon(self._sample, instance, run)

    def _all_serving(self) -> set[str]:
        states = (resident.state for resident in self._owner.fleet.residents.values())
        return {state.instance for state in states if isinstance(state, Ready | Draining)}

    async def _sample(self, instance: str, run: EngineRun) -> None:
        try:
            async with engine_probe(run.launch) as probe:
                await self._follow(instance, run, probe)
        finally:
            self._works.pop(instance, None)
            self._left.discard(instance)

    async def _follow(self, instance: str, run: EngineRun, probe: EngineProbe) -> None:
        """Sample one instance while it serves."""
        fork = run.launch.capabilities.kind == "ik"
        meter: Meter | None = None
        relayed = -1
        while instance in self._all_serving():
            work = self._works[instance]
            began = monotonic()
            busy = self._traffic.in_flight(instance) > 0
            moved = self._traffic.relayed(instance) != relayed
            # A slot that works on for a client that is gone is watched to its end.
            busy = busy or instance in self._left or bool(work.busy_since)
            self._left.discard(instance)
            if busy or (moved and (self._pace.watched or meter is not None)):
                relayed = self._traffic.relayed(instance) if not busy else -1
                meter = await self._ask(instance, run, probe, meter)
                rest_s = SECOND_S if not fork else FORK_EVERY_S if self._pace.watched else IDLE_S
                await self._pace.rest(began + rest_s)
            else:
                meter = rates.idle_meter(meter, began) if meter is not None else None
                self._tell(instance, replace(work, measured=idle_rates(work.measured), answered_s=began))
                await self._pace.rest(began + self._pace.pause_s)

    async def _ask(self, instance: str, run: EngineRun, probe: EngineProbe, meter: Meter | None) -> Meter | None:
        """Take one sample; the totals first, see `core/measure/rates.py`."""
        totals = await probe.metrics(PATIENCE_S)
        asked = monotonic()
        slots = read_slots(await probe.slots(PATIENCE_S))
        if totals is None and slots is None:
            return meter

        now, before = monotonic(), self._works[instance]
        sample = CounterSample(now, slots, rates.read_totals(totals or ""))
        if meter is None:
            meter, measured = rates.begin_meter(sample)
        else:
            meter, measured = rates.advance_meter(meter, sample)
            if measured.draft_acceptance is None:  # drafts are counted when a request ends: the last one holds
                measured = replace(measured, draft_acceptance=before.measured.draft_acceptance)

        await run.log_cursor.catch_up()
        known = with_progress(slots or (), run)
        self._tell(instance, Work(instance, known, measured, asked, now, busy_since(known, asked, before.busy_since)))
        return meter

    def _tell(self, instance: str, work: Work) -> None:
        self._works[instance] = work
        self._answered.set()
        self._answered = anyio.Event()


def busy_since(
    slots: tuple[Slot, ...], now: float, before: Mapping[tuple[int, int | None], float]
) -> Mapping[tuple[int, int | None], float]:
    """Return since when each busy slot has been at its present task, as far as it was seen."""
    return {(slot.id, slot.task): before.get((slot.id, slot.task), now) for slot in slots if slot.busy}


def with_progress(slots: tuple[Slot, ...], run: EngineRun) -> tuple[Slot, ...]:
    """Return the slots with the prompt progress that the engine's log tells."""
    if not any(slot.reading for slot in slots):
        return slots

    shares = run.log_cursor.activity.prompt_shares
    return tuple(replace(slot, told=shares.get(-1 if slot.task is None else slot.task)) for slot in slots)


def idle_rates(measured: Measured) -> Measured:
    """Return the rates of an idle engine: zero, with KV use and draft acceptance as they were last."""
    return replace(NOTHING, draft_acceptance=measured.draft_acceptance, kv_used=measured.kv_used)
