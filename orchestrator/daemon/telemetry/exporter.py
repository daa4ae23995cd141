"""Answers a scrape of `/metrics` from what the daemon's parts know. Nothing is woken, and nobody waits for long."""

from __future__ import annotations

from collections.abc import Sequence
from time import monotonic

import anyio
import anyio.to_thread

from orchestrator.core.fleet.lifecycle_states import (
    Backoff,
    Draining,
    Failed,
    Preparing,
    Ready,
    Starting,
    State,
    Stopped,
    Stopping,
    instance_of,
)
from orchestrator.core.fleet.resident_states import Resident
from orchestrator.core.fleet.state_summary import name_of, start_record_of
from orchestrator.core.measure.engine_metrics import Family, read_families
from orchestrator.daemon.control.residents import ResidentRows
from orchestrator.daemon.control.top_frame import gpu_figures, host_figures
from orchestrator.daemon.fleet.engine_run import EngineRuns, engine_probe
from orchestrator.daemon.fleet.owner import Owner
from orchestrator.daemon.fleet.preparing import Launch
from orchestrator.daemon.residency.shares import device_shares
from orchestrator.daemon.telemetry.history import HistoryWriter
from orchestrator.daemon.telemetry.metrics import ResidentGauges, Snapshot, load_library, render
from orchestrator.daemon.telemetry.telemetry import Telemetry
from orchestrator.daemon.telemetry.totals import Totals
from orchestrator.gateway.contract import Traffic

ENGINE_PATIENCE_S = 0.5
"""For the engine's own page. The fork answers between two batches, so one that is busy may not make it."""

KEPT_S = 60.0
"""An engine that does not answer in time is shown as it last was, for so long."""

MAX_CHARACTERS = 256 * 1024

FRESH_S = 1.0
"""Scrapes that come together ask the engine once."""


class Exporter:
    """Renders the page of `GET /metrics`.

    :param residents: builds the rows of `orch status`, one for each loaded profile
    """

    def __init__(
        self,
        owner: Owner,
        runs: EngineRuns,
        traffic: Traffic,
        telemetry: Telemetry,
        totals: Totals,
        history: HistoryWriter,
        residents: ResidentRows | None = None,
    ) -> None:
        self._owner = owner
        self._runs = runs
        self._traffic = traffic
        self._telemetry = telemetry
        self._totals = totals
        self._history = history
        self._residents = residents
        self._pages: dict[str, EnginePage] = {}

    async def page(self) -> bytes:
        await anyio.to_thread.run_sync(load_library)
        await self._ask_engines()
        residents = await self._all_residents()
        return render(self._snapshot(residents), self._totals)

    def _snapshot(self, residents: Sequence[ResidentGauges]) -> Snapshot:
        state, traffic = self._owner.fleet.state, self._traffic
        start_record = start_record_of(state)
        target = start_record.target if start_record is not None and not isinstance(state, Stopped) else None
        run = self._runs.get(instance_of(state))
        look, measured = self._telemetry.look, self._telemetry.measured()
        return Snapshot(
            state=name_of(state),
            pair=(target.profile, target.engine) if target is not None else None,
            build=self._runs.build(instance_of(state)),
            in_flight=traffic.active - traffic.queued,
            queued=traffic.queued,
            decode_tok_s=measured.decode_tok_s,
            prompt_tok_s=measured.prompt_tok_s,
            gpus=gpu_figures(look),
            host=host_figures(look, None) if look.host is not None else None,
            engine=self._families(state),
            history_dropped=self._history.dropped,
            degraded=[each.kind for each in run.degradations] if run is not None else (),
            residents=residents,
            energy=self._telemetry.energy.models,
        )

    async def _all_residents(self) -> list[ResidentGauges]:
        """Return what is known of each loaded profile; without the rows of the status, nothing."""
        if self._residents is None:
            return []

        look, fleet = self._telemetry.look, self._owner.fleet
        rows = self._residents.rows()
        shares = device_shares(self._runs, look.gpus)
        await anyio.to_thread.run_sync(self._residents.add_held, rows, look.gpus)
        states = {each.start_record.target.profile: each for each in map(_state, fleet.residents.values()) if each}
        gauges = []
        for row in rows:
            state = states.get(row["profile"], Stopped())
            run = self._runs.get(instance_of(state))
            measured = self._telemetry.measured_of(instance_of(state))
            unloaded = row["unloaded_since"] is not None
            held = {(str(gpu.index), gpu.uuid): shares[gpu.index].get(row["profile"], 0) for gpu in look.gpus}
            gauges.append(
                ResidentGauges(
                    pair=(row["profile"], row["engine"]),
                    state="unloaded" if unloaded else row["state"],
                    focus=row["focus"],
                    pinned=row["pinned"],
                    build=row["build"],
                    in_flight=row["in_flight"],
                    queued=row["queued"],
                    decode_tok_s=measured.decode_tok_s,
                    prompt_tok_s=measured.prompt_tok_s,
                    gpus_mib={} if unloaded else held,
                    host_mib=row["host_mib"],
                    engine=self._families(state),
                    degraded=[each.kind for each in run.degradations] if run is not None else (),
                )
            )

        return gauges

    def _families(self, state: State) -> Sequence[Family]:
        page = self._pages.get(state.instance) if isinstance(state, Ready) else None
        return page.families() if page is not None else ()

    async def _ask_engines(self) -> None:
        """Ask all ready instances for their metrics. `GET /metrics` does not wake upstream when it sleeps."""
        states = (resident.state for resident in self._owner.fleet.residents.values())
        ready = [state.instance for state in states if isinstance(state, Ready)]
        self._pages = {instance: self._pages.get(instance) or EnginePage() for instance in ready}
        async with anyio.create_task_group() as tasks:
            for instance, page in self._pages.items():
                launch = self._runs.launch(instance)
                if launch is not None:
                    tasks.start_soon(page.ask, launch)


class EnginePage:
    """What one instance says of itself, as it was asked last."""

    def __init__(self) -> None:
        self._asking = anyio.Lock()
        self._families: Sequence[Family] = ()
        self._asked_at = self._answered_at = float("-inf")

    def families(self) -> Sequence[Family]:
        return self._families if monotonic() - self._answered_at <= KEPT_S else ()

    async def ask(self, launch: Launch) -> None:
        """Ask, unless somebody has just done so."""
        async with self._asking:
            if monotonic() - self._asked_at <= FRESH_S:
                return

            text = None
            with anyio.move_on_after(2 * ENGINE_PATIENCE_S):  # for one that answers drop by drop
                async with engine_probe(launch) as probe:
                    text = await probe.metrics(ENGINE_PATIENCE_S)

            self._asked_at = monotonic()
            if text is not None:
                self._families, self._answered_at = read_families(text[:MAX_CHARACTERS]), self._asked_at


def _state(resident: Resident) -> Preparing | Starting | Ready | Draining | Stopping | Backoff | Failed | None:
    return None if isinstance(resident.state, Stopped) else resident.state
