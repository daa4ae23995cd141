"""The memory that the request bodies of one server may hold together."""

from __future__ import annotations

import asyncio

from orchestrator.adapters.process.linux import give_back_memory

FREE_BYTES = 64 * 1024
"""So much of each body counts for nothing: who fills the budget keeps no small request out."""

_LARGE_BYTES = 4 << 20
_GIVE_BACK_AFTER_S = 0.5


class BodyBudget:
    """Counts what has arrived of all bodies that are still held.

    What is announced and does not come takes nothing away from others.
    """

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._held_bytes = 0
        self._giving_back = False

    @property
    def held_bytes(self) -> int:
        return self._held_bytes

    def fits(self, size: int) -> bool:
        """Return whether a body of this size would fit beside those that are held now."""
        return self._held_bytes + _counted(size) <= self._limit_bytes

    def grow(self, before: int, after: int) -> bool:
        """Count what a body has grown by; return whether there is room for it."""
        more = _counted(after) - _counted(before)
        self._held_bytes += more
        return not more or self._held_bytes <= self._limit_bytes

    def release(self, size: int) -> None:
        """Count a body as no longer held. After a large one the allocator's memory goes back to the kernel."""
        self._held_bytes -= _counted(size)
        if size >= _LARGE_BYTES and not self._giving_back:
            self._giving_back = True
            asyncio.get_running_loop().call_later(_GIVE_BACK_AFTER_S, self._give_back)

    def _give_back(self) -> None:
        self._giving_back = False
        give_back_memory()


def _counted(size: int) -> int:
    return max(0, size - FREE_BYTES)
