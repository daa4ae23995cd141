"""Puts together what a dashboard shows (`api/top_frames.py`), from what the parts of the daemon know."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from time import monotonic
from typing import Any, Literal, cast

import anyio.to_thread

from orchestrator.api.top_frames import (
    GpuFigures,
    HostFigures,
    Rates,
    RequestRow,
    ShareFigures,
    SlotFigures,
    TopFrame,
)
from orchestrator.api.types import InstanceStatus, PageCacheStatus
from orchestrator.core.fleet.ladder import first_rung
from orchestrator.core.fleet.lifecycle_states import State, instance_of
from orchestrator.core.fleet.state_summary import start_record_of
from orchestrator.core.measure.rates import MIN_S, Measured
from orchestrator.core.measure.slots import Slot
from orchestrator.core.profile.profile import EngineProfile
from orchestrator.daemon.control.clock import Clock
from orchestrator.daemon.control.event_log import EventLog
from orchestrator.daemon.control.status import StatusBuilder, gpu_status
from orchestrator.daemon.fleet.engine_run import EngineRuns
from orchestrator.daemon.fleet.owner import Owner
from orchestrator.daemon.residency.shares import device_shares
from orchestrator.daemon.telemetry.device_share import engine_mib, others_mib
from orchestrator.daemon.telemetry.ledger import RequestLedger
from orchestrator.daemon.telemetry.request_slots import slots_of
from orchestrator.daemon.telemetry.telemetry import DeviceSnapshot, Telemetry, rounded
from orchestrator.gateway.contract import RequestFacts, Underway

EVENTS = 20
NEVER = float("-inf")
STALE_S = 5.0
"""A profile's text is compared with what runs so often: reading it is the dearest part of a frame."""

_DIGITS = {"first_token_s": 4, "prompt_tok_s": 2, "decode_tok_s": 2, "held_s": 3, "total_s": 3}
"""Decimal places of a request's row."""


class TopFrames:
    """Answers `GET /v1/frame`.

    :param underway: the requests that wait or run, in the order in which they came
    :param page_cache: how much of an instance's model is in the page cache; may take a second
    """

    def __init__(
        self,
        owner: Owner,
        runs: EngineRuns,
        status: StatusBuilder,
        ledger: RequestLedger,
        underway: Callable[[], Sequence[Underway]],
        telemetry: Telemetry,
        event_log: EventLog,
        page_cache: Callable[[str | None], Awaitable[PageCacheStatus | None]],
    ) -> None:
        self._owner = owner
        self._runs = runs
        self._status = status
        self._ledger = ledger
        self._underway = underway
        self._telemetry = telemetry
        self._event_log = event_log
        self._page_cache = page_cache
        self._stale: list[str] = []
        self._stale_at = float("-inf")

    async def frame(self, points: int, requests: int) -> TopFrame:
        """:param points: how many at most, as `requests`"""
        await self._telemetry.wait_fresh()
        if monotonic() - self._stale_at > STALE_S:
            self._stale = list(await self._status.stale())
            self._stale_at = monotonic()

        cached = await self._page_cache(instance_of(self._owner.fleet.state))
        look, work = self._telemetry.look, self._telemetry.work
        status = self._status.status()
        status["stale"] = self._stale
        status["gpus"] = gpu_status(look.gpus)
        await anyio.to_thread.run_sync(self._status.residents.add_held, status["instances"], look.gpus)
        state = self._owner.fleet.state
        launch = self._runs.launch(instance_of(state))
        return TopFrame(
            version=1,
            taken=self._status.clock.rfc3339(monotonic()),
            status=status,
            margin_origin=margin_origin(state, launch.written if launch else None),
            rates=_rates(work.measured, status["speed"]["draft_acceptance"]),
            gpus=with_shares(gpu_figures(look), device_shares(self._runs, look.gpus), status["instances"]),
            gpus_stale_s=rounded(look.gpus_age_s + monotonic() - look.taken_s) if look.gpus_age_s is not None else None,
            host=host_figures(look, cached),
            slots=[_slot(each) for each in work.slots],
            requests=self._requests(self._underway(), requests),
            attempts=status["attempts"],
            events=self._event_log.after(0)[-EVENTS:],
            points=self._telemetry.points(points),
        )

    def _requests(self, underway: Sequence[Underway], count: int) -> list[RequestRow]:
        """Return the rows newest first, unfinished requests before the others."""
        clock, works = self._status.clock, {work.instance: work for work in self._telemetry.works}
        slots = {number: slot for work in works.values() for number, slot in slots_of(underway, work).items()}
        asked_s = {instance: work.asked_s for instance, work in works.items()}
        rows = [
            underway_row(each, clock, slots.get(each.id), asked_s.get(each.instance, NEVER))
            for each in reversed(underway)
        ]
        for each in reversed(self._ledger.recent):
            rows.append(row_of(each, clock))
            rows[-1]["energy_j"] = self._ledger.energy_j(each.id)

        return rows[: max(count, 0)]


