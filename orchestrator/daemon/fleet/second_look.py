"""Looks again at a start that failed for good, once its profile, its model or its engine's program has changed."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from orchestrator.core.errors import OrchError
from orchestrator.core.fleet.lifecycle_states import Failed, FilesChanged
from orchestrator.core.fleet.state_summary import waits_for_files
from orchestrator.daemon.fleet.owner import Owner
from orchestrator.daemon.fleet.preparing import Preparer, read_files
from orchestrator.daemon.telemetry.pace import sleep_until_tick

LOOK_S = 1.0
"""While something has failed for good; a handful of questions to the file system."""


class SecondLook:
    """Has such a start tried once more, each time that its files have changed.

    :param record: notes an event for people: its kind, and a sentence
    """

    def __init__(self, owner: Owner, preparer: Preparer, record: Callable[[str, str], None]) -> None:
        self._owner = owner
        self._preparer = preparer
        self._record = record

    async def run(self) -> None:
        """Look at the files of what has failed for good, for ever."""
        while True:
            await sleep_until_tick(LOOK_S)
            for state in self._failed_for_good():
                await self._look(state)

    def _failed_for_good(self) -> list[Failed]:
        states = [resident.state for resident in self._owner.fleet.residents.values()]
        return [state for state in states if isinstance(state, Failed) and waits_for_files(state)]

    async def _look(self, state: Failed) -> None:
        target = state.start_record.target
        try:
            changed = await read_files(partial(self._preparer.files_changed, target), f"profile `{target.profile}`")
        except OrchError:
            return  # the disk does not answer: nothing has changed for the better

        if changed and any(each is state for each in self._failed_for_good()):
            self._record("looked_again", f"{target}: its files have changed since it failed; it is tried once more")
            await self._owner.ask(FilesChanged(state.instance))
