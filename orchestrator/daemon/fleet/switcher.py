"""`orch switch`: everything about a switch that is not a decision of `core/fleet`.

Preflight and read-ahead happen while the old instance serves on; what can go wrong there, it never notices. Then the
fleet switches (`core/fleet/fleet.py`), and the result is kept for whoever asked.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Literal

import anyio
import anyio.to_thread

from orchestrator.adapters.abandonable import run_abandonable
from orchestrator.adapters.gguf.splits import split_paths
from orchestrator.adapters.hardware.gpu import GpuProvider
from orchestrator.adapters.hardware.host import available_memory_bytes
from orchestrator.adapters.hardware.page_cache import read_ahead, residency
from orchestrator.api.types import SwitchResult, TargetName
from orchestrator.core.errors import OrchError
from orchestrator.core.fleet.fleet_states import FocusRequested, RestartRequested
from orchestrator.core.fleet.lifecycle_states import Ready, Target
from orchestrator.core.fleet.resident import CANCELLED
from orchestrator.core.fleet.resident_states import (
    CancelRequested,
    EndCause,
    Strategy,
    SwitchFinished,
    SwitchRequested,
    target_of,
)
from orchestrator.core.residency.placement import choose_strategy
from orchestrator.core.starts.read_ahead import read_ahead_bytes
from orchestrator.core.starts.start import placed_mib
from orchestrator.daemon.fleet.owner import Owner, fresh_slot
from orchestrator.daemon.fleet.preparing import Preparer, ResolvedTarget

_log = logging.getLogger(__name__)

KEPT_RESULTS = 50


@dataclass(slots=True)
class PendingSwitch:
    """One switch, from the request to its result.

    :ivar keep: what was in focus stays loaded
    :ivar aside: it starts a resident anew that may not be in focus: it takes nobody's place, and can be one of several
    :ivar reading: the read-ahead, which nobody waits for once it is cancelled
    :ivar read_percent: how much of what it is to read has been read
    :ivar end: why it did not reach its target, once it is done
    """

    id: str
    origin: Target | None
    target: Target
    strategy: Strategy
    reason: str
    again: bool = False
    now: bool = False
    keep: bool = False
    aside: bool = False
    phase: Literal["reading", "switching", "done"] = "reading"
    held_before: int = 0
    begun: bool = False
    reading: anyio.CancelScope = field(default_factory=anyio.CancelScope)
    read_percent: int = 0
    end: EndCause | None = None
    result: SwitchResult | None = None
    done: anyio.Event = field(default_factory=anyio.Event)


class Switcher:
    """Runs one switch of the focus at a time, and beside it those that start a resident anew.

    :param held: how many requests have ever been held by the gateway
    :param reads_ahead: told what is about to be started while its model is read; None once the fleet has the switch;
        and asked with it how many per cent have been read
    :param free_host_mib: the host memory that a start could take; 0 where nobody knows
    """

    def __init__(
        self,
        owner: Owner,
        preparer: Preparer,
        gpus: GpuProvider,
        held: Callable[[], int],
        reads_ahead: Callable[[Target | None, Callable[[], int]], None],
        free_host_mib: Callable[[], Awaitable[int]],
    ) -> None:
        self._owner = owner
        self._preparer = preparer
        self._gpus = gpus
        self._held = held
        self._reads_ahead = reads_ahead
        self._free_host_mib = free_host_mib
        self._operations: dict[str, PendingSwitch] = {}

    @property
    def current(self) -> PendingSwitch | None:
        """The switch of the focus that is under way."""
        return next((each for each in self._operations.values() if each.phase != "done" and not each.aside), None)

    def find(self, operation_id: str) -> PendingSwitch:
        """:raises OrchError: when it is unknown, or long over"""
        operation = self._operations.get(operation_id)
        if operation is None:
            raise OrchError(f"there is no switch `{operation_id}`", hint="`orch events` shows what happened")

        return operation

    async def plan(
        self, resolved: ResolvedTarget, strategy: Strategy | None, *, again: bool = False
    ) -> tuple[Strategy, str]:
        """Return the strategy, and the reason for it.

        :param again: what runs is started anew
        """
        if strategy is not None:
            return strategy, "asked for"

        if not again and self._serves(resolved.target):
            return "beside", "it is loaded already"

        gpus = await anyio.to_thread.run_sync(self._gpus.read)
        free_mib = [each.total_mib - each.used_mib for each in gpus]
        available_mib = available_memory_bytes() >> 20
        on_devices, on_host = placed_mib(resolved.plan) if resolved.plan is not None else (None, None)
        return choose_strategy(
            resolved.profile,
            resolved.model_bytes >> 20,
            free_mib,
            available_mib,
            planned_device_mib=on_devices,
            planned_host_mib=on_host,
        )

    def _serves(self, target: Target) -> bool:
        """Return whether a target serves beside what is in focus."""
        fleet = self._owner.fleet
        beside = (resident.state for seat, resident in fleet.residents.items() if seat != fleet.focus)
        return any(isinstance(state, Ready) and state.start_record.target == target for state in beside)

    def begin(
        self, resolved: ResolvedTarget, strategy: Strategy, reason: str, *,
        again: bool = False, now: bool = False, keep: bool = False,
    ) -> PendingSwitch:  # fmt: skip
        """Register a switch; `run` carries it out. It takes the place of another one that is under way.

        :param again: start anew what runs already
        :param now: cut the requests that run instead of waiting for their end
        :param keep: what is in focus stays loaded
        :return: the one under way, when that has the same target
        """
        busy = self.current
        if busy is not None and (busy.target, busy.keep) == (resolved.target, keep) and not (again or now):
            return busy

        self.interrupt(EndCause("interrupted", f"replaced by a switch to {resolved.target}"))
        origin = target_of(self._owner.fleet.state) if self._owner.fleet.slots else None
        operation = PendingSwitch(
            fresh_slot(), origin, resolved.target, strategy, reason, again, now, keep, held_before=self._held()
        )
        self._keep(operation)
        self._reads_ahead(operation.target, lambda: operation.read_percent)
        return operation

    def begin_aside(self, resolved: ResolvedTarget, strategy: Strategy, reason: str) -> PendingSwitch:
        """Register that a resident is started anew; `run` carries it out. No other switch gives way to it."""
        target = resolved.target
        operation = PendingSwitch(
            fresh_slot(), target, target, strategy, reason, again=True, aside=True, held_before=self._held()
        )
        return self._keep(operation)

    def adopt(self, target: Target, slot: str) -> PendingSwitch:
        """Register a start that may replace what runs, so that its result can be asked for. It needs no `run`."""
        self.interrupt(EndCause("interrupted", f"replaced by a start of {target}"))
        origin = target_of(self._owner.fleet.state) if self._owner.fleet.slots else None
        operation = PendingSwitch(slot, origin, target, "replace", "asked for", held_before=self._held())
        operation.phase = "switching"
        return self._keep(operation)

    def forget(self, operation: PendingSwitch) -> None:
        """Drop a start that replaced nothing: its result is the state."""
        self._operations.pop(operation.id, None)

    def _keep(self, operation: PendingSwitch) -> PendingSwitch:
        self._operations[operation.id] = operation
        for old in list(self._operations)[:-KEPT_RESULTS]:
            del self._operations[old]

        return operation

    async def run(self, operation: PendingSwitch, resolved: ResolvedTarget) -> None:
        """Read ahead, then ask the owner to switch; return when it has taken the request, or is not to any more."""
        if operation.phase != "reading" or operation.begun:  # interrupted before it began, or joined by a second asker
            return

        operation.begun = True
        loaded = operation.target == operation.origin or self._serves(operation.target)
        # Where nothing serves meanwhile, the engine itself reads its file as fast, and begins sooner.
        serving = any(isinstance(state, Ready) for state in self._owner.fleet.slots.values())
        if serving and not loaded and self._owner.fleet.switch is None:
            with operation.reading:
                try:
                    free_mib = await self._free_host_mib()
                    await run_abandonable(lambda: _read_ahead(operation, resolved, free_mib << 20))
                except (OSError, RuntimeError, ValueError) as error:  # no thread or descriptor left, a disk's error
                    _log.warning("the model is not read ahead: %s", error)

        if operation.phase != "reading":
            return

        operation.phase = "switching"
        request = SwitchRequested(operation.target, operation.id, operation.strategy, operation.again, operation.now)
        event = RestartRequested(request) if operation.aside else FocusRequested(request, operation.keep)
        try:
            fleet = await self._owner.ask(event)
            taken = any(each.switch and each.switch.operation.id == operation.id for each in fleet.residents.values())
            if operation.aside and not taken and operation.result is None:  # it was taken down just before
                gone = EndCause("interrupted", "it is not loaded any more")
                self._settle(operation, ok=False, rolled_back=False, end=gone, gap_s=0.0, total_s=0.0)
        finally:
            self._end_reading()

    def interrupt(self, end: EndCause) -> None:
        """End a switch that still reads ahead; one that the fleet has taken is the fleet's to end."""
        operation = self.current
        if operation is not None and operation.phase == "reading":
            operation.reading.cancel()
            self._settle(operation, ok=False, rolled_back=end is CANCELLED, end=end, gap_s=0.0, total_s=0.0)
            self._end_reading()

    def _end_reading(self) -> None:
        current = self.current
        if current is None or current.phase != "reading":  # another switch may read ahead by now
            self._reads_ahead(None, lambda: 0)

    def cancel(self) -> PendingSwitch:
        """:raises OrchError: when no switch is under way"""
        operation = self.current
        if operation is None:
            raise OrchError("no switch is under way")

        if operation.phase == "switching":
            self._owner.post(CancelRequested(operation.id))
        else:
            self.interrupt(CANCELLED)

        return operation

    def finished(self, event: SwitchFinished) -> None:
        """Keep the result of a switch. A replacement by `orch up` is one too, and nobody asked for its result here."""
        operation = self._operations.get(event.operation.id)
        if operation is not None:
            self._settle(
                operation,
                ok=event.ok,
                rolled_back=event.rolled_back,
                end=event.cause,
                gap_s=event.gap_s,
                total_s=event.total_s,
            )

    def _settle(
        self,
        operation: PendingSwitch,
        *,
        ok: bool,
        rolled_back: bool,
        end: EndCause | None,
        gap_s: float,
        total_s: float,
    ) -> None:
        origin = operation.origin
        operation.result = {
            "ok": ok,
            "from": name_of(origin) if origin else None,
            "to": name_of(operation.target),
            "rolled_back": rolled_back,
            "held_requests": self._held() - operation.held_before,
            "gap_s": round(gap_s, 3),
            "total_s": round(total_s, 3),
            "strategy": operation.strategy,
            "cause": end.text if end is not None else None,
        }
        operation.end = end
        operation.phase = "done"
        operation.done.set()


def name_of(target: Target) -> TargetName:
    return TargetName(profile=target.profile, engine=target.engine)


def _read_ahead(operation: PendingSwitch, resolved: ResolvedTarget, free_bytes: int) -> None:
    """Read a model into the page cache as far as it may be; runs in a thread."""
    paths = split_paths(resolved.model_path)
    found = residency(paths)
    limit_bytes = read_ahead_bytes(
        resolved.profile.settings,
        model_bytes=resolved.model_bytes,
        resident_bytes=None if found is None or found.resident_mib is None else found.resident_mib << 20,
        free_bytes=free_bytes,
    )

    def note(done: int) -> None:
        operation.read_percent = min(100 * done // limit_bytes, 100)

    if limit_bytes:
        read_ahead(paths, limit_bytes, lambda: operation.reading.cancel_called, note)