def margin_origin(state: State, written: EngineProfile | None) -> Literal["profile", "learned", "ladder"] | None:
    """Return how the margin in force was found: climbed to after a failure of this run, remembered from an earlier
    one, or written in the profile. None without a margin, and while nothing has been started.

    :param written: the profile as its text says
    """
    start_record = start_record_of(state)
    if start_record is None or written is None or start_record.rung is None or start_record.rung.margins is None:
        return None

    if start_record.attempts and start_record.attempts[0].rung.margins != start_record.rung.margins:
        return "ladder"

    return "profile" if first_rung(written).margins == start_record.rung.margins else "learned"


def _rates(measured: Measured, pooled_acceptance: float | None) -> Rates:
    """:param pooled_acceptance: of the last requests, for an engine that counts drafts in its answers alone"""
    acceptance = measured.draft_acceptance
    return Rates(
        decode_tok_s=rounded(measured.decode_tok_s),
        prompt_tok_s=rounded(measured.prompt_tok_s),
        draft_acceptance=pooled_acceptance if acceptance is None else round(acceptance, 4),
        processing=measured.processing,
        deferred=measured.deferred,
        kv_used=None if measured.kv_used is None else round(measured.kv_used, 4),
    )


def host_figures(look: DeviceSnapshot, cached: PageCacheStatus | None) -> HostFigures:
    host = look.host
    return HostFigures(
        memory_total_mib=host.memory_total_mib if host else 0,
        memory_available_mib=host.memory_available_mib if host else 0,
        swap_used_mib=host.swap_used_mib if host else 0,
        pressure_some=host.pressure_some if host else None,
        pressure_full=host.pressure_full if host else None,
        model_mib=cached["part_mib"] if cached else None,
        model_resident_mib=cached["resident_mib"] if cached else None,
        engine_rss_mib=look.rss_mib,
    )


def gpu_figures(look: DeviceSnapshot) -> list[GpuFigures]:
    figures = []
    for each in look.gpus:
        ours = engine_mib(each, look.engines, look.alive, look.before_mib.get(each.index))
        figures.append(
            GpuFigures(
                index=each.index,
                uuid=each.uuid,
                name=each.name,
                vendor=each.vendor,
                total_mib=each.total_mib,
                used_mib=each.used_mib,
                engine_mib=ours,
                others_mib=others_mib(each, ours),
                utilization=each.utilization,
                power_w=rounded(each.power_w),
                power_limit_w=rounded(each.power_limit_w),
                temperature_c=each.temperature_c,
                sm_clock_mhz=each.sm_clock_mhz,
                memory_clock_mhz=each.memory_clock_mhz,
                throttle=list(each.throttle),
                pcie_rx_mib_s=rounded(each.pcie_rx_mib_s),
                pcie_tx_mib_s=rounded(each.pcie_tx_mib_s),
                energy_j=rounded(each.energy_j),
            )
        )

    return figures


def with_shares(
    gpus: list[GpuFigures], shares: Mapping[int, Mapping[str, int]], rows: Sequence[InstanceStatus]
) -> list[GpuFigures]:
    """Return the devices with what each profile holds of them, in the order of the rows."""
    for gpu in gpus:
        own = shares.get(gpu["index"], {})
        names = [row["profile"] for row in rows if row["profile"] in own]
        gpu["shares"] = [ShareFigures(profile=name, mib=own[name]) for name in names]

    return gpus


def _slot(slot: Slot) -> SlotFigures:
    return SlotFigures(
        id=slot.id,
        busy=slot.busy,
        used_tokens=slot.prompt,
        context_tokens=slot.context,
        decoded_tokens=slot.decoded,
        prompt_done=None if slot.prompt_done is None else round(slot.prompt_done, 4),
    )


def underway_row(request: Underway, clock: Clock, slot: Slot | None, asked_s: float) -> RequestRow:
    """Return the row of a request that has not ended.

    :param slot: what works for it, as it was at `asked_s` (monotonic); None where nobody knows
    """
    decoded = slot.decoded if slot is not None else None
    row = row_of(request, clock)
    row["output_tokens"] = decoded or None
    row["decode_tok_s"] = rounded(_decode_until(request, decoded, asked_s))
    return row


def _decode_until(request: Underway, decoded: int | None, asked_s: float) -> float | None:
    """Return tokens per second since the first one; None while there are too few to tell."""
    if request.first_token_s is None or decoded is None or decoded < 2:
        return None

    took_s = asked_s - request.started - request.first_token_s
    return (decoded - 1) / took_s if took_s >= MIN_S else None


def row_of(request: RequestFacts, clock: Clock) -> RequestRow:
    """Return a request's row: the fields of the same name; None for what only one that has ended can have."""
    row: dict[str, Any] = {name: getattr(request, name, None) for name in RequestRow.__annotations__}
    for name, digits in _DIGITS.items():
        if row[name] is not None:
            row[name] = round(row[name], digits)

    row["started"] = clock.rfc3339(request.started)
    return cast(RequestRow, row)
