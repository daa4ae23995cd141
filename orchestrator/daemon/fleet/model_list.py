"""The profiles that clients are offered as models, read again when a file changes."""

from __future__ import annotations

import os
from collections.abc import Callable
from time import time

import anyio.to_thread

from orchestrator.adapters.config.profile_files import ProfileStore
from orchestrator.adapters.paths import Paths
from orchestrator.core.fleet.routing import Model
from orchestrator.daemon.telemetry.pace import sleep_until_tick
from orchestrator.engines.model_file import model_file

CREATED = int(time())
LOOK_FOR_PROFILES_S = 2.0


class ModelList:
    """Reads the profiles.

    :param on_read: told of the models each time they were read
    """

    def __init__(self, paths: Paths, on_read: Callable[[tuple[Model, ...]], None]) -> None:
        self._profiles = ProfileStore(paths)
        self._paths = paths
        self._on_read = on_read

    async def read(self) -> None:
        """Read the profiles now."""
        self._on_read(await anyio.to_thread.run_sync(self._read))

    async def watch(self) -> None:
        """List new and changed profiles within seconds, for ever. What runs is not touched: that is `orch reload`."""
        seen = self._stamp()
        while True:
            await sleep_until_tick(LOOK_FOR_PROFILES_S)
            stamp = self._stamp()
            if stamp != seen:
                seen = stamp
                await self.read()

    def _stamp(self) -> list[tuple[str, int]]:
        try:
            with os.scandir(self._paths.profiles) as entries:
                return sorted((entry.name, entry.stat().st_mtime_ns) for entry in entries)
        except OSError:  # no directory yet, or an editor replacing a file right now
            return []

    def _read(self) -> tuple[Model, ...]:
        """Return the profiles that could be started: a shipped profile without its model file is nothing to offer."""
        profiles, _ = self._profiles.load_all()
        return tuple(
            Model(profile.name, profile.aliases, profile.description, "unloaded", CREATED)
            for profile in sorted(profiles, key=lambda each: each.name)
            if model_file(self._paths, profile.model).is_available()
        )
