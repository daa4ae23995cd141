"""Looks at who waits and what is used, and hands that to the fleet, which decides what is loaded, unloaded and waits.

What clients ask for is looked up first: a profile that is wrong is refused, and nothing has moved. Where one model at a
time is loaded (`residency.policy = "one"`), the focus is switched to it instead, and back if it does not start.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from time import monotonic

import anyio
from anyio.abc import TaskGroup

from orchestrator.core.errors import OrchError
from orchestrator.core.fleet.admission import MemoryLook, Use
from orchestrator.core.fleet.demand import Demand, may_give_up, next_profile, on_its_way
from orchestrator.core.fleet.fleet_states import LoadRequested, Looked, Refused
from orchestrator.core.fleet.lifecycle_states import Failed, Ready, Target
from orchestrator.daemon.fleet.owner import Owner, fresh_slot
from orchestrator.daemon.fleet.preparing import Preparer, ResolvedTarget, read_files
from orchestrator.daemon.fleet.router import Router
from orchestrator.daemon.fleet.switcher import PendingSwitch, Switcher
from orchestrator.daemon.residency.usage import UsageBook
from orchestrator.gateway.dispatch import Dispatcher

_log = logging.getLogger(__name__)

LOOK_EVERY_S = 0.05
"""While somebody waits."""

IDLE_LOOK_S = 1.0

BLIND_S = 10.0
"""For a driver that does not answer."""

LOAD_AGAIN_S = 0.25
"""Between two tries to load a profile that is on its way out somewhere."""

ATTEMPTS = 2
"""Starts of a profile for the clients that wait: one death that may pass is no reason to refuse a healthy model."""

UNAVAILABLE_S = 30.0
"""How long a profile that did not start is refused at once instead of being tried again."""


PERMANENT_S = 600.0
"""The same where the same start would fail the same way: each try may cost what serves its place. A profile, model file
or program that changes ends it at once (`model_list.py`)."""


class DemandScheduler:
    """Starts what clients ask for, and tells the fleet what it decides by (`core/fleet/fleet.py`, 7).

    :param read_memory: returns what is free, and what loaded profiles and these targets need; None where it cannot now
    """

    def __init__(
        self,
        tasks: TaskGroup,
        owner: Owner,
        router: Router,
        switcher: Switcher,
        preparer: Preparer,
        dispatcher: Dispatcher,
        usage: UsageBook,
        read_memory: Callable[[Sequence[Target]], Awaitable[MemoryLook | None]],
    ) -> None:
        self._tasks = tasks
        self._owner = owner
        self._router = router
        self._switcher = switcher
        self._preparer = preparer
        self._dispatcher = dispatcher
        self._usage = usage
        self._read_memory = read_memory
        self._looked_up: set[str] = set()
        self._blind_since: float | None = None
        self._wake = asyncio.Event()
        dispatcher.note_demand = self._wake.set
        owner.observe(self._note_waiting)

    def _note_waiting(self) -> None:
        if self._owner.fleet.waiting:
            self._wake.set()

    async def run(self) -> None:
        """Look for ever: often while somebody waits, else once a second for what is idle."""
        while True:
            with anyio.move_on_after(IDLE_LOOK_S):
                await self._wake.wait()

            self._wake.clear()
            await self.look()
            while self._owner.fleet.waiting or self._somebody_waits_for_a_model():
                await anyio.sleep(LOOK_EVERY_S)
                await self.look()

    async def look(self) -> None:
        """Have what is asked for looked up, and tell the fleet how things are."""
        fleet, waiting = self._owner.fleet, self._waiting()
        if fleet.rules.policy == "one":
            self._consider_switch(waiting)
        else:
            for each in waiting:
                if self._is_missing(each.profile):
                    self._look_up(each.profile, self._load)

        targets = [each.prepare.target for each in fleet.waiting.values()]
        memory = await self._memory(targets) if targets else None
        now = monotonic()
        # Who waits is looked at anew: the memory took its time.
        await self._owner.ask(Looked(tuple(self._waiting()), self._usage.use(now), memory, self._usage.unassigned()))

    async def _memory(self, targets: Sequence[Target]) -> MemoryLook | None:
        """Return the memory for these starts. One that nobody can tell for long holds none up: what is too much fails
        beside the others then, and makes room by that."""
        memory = await self._read_memory(targets)
        now = monotonic()
        if memory is not None:
            self._blind_since = None
        elif self._blind_since is None:
            self._blind_since = now
        elif now - self._blind_since >= BLIND_S:
            return MemoryLook()

        return memory

    def _somebody_waits_for_a_model(self) -> bool:
        """Return whether a request waits for more than a place at an engine that serves."""
        view = self._router.view()
        return any(view.endpoint_for(each.profile) is None for each in self._waiting())

    def _waiting(self) -> list[Demand]:
        now, asleep = monotonic(), self._owner.fleet.asleep
        # One without a name may have begun to wait just before what is in focus was unloaded.
        waiting = self._dispatcher.hold.waiting(asleep.profile if asleep is not None else None)
        return [Demand(name, count, now - since) for name, (count, since) in waiting.items()]

    def _look_up(self, profile: str, then: Callable[[str], Awaitable[None]]) -> None:
        """Have one task at a time for a profile."""
        if profile in self._looked_up:
            return

        async def done() -> None:
            try:
                await then(profile)
            except (OSError, RuntimeError, ValueError) as error:  # no thread or descriptor left, a disk's error
                _log.exception("what `%s` needs could not be looked up", profile)
                self._router.mark_unavailable(profile, f"`{profile}` cannot be started now: {error}", UNAVAILABLE_S)
            finally:
                self._looked_up.discard(profile)

        self._looked_up.add(profile)
        self._tasks.start_soon(done)

    def _is_missing(self, profile: str) -> bool:
        """Return whether nothing is on its way for a profile: it was unloaded, it never was there, or it failed and its
        files have changed since."""
        fleet = self._owner.fleet
        seat = fleet.seat_of(profile)
        if seat is None:
            return True

        resident = fleet.residents[seat]
        unloaded = resident.asleep is not None and resident.asleep.profile == profile and not resident.busy
        return unloaded or isinstance(resident.state, Failed)

    def refuse(self, refused: Refused) -> None:
        """Refuse requests for a profile for a while: the fleet has given it up."""
        for_s = PERMANENT_S if refused.permanent else UNAVAILABLE_S
        self._router.mark_unavailable(refused.profile, refused.text, for_s, permanent=refused.permanent)

    async def _load(self, profile: str) -> None:
        """Have a profile loaded for those who wait for it; refuse them when it cannot be."""
        try:
            resolved = await self._resolve(profile)
        except OrchError as error:
            self._router.mark_unavailable(profile, told(error), UNAVAILABLE_S, permanent=True)
            return

        await self._owner.ask(LoadRequested(resolved.target, fresh_slot(), by_client=True))
        await anyio.sleep(LOAD_AGAIN_S)

    async def _resolve(self, profile: str) -> ResolvedTarget:
        """Return what a start of a profile would be, on the engine that it ran on before it was unloaded.

        :raises OrchError: when it cannot be started as it is written
        """
        seat = self._owner.fleet.seat_of(profile)
        asleep = self._owner.fleet.residents[seat].asleep if seat is not None else None
        engine = asleep.engine if asleep is not None and asleep.profile == profile else None
        return await read_files(partial(self._preparer.resolve, profile, engine), f"profile `{profile}`")

    def _consider_switch(self, waiting: Sequence[Demand]) -> None:
        state = self._owner.fleet.state
        if self._switcher.current is not None or self._owner.fleet.switch is not None:
            return

        ready = state if isinstance(state, Ready) else None
        serving = ready.start_record.target.profile if ready else None
        use = self._usage.use(monotonic()).get(serving or "", Use())
        stayed_s = monotonic() - ready.since if ready else 0.0
        others = [each for each in waiting if each.profile != on_its_way(state)]
        policy = self._owner.fleet.rules.stay
        profile = next_profile(others, serving, use.in_flight, stayed_s, use.idle_s, policy)
        if profile is not None:
            self._look_up(profile, self._switch)

    async def _switch(self, profile: str) -> None:
        """Switch to a profile; once more if its engine died in a way that may pass. Then refuse it for a while."""
        for attempt in range(1, ATTEMPTS + 1):
            try:
                resolved = await self._resolve(profile)
                strategy, reason = await self._switcher.plan(resolved, None)
            except OrchError as error:
                self._router.mark_unavailable(profile, told(error), UNAVAILABLE_S, permanent=True)
                return

            operation = self._switcher.begin(resolved, strategy, reason)
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._switcher.run, operation, resolved)
                await self._until_done(operation, profile)

            end = operation.end
            if end is None or end.kind == "interrupted":  # it serves, or somebody asked for something else
                return

            if end.kind == "permanent" or attempt == ATTEMPTS:
                permanent = end.kind == "permanent"
                for_s = PERMANENT_S if permanent else UNAVAILABLE_S
                cause = f"`{profile}` did not start: {end.text}"
                self._router.mark_unavailable(profile, cause, for_s, permanent=permanent)
                return

    async def _until_done(self, operation: PendingSwitch, profile: str) -> None:
        """Wait for the end of a switch; give it up when nobody waits for it any more and that costs nobody a load."""
        while operation.phase != "done":
            with anyio.move_on_after(LOOK_EVERY_S):
                await operation.done.wait()

            asked_for = any(each.profile == profile for each in self._waiting())
            if not asked_for and operation is self._switcher.current and may_give_up(self._owner.fleet.focused):
                self._switcher.cancel()
                await operation.done.wait()


def told(error: OrchError) -> str:
    """Return an error in one line, as a client is told it: what, the first detail, what to do."""
    parts = (error.message, *error.details[:1], *([error.hint] if error.hint else []))
    return "; ".join(part for part in parts if part)
