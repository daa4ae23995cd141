"""The one task that owns the state: it takes events in order, steps the world, publishes, and has effects performed.

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

from orchestrator.core.fleet.fleet import step_world
from orchestrator.core.fleet.fleet_states import (
    SlotWoke,
    SwitchFinished,
    WakeSlot,
    World,
    WorldEvent,
)
from orchestrator.core.fleet.lifecycle_states import (
    Backoff,
    Effect,
    Failed,
    Preparing,
    Ready,
    Starting,
    State,
    Stopping,
    describe,
)
from orchestrator.core.fleet.restart import RestartPolicy
from orchestrator.daemon.control.event_log import Journal
from orchestrator.daemon.control.snapshot import failure_of, name_of, progress_of
from orchestrator.daemon.fleet.publisher import Publisher

_log = logging.getLogger(__name__)


class Performer(Protocol):
    """Performs effects beside the owner, and posts events back. `perform` returns at once."""

    def perform(self, effect: Effect) -> None: ...


@dataclass(frozen=True, slots=True)
class Published:
    """The world, and since when (monotonic) its state has its name."""

    world: World
    since: float


class Owner:
    """Owns the world.

    :param on_finished: told of each switch that ended
    """

    def __init__(
        self, journal: Journal, on_finished: Callable[[SwitchFinished], None], policy: RestartPolicy | None = None
    ) -> None:
        self._queue: asyncio.Queue[tuple[WorldEvent, asyncio.Future[None] | None]] = asyncio.Queue()
        self._journal = journal
        self._on_finished = on_finished
        self._policy = policy or RestartPolicy()
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._performer: Performer | None = None
        self._observers: list[Callable[[], None]] = []
        self.published: Publisher[Published] = Publisher(Published(World(), monotonic()))

    @property
    def world(self) -> World:
        return self.published.value.world

    def observe(self, observer: Callable[[], None]) -> None:
        """Have this called on each change, before the effects are performed: whoever routes by the world must know
        that an instance no longer serves before its last requests are waited for.
        """
        self._observers.append(observer)

    def post(self, event: WorldEvent) -> None:
        """Hand over an event; it is taken in its turn."""
        self._queue.put_nowait((event, None))

    async def ask(self, event: WorldEvent) -> World:
        """Hand over an event and wait until it was taken.

        :return: the world right after it
        """
        taken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._queue.put_nowait((event, taken))
        await taken
        return self.world

    async def prove(self) -> None:
        """Wait until an event that changes nothing has been taken: the owner is alive then."""
        await self.ask(SlotWoke(""))

    async def run(self, performer: Performer) -> None:
        """Take events for ever. An error in here is a bug: it ends the daemon rather than leave half of it alive."""
        self._performer = performer
        while True:
            event, taken = await self._queue.get()
            self._apply(event)
            if taken is not None and not taken.done():
                taken.set_result(None)

    def _apply(self, event: WorldEvent) -> None:
        now = monotonic()
        before = self.published.value
        world, effects = step_world(before.world, event, now, self._policy)
        if world != before.world:
            moved = name_of(world.state) != name_of(before.world.state) or world.current != before.world.current
            self.published.publish(Published(world, now if moved else before.since))
            for observer in self._observers:
                observer()

            for slot, state in world.slots.items():
                self._record(before.world.slots.get(slot), state)

        for effect in effects:
            match effect:
                case WakeSlot():
                    self._wake_at(effect)
                case SwitchFinished():
                    self._finish(effect)
                case _:
                    assert self._performer is not None
                    self._performer.perform(effect)

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
            text = f"switched to {operation.target}, requests waited {finished.gap_s:.2f} s"
            self._journal.add("switched", text)
        else:
            back = f"; {operation.origin} serves again" if finished.rolled_back else ""
            self._journal.add("switch_failed", f"{operation.target}: {finished.cause}{back}")

        self._on_finished(finished)

    def _record(self, before: State | None, state: State) -> None:
        name = name_of(state)
        if before is None or name == name_of(before):
            return

        match state:
            case Ready(course=course):
                message = f"{course.target} is ready"
            case Starting(course=course):
                message = f"{course.target}: attempt {course.attempts[-1].number}, {course.rung}"
            case Preparing(course=course) if isinstance(before, Starting | Ready | Stopping) and course.attempts:
                # The ladder goes on at once; without this, only `orch status` would know why, and not for long.
                last = course.attempts[-1]
                why = describe(last.failure) if last.failure else last.outcome
                message = f"{course.target}: attempt {last.number}: {why}; {last.next}"
            case Failed() | Backoff():
                message = f"{state.course.target}: {describe(state.failure)}; {state.course.attempts[-1].next}"
            case Stopping(failure=failure) if failure is not None:
                message = f"{state.course.target}: {describe(failure)}"
            case _:
                message = progress_of(state)

        _log.log(logging.WARNING if failure_of(state) else logging.INFO, "%s: %s", name, message)
        self._journal.add(name, message)


def fresh_slot() -> str:
    return secrets.token_hex(4)
