"""The actions that concern one profile among those that are loaded: load, unload, pin, stop.

As in `actions.py`, a mistake is answered before anything has moved. A load is not waited for here: whoever asked
follows the status. What cannot begin yet, since the profile still ends, is said, and asked for again.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from orchestrator.core.errors import NotRunningError, OrchError, UsageError
from orchestrator.core.fleet.fleet_states import DownRequested, Fleet, LoadRequested, PinRequested, UnloadRequested
from orchestrator.core.fleet.lifecycle_states import Draining, Failed, Ready, State, Stopped, Stopping, Target
from orchestrator.core.fleet.resident_states import EndCause, Resident, state_is_active, target_of
from orchestrator.core.problems import did_you_mean
from orchestrator.daemon.control.residents import ordered, shown_target
from orchestrator.daemon.fleet.model_list import ModelList
from orchestrator.daemon.fleet.owner import Owner, fresh_slot
from orchestrator.daemon.fleet.preparing import Preparer, read_files
from orchestrator.daemon.fleet.router import Router
from orchestrator.daemon.fleet.switcher import Switcher


class LoadingActions:
    """Performs them. Each method returns what the control API sends (`routes.py`)."""

    def __init__(self, owner: Owner, router: Router, models: ModelList, preparer: Preparer, switcher: Switcher) -> None:
        self._owner = owner
        self._router = router
        self._models = models
        self._preparer = preparer
        self._switcher = switcher

    async def load(
        self, name: str, engine: str | None, *, unverified: bool = False, force: bool = False
    ) -> dict[str, object]:
        """Load a profile beside what runs.

        :param unverified: also what `orch verify` has found to be computed wrongly
        :param force: also what cannot fit
        :return: `loaded` is true where it serves already; `taken` is false while it still ends: to be asked again
        :raises OrchError: when it cannot be started as it is written
        """
        resident = self._resident(self._profile(name))
        known = shown_target(resident) if resident is not None else None
        resolve = partial(
            self._preparer.resolve,
            name,
            engine or (known.engine if known is not None else None),
            unverified=unverified,
            force=force,
        )
        resolved = await read_files(resolve, f"profile `{name}`")
        target = resolved.target
        resident = self._resident(target.profile)
        loaded = resident is not None and resident.switch is None and isinstance(resident.state, Ready)
        running = target_of(resident.state) if resident is not None and state_is_active(resident.state) else None
        if running is not None and running != target:
            text = f"{running} is loaded, on another engine than {target}"
            raise UsageError(text, hint=f"`orch switch {target}` changes its engine")

        if unverified:
            self._preparer.trust(target)

        await self._models.try_read()
        generation = self._router.views.generation
        fleet = self._owner.fleet if loaded else await self._owner.ask(LoadRequested(target, fresh_slot()))
        self._router.refresh()
        return {
            "target": str(target),
            "profile": target.profile,
            "engine": target.engine,
            "generation": generation,
            "loaded": loaded,
            "taken": is_on_its_way(fleet, target.profile),
            "notes": resolved.notes,
        }

    async def unload(self, name: str) -> dict[str, object]:
        """End a profile; the next request for it loads it again.

        :raises OrchError: when it is not loaded, or in the middle of a switch
        """
        profile, resident = self._loaded(name)
        if resident.switch is not None:
            text = f"`{profile}` is in the middle of a switch to {resident.switch.operation.target}"
            raise OrchError(text, hint="unload it once that is over; `orch switch --cancel` ends it")

        unloaded = resident.asleep is not None
        if not unloaded:
            await self._owner.ask(UnloadRequested(profile))

        return {"profile": profile, "unloaded": unloaded}

    async def pin(self, name: str, *, pinned: bool) -> dict[str, object]:
        """Pin a profile: while the daemon runs it is not unloaded, neither for room nor because nobody uses it.

        :param pinned: False lets it go again, even where its own rules pin it
        :raises UsageError: when there is no such profile
        """
        profile = self._profile(name)
        names = sorted({model.name for model in self._router.view().models} | {*self._names()})
        if profile not in names:
            hint = did_you_mean(name, names) or f"known: {', '.join(names) or 'none'}"
            raise UsageError(f"there is no profile `{name}`", hint=hint)

        was = self._owner.fleet.pinned(profile)
        await self._owner.ask(PinRequested(profile, pinned))
        return {"profile": profile, "pinned": pinned, "changed": was != pinned}

    async def down(self, names: Sequence[str], *, force: bool) -> tuple[list[Target], bool]:
        """Stop profiles, or everything where none is named.

        :return: what was stopped, the one in focus first; and whether anything is left
        :raises NotRunningError: when one of them is not loaded; nothing is stopped then
        """
        profiles = tuple(self._loaded(name)[0] for name in names)
        current = self._switcher.current
        if current is not None and (not names or current.target.profile in profiles):
            what = "it was stopped" if names else "everything was stopped"
            self._switcher.interrupt(EndCause("interrupted", what))

        stopped, left = [], False
        for _, resident in ordered(self._owner.fleet):
            target = shown_target(resident)
            if names and not resident.profiles & set(profiles):
                left = left or target is not None
            elif target is not None and (names or not isinstance(resident.state, Stopped | Failed)):
                stopped.append(target)

        await self._owner.ask(DownRequested(profiles, force))
        return stopped, left

    def profile_of(self, name: str) -> str:
        """Return the loaded profile that a name stands for.

        :raises NotRunningError: when it is not loaded
        """
        return self._loaded(name)[0]

    def _loaded(self, name: str) -> tuple[str, Resident]:
        profile = self._profile(name)
        resident = self._resident(profile)
        if resident is None:
            raise not_loaded(name, self._names())

        return profile, resident

    def _profile(self, name: str) -> str:
        """Return the profile of a name: itself where it is loaded, else the profile whose alias it is."""
        if self._owner.fleet.seat_of(name) is not None:
            return name

        return next((model.name for model in self._router.view().models if name in model.names), name)

    def _resident(self, profile: str) -> Resident | None:
        fleet = self._owner.fleet
        seat = fleet.seat_of(profile)
        resident = fleet.residents[seat] if seat is not None else None
        return resident if resident is not None and (resident.switch or shown_target(resident)) else None

    def _names(self) -> list[str]:
        targets = (shown_target(each) for _, each in ordered(self._owner.fleet))
        return [target.profile for target in targets if target is not None]


def not_loaded(name: str, loaded: Sequence[str]) -> NotRunningError:
    """Return the error for a profile that is to be stopped, say, and is not loaded."""
    return NotRunningError(
        f"`{name}` is not loaded",
        details=(f"loaded: {', '.join(loaded) or 'nothing'}",),
        hint=did_you_mean(name, loaded) or "`orch status` shows what is",
    )


def is_on_its_way(fleet: Fleet, profile: str) -> bool:
    """Return whether a profile serves, will, or has failed to: False while it still ends."""
    seat = fleet.seat_of(profile)
    if seat is None:
        return False

    resident = fleet.residents[seat]
    if resident.switch is not None:
        return resident.switch.operation.target.profile == profile

    return resident.asleep is None and not _ends(resident.state)


def _ends(state: State) -> bool:
    match state:
        case Stopped() | Draining(then=None) | Stopping(then=None, failure=None):
            return True
        case _:
            return False
