"""What these routes ask of the daemon."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from orchestrator.adapters.log.store import LogLine
from orchestrator.gateway.contract import Finished


class LogView(Protocol):
    """Numbered lines: those that are still there, and a way to wait for more (`adapters/log/store.py`)."""

    @property
    def next_seq(self) -> int: ...

    @property
    def oldest_seq(self) -> int: ...

    def since(self, seq: int) -> tuple[int, Sequence[LogLine]]:
        """Return how many lines from number `seq` on are gone already, and the others."""
        ...

    async def changed(self) -> None:
        """Wait for the next lines."""
        ...


class ModelManager(Protocol):
    """Loads and unloads profiles, and tells of the requests that ended (`daemon/control/client_requests.py`)."""

    async def load(self, profile: str) -> bool:
        """Have a profile loaded beside what runs, and return at once; False where it is loaded already.

        :raises GatewayError: when it cannot be started as it is written
        """
        ...

    async def unload(self, profile: str | None) -> list[str]:
        """End a profile, or all; the next request for it loads it again. Return the names of those that were loaded."""
        ...

    def recent(self) -> Sequence[Finished]:
        """Return the requests that ended last, oldest first."""
        ...

    def engine_log(self, profile: str | None) -> LogView | None:
        """Return the log of a profile's engine, None where none runs; without a profile that of all engines."""
        ...

    def own_log(self) -> LogView:
        """Return what the daemon did, in words."""
        ...
