"""Switches to the profiles that clients ask for by name, where that is allowed, and unloads what nobody uses.

Only requests count as use, not who looks at figures or lists models. The clock is monotonic: a machine that slept was
not idle meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from time import monotonic

import anyio

from orchestrator.core.errors import OrchError
from orchestrator.core.fleet.demand import Demand, DemandPolicy, may_give_up, next_profile, on_its_way
from orchestrator.core.fleet.fleet_states import UnloadRequested
from orchestrator.core.fleet.lifecycle_states import Ready
from orchestrator.daemon.fleet.owner import Owner
from orchestrator.daemon.fleet.preparing import Preparer, read_files
from orchestrator.daemon.fleet.router import Router
from orchestrator.daemon.fleet.switcher import PendingSwitch, Switcher
from orchestrator.daemon.telemetry.pace import sleep_until_tick
from orchestrator.gateway.contract import Finished, Traffic
from orchestrator.gateway.dispatch import Dispatcher

LOOK_EVERY_S = 0.05
"""While somebody waits for another profile; asleep otherwise."""

IDLE_LOOK_S = 1.0

ATTEMPTS = 2
"""Starts of a profile for the clients that wait: one death that may pass is no reason to refuse a healthy model."""

UNAVAILABLE_S = 30.0
"""How long a profile that did not start is refused at once instead of being tried again."""


PERMANENT_S = 600.0
"""The same where the same start would fail the same way: each try may cost what serves its place. A profile, model file
or program that changes ends it at once (`model_list.py`)."""


class DemandScheduler:
    """Starts what clients ask for. Woken when a request begins to wait for a profile that does not serve."""

    def __init__(
        self,
        owner: Owner,
        router: Router,
        switcher: Switcher,
        preparer: Preparer,
        dispatcher: Dispatcher,
        policy: DemandPolicy,
    ) -> None:
        self._owner = owner
        self._router = router
        self._switcher = switcher
        self._preparer = preparer
        self._dispatcher = dispatcher
        self._policy = policy
        self._last_end_s = float("-inf")

    def request_ended(self, record: Finished) -> None:
        """Note the end of a request; told by the ledger."""
        if record.instance is not None:
            self._last_end_s = monotonic()

    async def run(self) -> None:
        while True:
            await self._dispatcher.wait_demand()
            while waiting := self._waiting():
                state = self._owner.fleet.state
                serving = state.start_record.target.profile if isinstance(state, Ready) else None
                in_flight = self._dispatcher.in_flight(state.instance) if isinstance(state, Ready) else 0
                stayed_s = monotonic() - state.since if isinstance(state, Ready) else 0.0
                free = self._switcher.current is None and self._owner.fleet.switch is None
                quiet_s = min(stayed_s, monotonic() - self._last_end_s)
                others = [each for each in waiting if each.profile != on_its_way(state)]
                profile = next_profile(others, serving, in_flight, stayed_s, quiet_s, self._policy) if free else None
                if profile is not None:
                    await self._switch(profile)

                await anyio.sleep(LOOK_EVERY_S)

    def _waiting(self) -> list[Demand]:
        now = monotonic()
        return [Demand(name, count, now - since) for name, (count, since) in self._dispatcher.hold.waiting().items()]

    async def _switch(self, profile: str) -> None:
        """Switch to a profile; once more if its engine died in a way that may pass. Then refuse it for a while."""
        for attempt in range(1, ATTEMPTS + 1):
            try:
                asleep = self._owner.fleet.asleep
                engine = asleep.engine if asleep is not None and asleep.profile == profile else None
                resolved = await read_files(partial(self._preparer.resolve, profile, engine), f"profile `{profile}`")
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


class IdleUnloader:
    """Asks for the end of what has been idle for long.

    :param limit_of: after how many seconds without a request a profile is unloaded; 0 for never
    :param record: notes an event for people
    """

    def __init__(
        self, owner: Owner, traffic: Traffic, limit_of: Callable[[str], float], record: Callable[[str, str], None]
    ) -> None:
        self._owner = owner
        self._traffic = traffic
        self._limit_of = limit_of
        self._record = record
        self._last_end = float("-inf")

    def request_ended(self, record: Finished) -> None:
        """Note the end of a request; told by the ledger."""
        if record.instance is not None:
            self._last_end = monotonic()

    async def run(self) -> None:
        """Look once a second, for ever."""
        while True:
            await sleep_until_tick(IDLE_LOOK_S)
            await self.look()

    async def look(self) -> None:
        """Ask for the end of what serves, if nobody uses it."""
        fleet = self._owner.fleet
        state = fleet.state
        if fleet.switch is not None or not isinstance(state, Ready) or self._traffic.active:
            return

        limit_s = self._limit_of(state.start_record.target.profile)
        idle_s = monotonic() - max(self._last_end, state.since)
        if limit_s and idle_s >= limit_s:
            await self._owner.ask(UnloadRequested(state.start_record.target.profile))
            text = f"{state.start_record.target} had no request for {idle_s:.0f} s; the next one loads it again"
            self._record("unloaded", text)
