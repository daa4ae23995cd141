"""How the loaded profiles are used: by requests alone. Who looks at figures or lists models does not use them.

Times are monotonic: a machine that slept was not idle meanwhile.
"""

from __future__ import annotations

from time import monotonic

from orchestrator.core.fleet.admission import Use
from orchestrator.core.fleet.lifecycle_states import Ready, instance_of
from orchestrator.daemon.fleet.owner import Owner
from orchestrator.gateway.contract import Finished, Traffic

RECENT_S = 600.0
"""What a request adds to the worth of its profile is halved in this time."""


class UsageBook:
    """Notes the end of each request, by profile."""

    def __init__(self, owner: Owner, traffic: Traffic) -> None:
        self._owner = owner
        self._traffic = traffic
        self._ends: dict[str, float] = {}
        self._recent: dict[str, float] = {}

    def request_ended(self, record: Finished) -> None:
        """Note the end of a request; told by the ledger. One that got to no engine used none."""
        if record.instance is None or record.profile is None:
            return

        now = monotonic()
        self._recent[record.profile] = self._recent_at(record.profile, now) + 1.0
        self._ends[record.profile] = now

    def use(self, now: float) -> dict[str, Use]:
        """Return the use of each profile that serves."""
        ready = (each.state for each in self._owner.fleet.residents.values())
        return {each.start_record.target.profile: self._use_of(each, now) for each in ready if isinstance(each, Ready)}

    def unassigned(self) -> int:
        """Return the number of requests of which it is not known yet what they are for: their body is on its way."""
        instances = filter(None, map(instance_of, self._owner.fleet.slots.values()))
        with_engines = sum(map(self._traffic.in_flight, instances))
        return self._traffic.active - self._traffic.queued - with_engines

    def idle_s(self, profile: str, now: float) -> float | None:
        """Return for how long a profile has had no request; None where it does not serve and never had one."""
        use = self.use(now).get(profile)
        if use is None:
            return now - self._ends[profile] if profile in self._ends else None

        return 0.0 if use.in_flight else use.idle_s

    def order(self) -> list[str]:
        """Return the profiles that were ever used, the one that was used last first."""
        return sorted(self._ends, key=self._ends.__getitem__, reverse=True)

    def _use_of(self, state: Ready, now: float) -> Use:
        profile = state.start_record.target.profile
        used = max(self._ends.get(profile, state.since), state.since)
        return Use(self._traffic.in_flight(state.instance), now - used, self._recent_at(profile, now))

    def _recent_at(self, profile: str, now: float) -> float:
        before = self._recent.get(profile, 0.0)
        return before * 0.5 ** ((now - self._ends.get(profile, now)) / RECENT_S) if before else 0.0
