"""The target that is to run: named on the command line, remembered from before, or the configured default.

`state.json` says what ran last (`last`), and what was to run when the daemon ended (`wanted`).
"""

from __future__ import annotations

import logging
import threading
from dataclasses import dataclass
from functools import partial

import anyio
import anyio.to_thread

from orchestrator.adapters.store.state_file import load_state, save_state
from orchestrator.core.errors import OrchError
from orchestrator.core.fleet.lifecycle_states import Target
from orchestrator.core.fleet.resident_states import UpRequested
from orchestrator.daemon.control.event_log import EventLog
from orchestrator.daemon.fleet.owner import Owner, fresh_slot
from orchestrator.daemon.fleet.preparing import Preparer, read_files

_log = logging.getLogger(__name__)

SAVE_AGAIN_S = 10.0
"""Between tries while the file cannot be written."""


@dataclass(frozen=True, slots=True)
class StartOptions:
    """The options that the daemon was started with.

    :param profile: start this at once instead of what ran before
    :param started_by_up: it ends with the engine
    """

    profile: str | None = None
    engine: str | None = None
    started_by_up: bool = False


class DesiredTarget:
    """Decides what is started first, and remembers what is to run for the next daemon.

    :param path: the state file
    :param default: the configured default profile; empty without one
    :ivar refused: why what was to run first could not be asked for
    :raises UsageError: when a newer orch wrote the state file
    """

    def __init__(
        self, path: str, default: str, options: StartOptions, owner: Owner, preparer: Preparer, event_log: EventLog
    ) -> None:
        self._path = path
        self._default = default
        self._options = options
        self._owner = owner
        self._preparer = preparer
        self._event_log = event_log
        self.refused: OrchError | None = None
        self._lost = ""
        self._writing = threading.Lock()
        self._kept = False
        self._remembered, notice = load_state(path)
        if notice:
            _log.warning("%s", notice)

    def fallback(self) -> Target | None:
        """Return the target for a start that names none: what ran last, else the configured default."""
        last = remembered_target(self._remembered.get("last"))
        if last is not None:
            return last

        return (
            self._preparer.resolve(self._default, None, unverified=True, force=True).target if self._default else None
        )

    async def start_first(self) -> None:
        """Ask for what the command line says, else for what ran when the daemon died, else the configured default."""
        options = self._options
        desired = remembered_target(self._remembered.get("wanted"))
        name, engine, ran_before = options.profile, options.engine, False
        if name is None:
            if options.started_by_up:
                return  # the request follows

            if desired is not None:
                name, engine, ran_before = desired.profile, desired.engine, True
            else:
                name = self._default or None

        if name is None:
            return

        try:
            # Whoever started it has decided already whether it may run unverified, and is tried though it may not fit.
            resolve = partial(self._preparer.resolve, name, engine, unverified=ran_before, force=ran_before)
            resolved = await read_files(resolve, f"profile `{name}`")
        except OrchError as error:
            # The gateway stays up and says so: a service that exits here would only be restarted into the same wall.
            _log.error("%s: %s", error.message, "; ".join(error.details))
            self._event_log.add("refused", error.message)
            self.refused = error
            return

        if ran_before:
            self._preparer.trust(resolved.target)

        await self._owner.ask(UpRequested(resolved.target, fresh_slot()))

    async def follow(self) -> None:
        """Save what is to run each time that changes, for ever."""
        generation = 0
        saved: Target | None = None
        due = True
        while True:
            with anyio.move_on_after(SAVE_AGAIN_S if due and generation else None):
                await self._owner.published.changed(generation)

            generation = self._owner.published.generation
            desired = self._owner.fleet.desired
            if desired == saved and not due:
                continue

            if desired is not None:
                self._remembered["last"] = as_saved(desired)

            self._remembered["wanted"] = self._remembered.get("last") if desired is not None else None
            saved, due = desired, not await self._saved()

    async def _saved(self) -> bool:
        """Save what is remembered; False when it cannot be: a full disk costs the record, never the engine."""
        try:
            await anyio.to_thread.run_sync(self._write, dict(self._remembered))
        except (OSError, RuntimeError) as error:
            self._say_lost(error)
            return False

        self._lost = ""
        return True

    def _write(self, remembered: dict[str, object], *, last: bool = False) -> None:
        """Save this, unless what is to be kept for the next daemon is written already: a slow disk may have held it up.

        :raises OSError: when it cannot be written
        """
        with self._writing:
            if last or not self._kept:
                save_state(self._path, remembered)

            self._kept = self._kept or last

    def _say_lost(self, error: Exception) -> None:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        text = f"what is to run is not remembered for the next start: {reason}"
        if self._lost != text:
            _log.warning("state not saved: %s", error)
            self._event_log.add("record_lost", text)

        self._lost = text

    def keep(self, desired: Target | None) -> None:
        """Save the target for the next daemon: the service manager ended this one, and nobody stopped the engine."""
        if desired is not None and not self._options.started_by_up:
            self._remembered["wanted"] = as_saved(desired)
            try:
                self._write(dict(self._remembered), last=True)
            except OSError as error:
                self._say_lost(error)


def as_saved(target: Target) -> dict[str, str]:
    return {"profile": target.profile, "engine": target.engine}


def remembered_target(value: object) -> Target | None:
    """Return the target that the state file keeps; None for anything else, since anyone may have written there."""
    match value:
        case {"profile": str(profile), "engine": str(engine)}:
            return Target(profile, engine)
        case _:
            return None
