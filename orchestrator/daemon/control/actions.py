"""The actions that people ask for: start, switch, reload, restart. A mistake is answered before anything has moved."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from anyio.abc import TaskGroup

from orchestrator.core.errors import NotRunningError, UsageError
from orchestrator.core.fleet.lifecycle_states import Target
from orchestrator.core.fleet.resident_states import Strategy, UpRequested, state_is_active, target_of
from orchestrator.daemon.control.status import StatusBuilder
from orchestrator.daemon.fleet.model_list import ModelList
from orchestrator.daemon.fleet.owner import Owner, fresh_slot
from orchestrator.daemon.fleet.preparing import Preparer, ResolvedTarget, read_files
from orchestrator.daemon.fleet.router import Router
from orchestrator.daemon.fleet.switcher import Switcher, name_of


class Actions:
    """Performs them. Each method returns what the control API sends (`routes.py`); long work goes to tasks.

    :param tasks: where switches run
    :param fallback: the target to start when nobody names one
    :param check_config: reads `orch.toml`, and raises what is wrong with it
    :param worth: tells what a switch from one target to another would bring; blocks
    """

    def __init__(
        self,
        tasks: TaskGroup,
        owner: Owner,
        router: Router,
        models: ModelList,
        status: StatusBuilder,
        switcher: Switcher,
        preparer: Preparer,
        fallback: Callable[[], Target | None],
        check_config: Callable[[], object],
        worth: Callable[[ResolvedTarget, ResolvedTarget], str | None],
    ) -> None:
        self._tasks = tasks
        self._owner = owner
        self._router = router
        self._models = models
        self._status = status
        self._switcher = switcher
        self._preparer = preparer
        self._fallback = fallback
        self._check_config = check_config
        self._worth = worth

    def running(self) -> Target | None:
        """Return the target that runs, or is on its way; None when nothing is."""
        state = self._owner.fleet.state
        return target_of(state) if state_is_active(state) else None

    async def up(
        self, profile: str | None, engine: str | None, *, unverified: bool = False, force: bool = False
    ) -> dict[str, object]:
        """Start this, or have it replace what runs.

        :param profile: None for what ran before
        :param unverified: also what `orch verify` has found to be computed wrongly
        :param force: also what cannot fit
        :raises OrchError: when it cannot be started as it is written
        """
        resolved = await self._resolve(profile, engine, unverified=unverified, force=force)
        if unverified:
            self._preparer.trust(resolved.target)

        await self._models.try_read()
        generation = self._router.views.generation
        target, slot = resolved.target, fresh_slot()
        operation = self._switcher.adopt(target, slot)
        fleet = await self._owner.ask(UpRequested(target, slot))
        replaces = fleet.switch is not None and fleet.switch.operation.id == slot
        if not replaces and operation.result is None:
            self._switcher.forget(operation)

        self._router.refresh()
        return {
            "operation": slot if replaces else None,
            "generation": generation,
            "target": str(target),
            "profile": target.profile,
            "engine": target.engine,
            "notes": resolved.notes,
        }

    async def _resolve(
        self, profile: str | None, engine: str | None, *, unverified: bool = True, force: bool = True
    ) -> ResolvedTarget:
        if profile is None:
            fallback = self._fallback()
            if fallback is None:
                raise UsageError(
                    "no profile was named, and none ran before",
                    hint="`orch up PROFILE`; `orch profile list` shows them",
                )

            profile, engine = fallback.profile, engine or fallback.engine

        resolve = partial(self._preparer.resolve, profile, engine, unverified=unverified, force=force)
        return await read_files(resolve, f"profile `{profile}`")

    async def switch(
        self, target: str, strategy: Strategy | None, *, dry_run: bool, now: bool = False, again: bool = False,
        unverified: bool = False, force: bool = False,
    ) -> dict[str, object]:  # fmt: skip
        """Begin a switch, in the place of one that is under way, or say what it would do.

        :param now: cut the requests that run instead of waiting for their end
        :param again: start it anew where it runs already
        :param unverified: also to what `orch verify` has found to be computed wrongly
        :param force: also to what cannot fit
        :raises OrchError: when it cannot work
        """
        running = target_of(self._owner.fleet.state) if self._owner.fleet.slots else None
        resolved = await read_files(
            partial(self._preparer.resolve_text, target, running, unverified=unverified, force=force), f"`{target}`"
        )
        planned, reason = await self._switcher.plan(resolved, strategy)
        answer: dict[str, object] = {
            "from": name_of(running) if running else None,
            "to": name_of(resolved.target),
            "strategy": planned,
            "reason": reason,
            "notes": resolved.notes,
        }
        if not dry_run:
            if unverified:
                self._preparer.trust(resolved.target)

            await self._models.try_read()
            return answer | {"operation": await self._begin(resolved, planned, reason, now=now, again=again)}

        before = worth = None
        if running is not None:
            before = await self._resolve(running.profile, running.engine)
            worth = await read_files(partial(self._worth, before, resolved), "what was measured of speeds")

        return answer | {"argv_before": before.argv if before else None, "argv_after": resolved.argv, "worth": worth}

    async def reload(self) -> dict[str, object]:
        """Read the profiles and `orch.toml` anew; `[residency]` is in force then, the rest of it from the next start.

        The running instance is replaced only if its own profile says something else now, and that is valid.

        :raises OrchError: when something that was read is wrong; nothing has changed then
        """
        await read_files(self._check_config, "the configuration")
        await self._models.read()
        running = self.running()
        changed: tuple[str, ...] = ()
        operation = None
        if running is not None:
            resolved = await self._resolve(running.profile, running.engine)
            changed = await self._status.stale()
            if changed:
                strategy, reason = await self._switcher.plan(resolved, None)
                operation = await self._begin(resolved, strategy, reason, again=True)

        return {"running": name_of(running) if running else None, "changed": changed, "operation": operation}

    async def restart(self) -> dict[str, object]:
        """Start the same target anew, as its profile reads now; a mistake in that is found before anything ends.

        :raises OrchError: as `switch`, or when nothing runs
        """
        running = self.running()
        if running is None:
            raise NotRunningError("nothing runs that could be restarted", hint="start something: `orch up PROFILE`")

        await self._models.try_read()
        resolved = await self._resolve(running.profile, running.engine)
        strategy, reason = await self._switcher.plan(resolved, None)
        operation = await self._begin(resolved, strategy, reason, again=True)
        return {"running": name_of(running), "strategy": strategy, "operation": operation}

    async def _begin(
        self, resolved: ResolvedTarget, strategy: Strategy, reason: str, *, again: bool = False, now: bool = False
    ) -> str:
        """:return: the operation's id"""
        operation = self._switcher.begin(resolved, strategy, reason, again=again, now=now)
        self._tasks.start_soon(self._switcher.run, operation, resolved)
        return operation.id
