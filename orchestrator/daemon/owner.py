"""The one task that owns the state: it takes events in order, steps the machine, publishes, and has effects performed.

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

from orchestrator.core.lifecycle import step
from orchestrator.core.restart import RestartPolicy
from orchestrator.core.states import (
    Backoff,
    Effect,
    Event,
    Failed,
    Ready,
    Starting,
    StartRequested,
    State,
    Stopped,
    Stopping,
    StopRequested,
    Target,
    WakeAt,
    Woke,
)
from orchestrator.daemon.journal import Journal
from orchestrator.daemon.publisher import Publisher
from orchestrator.daemon.snapshot import course_of, describe, failure_of, name_of, progress_of

_log = logging.getLogger(__name__)


class Performer(Protocol):
    """Performs effects beside the owner, and posts events back. `perform` returns at once."""

    def perform(self, effect: Effect) -> None: ...


@dataclass(frozen=True, slots=True)
class Published:
    """The state, since when (monotonic), and the target that a person wants to run, if any."""

    state: State
    since: float
    wanted: Target | None


class Owner:
    """Owns the state of the engine.

    :param performer_of: makes the performer, given the function with which it posts events
    """

    def __init__(
        self,
        performer_of: Callable[[Callable[[Event], None]], Performer],
        journal: Journal,
        policy: RestartPolicy | None = None,
    ) -> None:
        self._queue: asyncio.Queue[Event] = asyncio.Queue()
        self._journal = journal
        self._policy = policy or RestartPolicy()
        self._timer: asyncio.TimerHandle | None = None
        self.published: Publisher[Published] = Publisher(Published(Stopped(), monotonic(), None))
        self._performer = performer_of(self._queue.put_nowait)

    def request_start(self, target: Target) -> None:
        self._queue.put_nowait(StartRequested(target, _fresh()))

    def request_stop(self, *, force: bool = False) -> None:
        self._queue.put_nowait(StopRequested(force))

    async def run(self) -> None:
        """Take events for ever. An error in here is a bug: it ends the daemon rather than leave half of it alive."""
        while True:
            event = await self._queue.get()
            self._apply(event)

    def _apply(self, event: Event) -> None:
        now = monotonic()
        before = self.published.value
        state, effects = step(before.state, event, now, self._policy)
        wanted = before.wanted
        match event:
            case StartRequested(target=target):
                wanted = target
            case StopRequested():
                wanted = None

        if state is not before.state or wanted != before.wanted:
            moved = name_of(state) != name_of(before.state) or course_of(state) != course_of(before.state)
            self.published.publish(Published(state, now if moved else before.since, wanted))
            self._record(before.state, state)

        for effect in effects:
            if isinstance(effect, WakeAt):
                self._wake_at(effect.time)
            else:
                self._performer.perform(effect)

    def _wake_at(self, time: float) -> None:
        if self._timer is not None:
            self._timer.cancel()

        loop = asyncio.get_running_loop()
        # A hair later than asked: the machine ignores a timer that is early.
        delay = max(time - monotonic(), 0.0) + 0.001
        self._timer = loop.call_later(delay, lambda: self._queue.put_nowait(Woke(_fresh())))

    def _record(self, before: State, state: State) -> None:
        name = name_of(state)
        if name == name_of(before):
            return

        match state:
            case Ready(course=course):
                message = f"{course.target} is ready"
            case Starting(course=course):
                number = course.attempts[-1].number
                message = f"{course.target}: attempt {number}, {course.rung}"
            case Failed() | Backoff():
                message = f"{state.course.target}: {describe(state.failure)}; {state.course.attempts[-1].next}"
            case Stopping(failure=failure) if failure is not None:
                message = f"{state.course.target}: {describe(failure)}"
            case _:
                message = progress_of(state)

        failure = failure_of(state)
        _log.log(logging.WARNING if failure else logging.INFO, "%s: %s", name, message)
        self._journal.add(name, message)


def _fresh() -> str:
    return f"{secrets.token_hex(4)}.1"
