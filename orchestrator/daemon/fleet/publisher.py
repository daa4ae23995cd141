"""Publishes a value with a generation number, so that a reader can ask for "newer than what I saw"."""

from __future__ import annotations

import asyncio
from typing import Generic, TypeVar

T = TypeVar("T")


class Publisher(Generic[T]):
    """Holds the newest value. Publishing wakes every waiter; a slow reader misses values, never the last one."""

    def __init__(self, value: T) -> None:
        self._value = value
        self._generation = 1
        self._waiters: set[asyncio.Future[None]] = set()

    @property
    def value(self) -> T:
        return self._value

    @property
    def generation(self) -> int:
        return self._generation

    def publish(self, value: T) -> None:
        self._value = value
        self._generation += 1
        waiters, self._waiters = self._waiters, set()
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)

    async def changed(self, generation: int) -> T:
        """Wait for the first value newer than `generation`; at once if there is one already."""
        while self._generation <= generation:
            waiter = asyncio.get_running_loop().create_future()
            self._waiters.add(waiter)
            try:
                await waiter
            finally:
                self._waiters.discard(waiter)

        return self._value
