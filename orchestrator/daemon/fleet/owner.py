"""The one task that owns the state: it takes events in order, steps the fleet, publishes, and has effects performed.

Everything else asks it: requests are events in its queue, answers are read from what it publishes. It never waits for
an effect; whoever performs one posts an event when it is done.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic
from typing import Protocol

from orchestrator.core.fleet.fleet import step_fleet
from orchestrator.core.fleet.fleet_states import Fleet, FleetEvent, Refused, Told
from orchestrator.core.fleet.lifecycle_states import (
    Backoff,
    Effect,
    Failed,
    Preparing,
    Ready,
    Starting,
    StartRecord,
    State,
    Stopped,
    Stopping,
    describe,
)
from orchestrator.core.fleet.resident_states import SlotWoke, SwitchFinished, WakeSlot
from orchestrator.core.fleet.restart import RestartPolicy
from orchestrator.core.fleet.state_summary import failure_of, name_of, progress_of
from orchestrator.daemon.control.event_log import EventLog
from orchestrator.daemon.fleet.publisher import Publisher

_log = logging.getLogger(__name__)


class EffectHandler(Protocol):
    """Performs effects beside the owner, and posts events back. `perform` returns at once."""

    def perform(self, effect: Effect) -> None: ...


@dataclass(frozen=True, slots=True)
class Published:
    """The state of the fleet, and since when (monotonic) the current slot's state has its name."""

    fleet: Fleet
    since: float


class Owner:
    """Owns the state of the fleet.

    :ivar waited_s: returns for how long the first of those has waited who named this profile and wait for it
    :ivar refuse: told which profile cannot be loaded now, and why
    """

    def __init__(self, event_log: EventLog, policy: RestartPolicy | None = None) -> None:
        self._queue: asyncio.Queue[tuple[FleetEvent, asyncio.Future[None] | None]] = asyncio.Queue()
        self._event_log = event_log
        self._policy = policy or RestartPolicy()
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._effect_runner: EffectHandler | None = None
        self._observers: list[Callable[[], None]] = []
        self._switch_observers: list[Callable[[SwitchFinished], None]] = []
        self.waited_s: Callable[[str], float] = lambda profile: 0.0
        self.refuse: Callable[[Refused], None] = lambda refused: None
        self.published: Publisher[Published] = Publisher(Published(Fleet(), monotonic()))

    @property
    def fleet(self) -> Fleet:
        return self.published.value.fleet

    def observe(self, observer: Callable[[], None]) -> None:
        """Call this on each change, before the effects are performed: whoever routes by the state must know
        that an instance no longer serves before its last requests are waited for.
        """
        self._observers.append(observer)

    def observe_switches(self, observer: Callable[[SwitchFinished], None]) -> None:
        """Call this with each switch that ends."""
        self._switch_observers.append(observer)

    def post(self, event: FleetEvent) -> None:
        """Hand over an event; it is taken in its turn."""
        self._queue.put_nowait((event, None))

    async def ask(self, event: FleetEvent) -> Fleet:
        """Hand over an event and wait until it was taken.

        :return: the state of the fleet right after it
        """
        taken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._queue.put_nowait((event, taken))
        await taken
        return self.fleet

    async def prove(self) -> None:
        """Wait until an event that changes nothing has been taken: the owner is alive then."""
        await self.ask(SlotWoke(""))

    async def run(self, effect_runner: EffectHandler) -> None:
        """Take events for ever. An error in here is a bug: it ends the daemon rather than leave half of it alive."""
        self._effect_runner = effect_runner
        while True:
            event, taken = await self._queue.get()
            self._apply(event)
            if taken is not None and not taken.done():
                taken.set_result(None)

    def _apply(self, event: FleetEvent) -> None:
        now = monotonic()
        before = self.published.value
        fleet, effects = step_fleet(before.fleet, event, now, self._policy)
        if fleet != before.fleet:
            moved = name_of(fleet.state) != name_of(before.fleet.state) or fleet.current != before.fleet.current
            # The focus may have moved to what has been ready for long.
            since = fleet.state.since if isinstance(fleet.state, Ready) else now
            self.published.publish(Published(fleet, since if moved else before.since))
            for observer in self._observers:
                observer()

            for slot, state in fleet.slots.items():
                self._record(before.fleet.slots.get(slot), state)

        for effect in effects:
            match effect:
                case WakeSlot():
                    self._wake_at(effect)
                case SwitchFinished():
                    self._finish(effect)
                case Told(kind=kind, text=text):
                    self._event_log.add(kind, text)
                case Refused():
                    self._event_log.add("refused", effect.text)
                    self.refuse(effect)
                case _:
                    assert self._effect_runner is not None
                    self._effect_runner.perform(effect)

    def _wake_at(self, effect: WakeSlot) -> None:
        earlier = self._timers.pop(effect.slot, None)
        if earlier is not None:
            earlier.cancel()

        def wake() -> None:
            self._timers.pop(effect.slot, None)
            self.post(SlotWoke(effect.slot))

        # A hair later than asked: the machine ignores a timer that is early.
        delay_s = max(effect.time - monotonic(), 0.0) + 0.001
        self._timers[effect.slot] = asyncio.get_running_loop().call_later(delay_s, wake)

    def _finish(self, finished: SwitchFinished) -> None:
        operation = finished.operation
        if finished.ok:
            waited_s = max(finished.gap_s, self.waited_s(operation.target.profile))
            text = f"switched to {operation.target}, requests waited {waited_s:.2f} s"
            self._event_log.add("switched", text)
        else:
            back = f"; {operation.origin} serves again" if finished.rolled_back else ""
            self._event_log.add("switch_failed", f"{operation.target}: {finished.cause_text}{back}")

        for observer in self._switch_observers:
            observer(finished)

    def _record(self, before: State | None, state: State) -> None:
        name = name_of(state)
        if before is None or name == name_of(before):
            return

        match state:
            case Ready(start_record=start_record):
                message = f"{start_record.target} is ready"
            case Starting(start_record=start_record):
                message = f"{start_record.target}: attempt {start_record.attempts[-1].number}, {start_record.rung}"
            case Preparing(start_record=start_record) if (
                isinstance(before, Starting | Ready | Stopping) and start_record.attempts
            ):
                # The ladder goes on at once; without this, only `orch status` would know why, and not for long.
                last = start_record.attempts[-1]
                why = describe(last.failure) if last.failure else last.outcome
                message = f"{start_record.target}: attempt {last.number}: {why}; {last.next}"
            case Failed() | Backoff():
                message = (
                    f"{state.start_record.target}: {describe(state.failure)}; {state.start_record.attempts[-1].next}"
                )
            case Stopped(last=StartRecord(target=target)):
                message = f"stopped {target}"
            case Stopping(failure=failure) if failure is not None:
                message = f"{state.start_record.target}: {describe(failure)}"
            case _:
                message = progress_of(state)

        _log.log(logging.WARNING if failure_of(state) else logging.INFO, "%s: %s", name, message)
        self._event_log.add(name, message)


def fresh_slot() -> str:
    return secrets.token_hex(4)
