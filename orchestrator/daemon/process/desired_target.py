"""The target that is to run: named on the command line, remembered from before, or the configured default.

`state.json` says what ran last (`last`), and what was to run when the daemon ended (`wanted`), both of the focus; and
what was loaded, the one that was used last first (`fleet`). That is started again, and what `residency.preload` names.
While somebody tries other targets (`lease`), all of that is what served before.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import anyio
import anyio.to_thread

from orchestrator.adapters.store.state_file import load_state, save_state
from orchestrator.api.types import LeaseStatus
from orchestrator.core.errors import OrchError
from orchestrator.core.fleet.fleet_states import LoadRequested
from orchestrator.core.fleet.lifecycle_states import Target
from orchestrator.core.fleet.resident_states import UpRequested
from orchestrator.core.residency.lease import ServedTargets
from orchestrator.daemon.control.event_log import EventLog
from orchestrator.daemon.fleet.owner import Owner, fresh_slot
from orchestrator.daemon.fleet.preparing import Preparer, ResolvedTarget, read_files
from orchestrator.daemon.process.remembered_fleet import (
    as_saved,
    loaded_targets,
    remembered_lease,
    remembered_target,
    remembered_targets,
    within_rules,
)

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
    :ivar order: returns the profiles that were ever used, the one that was used last first
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
        self.order: Callable[[], Sequence[str]] = tuple
        self._lost = ""
        self._writing = threading.Lock()
        self._kept = False
        self._held = False
        self._due = True
        self._seen: tuple[Target | None, frozenset[Target]] = (None, frozenset())
        self._turn = anyio.Lock()
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
        """Ask for what the command line says, else for what ran when the daemon died, else the configured default; and
        beside it for what was loaded then, and for what is to be loaded at each start.
        """
        if not self._options.started_by_up:
            await self._start_focus()
            await self.load_beside()

    async def load_after_up(self) -> None:
        """Ask for what is to be loaded at each start once `orch up`, which started the daemon, has named the first."""
        generation = 0
        while self._owner.fleet.focus is None:
            await self._owner.published.changed(generation)
            generation = self._owner.published.generation

        await self.load_beside()

    async def load_beside(self) -> None:
        """Ask for what was loaded when the daemon ended, if it is to run again, and for `residency.preload`."""
        await self._owner.prove()  # it has been told the rules
        fleet, rules = self._owner.fleet, self._owner.fleet.rules
        ran = {} if self._options.started_by_up or self._options.profile is not None else self._ran_beside()
        there = [target.profile for target in loaded_targets(fleet, ())]
        for name in within_rules((*there, *ran, *rules.preload), rules):
            if name in there:
                continue

            resolved = await self._resolved(name, ran.get(name), ran_before=name in ran)
            if isinstance(resolved, OrchError):
                self._say_refused(resolved)
                continue

            await self._owner.ask(LoadRequested(resolved.target, fresh_slot()))

    def _ran_beside(self) -> dict[str, str]:
        """Return the engines of what was loaded when the daemon ended, by profile."""
        return {target.profile: target.engine for target in remembered_targets(self._remembered.get("fleet"))}

    async def _start_focus(self) -> None:
        options = self._options
        desired = remembered_target(self._remembered.get("wanted"))
        name, engine, ran_before = options.profile, options.engine, False
        if name is None and desired is not None:
            name, engine, ran_before = desired.profile, desired.engine, True
        elif name is None:
            name = self._default or None

        if name is None:
            return

        resolved = await self._resolved(name, engine, ran_before=ran_before)
        if isinstance(resolved, OrchError):
            self._say_refused(resolved)
            self.refused = resolved
            return

        await self._owner.ask(UpRequested(resolved.target, fresh_slot()))

    async def _resolved(self, name: str, engine: str | None, *, ran_before: bool) -> ResolvedTarget | OrchError:
        """Return what a start would be, or why it cannot be asked for."""
        try:
            # Whoever started it has decided already whether it may run unverified, and is tried though it may not fit.
            resolve = partial(self._preparer.resolve, name, engine, unverified=ran_before, force=ran_before)
            resolved = await read_files(resolve, f"profile `{name}`")
        except OrchError as error:
            return error

        if ran_before:
            self._preparer.trust(resolved.target)

        return resolved

    def _say_refused(self, error: OrchError) -> None:
        """Note it: the gateway stays up and says so, as a service that exits would be restarted into the same wall."""
        _log.error("%s: %s", error.message, "; ".join(error.details))
        self._event_log.add("refused", error.message)

    @property
    def lease(self) -> LeaseStatus | None:
        """The lease that the daemon before has noted."""
        return remembered_lease(self._remembered.get("lease"))

    async def hold(self, served: ServedTargets, note: LeaseStatus) -> None:
        """Remember these as what is to run, whatever runs from now on."""
        self._held = True
        if served.focus is not None:
            self._remembered["last"] = as_saved(served.focus)

        self._remembered["wanted"] = as_saved(served.focus) if served.focus is not None else None
        self._remembered["fleet"] = [as_saved(target) for target in served.targets]
        self._remembered["lease"] = dict(note)
        await self._save()

    async def release(self, note: LeaseStatus | None) -> None:
        """Remember what runs again."""
        noted = dict(note) if note is not None else None
        if self._held or self._remembered.get("lease") != noted:
            self._held = False
            self._remembered["lease"] = noted
            self._due = True
            await self._remember()

    async def again(self, target: Target) -> OrchError | None:
        """Look whether a target that ran before can be started as it is written; the reason why not."""
        resolved = await self._resolved(target.profile, target.engine, ran_before=True)
        return resolved if isinstance(resolved, OrchError) else None

    async def follow(self) -> None:
        """Save what is to run each time that changes, for ever."""
        generation = 0
        while True:
            with anyio.move_on_after(SAVE_AGAIN_S if self._due and generation else None):
                await self._owner.published.changed(generation)

            generation = self._owner.published.generation
            await self._remember()

    async def _remember(self) -> None:
        """Save what is to run, if that has changed or could not be saved."""
        if not self._held:
            fleet = self._owner.fleet
            desired, loaded = fleet.desired, loaded_targets(fleet, self.order())
            if (desired, frozenset(loaded)) != self._seen or self._due:
                self._seen, self._due = (desired, frozenset(loaded)), True
                if desired is not None:
                    self._remembered["last"] = as_saved(desired)

                self._remembered["wanted"] = self._remembered.get("last") if desired is not None else None
                self._remembered["fleet"] = [as_saved(target) for target in loaded]

        if self._due:
            await self._save()

    async def _save(self) -> None:
        """Save what is remembered, later where it cannot be now: a full disk costs the record, never the engine."""
        self._due = False
        try:
            async with self._turn:  # an older one is not to come last
                await anyio.to_thread.run_sync(self._write, dict(self._remembered))
        except (OSError, RuntimeError) as error:
            self._due = True
            self._say_lost(error)
        else:
            self._lost = ""

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

    def loaded(self) -> list[Target]:
        """Return what is loaded, the one that was used last first."""
        return loaded_targets(self._owner.fleet, self.order())

    def keep(self, desired: Target | None, loaded: Sequence[Target] = ()) -> None:
        """Save what runs for the next daemon: the service manager ended this one, and nobody stopped the engines.

        :param desired: what is to run in focus
        :param loaded: all that was loaded, the one that was used last first; while something else is held, that is kept
        """
        started_by_up = self._options.started_by_up
        if self._held and started_by_up:
            self._remembered |= {"wanted": None, "fleet": []}
        elif not self._held and (started_by_up or (desired is None and not loaded)):
            return
        elif not self._held:
            self._remembered["wanted"] = as_saved(desired) if desired is not None else None
            self._remembered["fleet"] = [as_saved(target) for target in loaded]

        try:
            self._write(dict(self._remembered), last=True)
        except OSError as error:
            self._say_lost(error)
