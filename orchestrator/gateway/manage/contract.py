"""What these routes ask of the daemon."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from orchestrator.gateway.contract import Finished


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
