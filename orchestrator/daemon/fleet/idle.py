"""Unloads what nobody uses: after a time without a request the engine ends, and the next request loads it again.

Only requests count as use, not who looks at figures or lists models. The clock is monotonic: a machine that slept was
not idle meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic

from orchestrator.core.fleet.fleet_states import UnloadRequested
from orchestrator.core.fleet.lifecycle_states import Ready
from orchestrator.core.quantities import duration_text
from orchestrator.daemon.fleet.owner import Owner
from orchestrator.daemon.telemetry.pace import sleep_until_tick
from orchestrator.gateway.contract import Finished, Traffic

LOOK_EVERY_S = 1.0


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
            await sleep_until_tick(LOOK_EVERY_S)
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
            await self._owner.ask(UnloadRequested(state.instance))
            text = (
                f"{state.start_record.target} had no request for {duration_text(idle_s)}; the next one loads it again"
            )
            self._record("unloaded", text)
