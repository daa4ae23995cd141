"""Answers a scrape of `/metrics` from what the daemon's parts know. Nothing is woken, and nobody waits for long."""

from __future__ import annotations

from collections.abc import Sequence
from time import monotonic

import anyio
import anyio.to_thread

from orchestrator.core.fleet.lifecycle_states import Ready, Stopped, instance_of
from orchestrator.core.fleet.state_summary import name_of, start_record_of
from orchestrator.core.measure.engine_metrics import Family, read_families
from orchestrator.daemon.control.top_frame import gpu_figures, host_figures
from orchestrator.daemon.fleet.engine_run import EngineRuns, engine_probe
from orchestrator.daemon.fleet.owner import Owner
from orchestrator.daemon.telemetry.history import HistoryWriter
from orchestrator.daemon.telemetry.metrics import Snapshot, load_library, render
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
    """Renders the page of `GET /metrics`."""

    def __init__(
        self,
        owner: Owner,
        runs: EngineRuns,
        traffic: Traffic,
        telemetry: Telemetry,
        totals: Totals,
        history: HistoryWriter,
    ) -> None:
        self._owner = owner
        self._runs = runs
        self._traffic = traffic
        self._telemetry = telemetry
        self._totals = totals
        self._history = history
        self._asking = anyio.Lock()
        self._instance: str | None = None
        self._families: Sequence[Family] = ()
        self._asked_at = self._answered_at = float("-inf")

    async def page(self) -> bytes:
        await anyio.to_thread.run_sync(load_library)
        engine = await self._engine()
        return render(self._snapshot(engine), self._totals)

    def _snapshot(self, engine: Sequence[Family]) -> Snapshot:
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
            engine=engine,
            history_dropped=self._history.dropped,
            degraded=[each.kind for each in run.degradations] if run is not None else (),
        )

    async def _engine(self) -> Sequence[Family]:
        """Return the metrics of the ready instance. `GET /metrics` does not wake upstream when it sleeps."""
        async with self._asking:
            state = self._owner.fleet.state
            instance = state.instance if isinstance(state, Ready) else None
            if instance != self._instance:
                self._instance, self._families = instance, ()
                self._asked_at = self._answered_at = float("-inf")

            launch = self._runs.launch(instance)
            if launch is not None and monotonic() - self._asked_at > FRESH_S:
                text = None
                with anyio.move_on_after(2 * ENGINE_PATIENCE_S):  # for one that answers drop by drop
                    async with engine_probe(launch) as probe:
                        text = await probe.metrics(ENGINE_PATIENCE_S)

                self._asked_at = monotonic()
                if text is not None:
                    self._families, self._answered_at = read_families(text[:MAX_CHARACTERS]), self._asked_at

            return self._families if monotonic() - self._answered_at <= KEPT_S else ()
