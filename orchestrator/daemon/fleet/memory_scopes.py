"""The control group of each engine, where there are any, and the kernel's count of kills that holds for it.

Nothing depends on a group: an engine for which none can be made runs without one, and that is said once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import anyio.to_thread

from orchestrator.adapters.process.cgroup import EngineGroups, Leaf
from orchestrator.adapters.process.oom_counter import OomCounter, nearest_oom_counter
from orchestrator.core.failure.exit_evidence import OomKills


@dataclass(slots=True)
class MemoryScope:
    """The control group that one engine runs in, with the counter of kills that holds for it.

    :ivar group: None where it has no group of its own
    :ivar killed_before: what the counter said before it was started; None when it could not be read
    """

    group: Leaf | None
    limit_mib: int
    counter: OomCounter
    killed_before: int | None

    def kills(self) -> OomKills:
        """Return the kills that the kernel has counted here, now that the engine has ended."""
        counter = self.counter
        limit_mib = self.limit_mib if counter.scope == "engine" else 0
        return OomKills(counter.source, counter.scope, self.killed_before, counter.read(), limit_mib)


class MemoryScopes:
    """Makes and removes the groups of engines.

    :param record: notes an event for people: its kind, and a sentence
    """

    def __init__(self, groups: EngineGroups, record: Callable[[str, str], None]) -> None:
        self._groups = groups
        self._record = record
        self._failed = False

    async def make(self, instance: str) -> MemoryScope:
        group = None
        try:
            group = await anyio.to_thread.run_sync(self._groups.make, instance)
        except OSError as error:
            self._say_failed(str(error))

        return self._place(group)

    def entered(self, memory_scope: MemoryScope, group: Leaf | None) -> MemoryScope:
        """
        :param group: where the engine is, as far as it got
        :return: the place that it runs in
        """
        if group == memory_scope.group:
            return memory_scope

        self._say_failed("the engine could not enter it")
        return self._place(None)

    async def remove(self, memory_scope: MemoryScope) -> None:
        group = memory_scope.group
        if group is not None and not await anyio.to_thread.run_sync(group.remove):
            self._record("group_kept", f"{group.path} is still in use; the next start of the daemon removes it")

    def _place(self, group: Leaf | None) -> MemoryScope:
        counter = nearest_oom_counter(group)
        return MemoryScope(group, self._groups.memory_max_mib, counter, counter.read())

    def _say_failed(self, why: str) -> None:
        """Record the reason, once: the next start would say the same."""
        if not self._failed:
            self._failed = True
            self._record("no_group", f"the engine runs without a control group of its own, and without a limit: {why}")
