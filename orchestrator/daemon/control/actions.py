"""The actions that people ask for about the focus, and several at once: start, switch, reload, restart.

A mistake is answered before anything has moved. What concerns one profile beside the others is in `loading.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from itertools import combinations

from anyio.abc import TaskGroup

from orchestrator.core.errors import NotRunningError, UsageError
from orchestrator.core.fleet.fleet_states import LoadRequested, ResidencyRules
from orchestrator.core.fleet.lifecycle_states import Target, instance_of
from orchestrator.core.fleet.resident_states import Strategy, UpRequested, state_is_active, target_of
from orchestrator.daemon.control.loading import not_loaded
from orchestrator.daemon.control.residents import ordered
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

    def loaded(self) -> list[Target]:
        """Return what runs or is on its way, the one in focus first."""
        states = (resident.state for _, resident in ordered(self._owner.fleet))
        return [target for state in states if state_is_active(state) and (target := target_of(state)) is not None]

    async def up(
        self,
        profile: str | None,
        engine: str | None,
        beside: Sequence[str] = (),
        *,
        unverified: bool = False,
        force: bool = False,
    ) -> dict[str, object]:
        """Start this, or have it replace what runs.

        :param profile: None for what ran before
        :param beside: profiles that are loaded beside it
        :param unverified: also what `orch verify` has found to be computed wrongly
        :param force: also what cannot fit
        :raises OrchError: when it cannot be started as it is written
        """
        resolved = await self._resolve(profile, engine, unverified=unverified, force=force)
        others = [await self._resolve(name, None, unverified=unverified, force=force) for name in beside]
        check_beside([each.target.profile for each in (resolved, *others)], self._owner.fleet.rules)
        for each in [resolved, *others] if unverified else []:
            self._preparer.trust(each.target)

        await self._models.try_read()
        generation = self._router.views.generation
        target, slot = resolved.target, fresh_slot()
        operation = self._switcher.adopt(target, slot)
        fleet = await self._owner.ask(UpRequested(target, slot))
        switches = (each.switch for each in fleet.residents.values() if each.switch is not None)
        replaces = any(switch.operation.id == slot for switch in switches)
        for each in others:
            await self._owner.ask(LoadRequested(each.target, fresh_slot()))

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
            "beside": [name_of(each.target) for each in others],
        }

    async def _resolve(
        self, profile: str | None, engine: str | None, *, unverified: bool = True, force: bool = True
    ) -> ResolvedTarget:
        if profile is None:
            fallback = self._fallback()
            if fallback is None:
                raise UsageError(
                    "no profile was named, and none ran before",
                    hint="`orch up PROFILE`; `orch profile list` shows them, `orch init` makes one",
                )

            profile, engine = fallback.profile, engine or fallback.engine

        resolve = partial(self._preparer.resolve, profile, engine, unverified=unverified, force=force)
        return await read_files(resolve, f"profile `{profile}`")

    async def switch(
        self, target: str, strategy: Strategy | None, *, dry_run: bool, now: bool = False, again: bool = False,
        keep: bool = False, unverified: bool = False, force: bool = False,
        check: Callable[[Target], None] | None = None,
    ) -> dict[str, object]:  # fmt: skip
        """Begin a switch, in the place of one that is under way, or say what it would do.

        :param now: cut the requests that run instead of waiting for their end
        :param again: start it anew where it runs already
        :param keep: what was in focus stays loaded
        :param unverified: also to what `orch verify` has found to be computed wrongly
        :param force: also to what cannot fit
        :param check: raises what speaks against it at the moment at which it would begin
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
            if check is not None:
                check(resolved.target)

            earlier = self._switcher.current
            operation = await self._begin(resolved, planned, reason, now=now, again=again, keep=keep)
            replaced = name_of(earlier.target) if earlier is not None and earlier.id != operation else None
            return answer | {"operation": operation, "replaces": replaced}

        before = worth = None
        if running is not None:
            before = await self._resolve(running.profile, running.engine)
            worth = await read_files(partial(self._worth, before, resolved), "what was measured of speeds")

        return answer | {
            "argv_before": before.argv if before else None,
            "argv_after": resolved.argv,
            "worth": worth,
        }

    async def reload(self) -> dict[str, object]:
        """Read the profiles and `orch.toml` anew; `[residency]` is in force then, the rest of it from the next start.

        An instance is replaced only if its own profile says something else now, and that is valid.

        :raises OrchError: when something that was read is wrong; nothing has changed then
        """
        await read_files(self._check_config, "the configuration")
        await self._models.read()
        running = self.running()
        resolved = [await self._resolve(target.profile, target.engine) for target in self.loaded()]
        changed: dict[Target, tuple[str, ...]] = {}
        for each in resolved:
            instance = self._instance(each.target)
            found = await self._status.stale(instance) if instance is not None else ()
            if found:
                changed[each.target] = found

        operations = {each.target: await self._renew(each) for each in resolved if each.target in changed}
        others = [
            {"running": name_of(target), "changed": changed[target], "operation": operation}
            for target, (operation, _) in operations.items()
            if target != running
        ]
        answer: dict[str, object] = {
            "running": name_of(running) if running else None,
            "changed": changed.get(running, ()) if running else (),
            "operation": operations[running][0] if running in operations else None,
        }
        return answer | {"others": others} if others else answer

    async def restart(self, profile: str | None = None) -> dict[str, object]:
        """Start the same target anew, as its profile reads now; a mistake in that is found before anything ends.

        :param profile: which one; None for the one in focus
        :raises OrchError: as `switch`, or when nothing runs
        """
        running = self.running()
        if profile is not None:
            loaded = self.loaded()
            running = next((each for each in loaded if each.profile == profile), None)
            if running is None:
                raise not_loaded(profile, [each.profile for each in loaded])

        if running is None:
            raise NotRunningError("nothing runs that could be restarted", hint="start something: `orch up PROFILE`")

        await self._models.try_read()
        resolved = await self._resolve(running.profile, running.engine)
        operation, strategy = await self._renew(resolved)
        return {"running": name_of(running), "strategy": strategy, "operation": operation}

    def _instance(self, target: Target) -> str | None:
        states = (resident.state for resident in self._owner.fleet.residents.values())
        return next((instance_of(state) for state in states if target_of(state) == target), None)

    async def _renew(self, resolved: ResolvedTarget) -> tuple[str, Strategy]:
        """Start what runs anew; the focus stays where it is.

        :return: the operation's id, and its strategy
        """
        strategy, reason = await self._switcher.plan(resolved, None, again=True)
        if resolved.target == self.running():
            return await self._begin(resolved, strategy, reason, again=True), strategy

        operation = self._switcher.begin_aside(resolved, strategy, reason)
        self._tasks.start_soon(self._switcher.run, operation, resolved)
        return operation.id, strategy

    async def _begin(
        self, resolved: ResolvedTarget, strategy: Strategy, reason: str, *,
        again: bool = False, now: bool = False, keep: bool = False,
    ) -> str:  # fmt: skip
        """:return: the operation's id"""
        operation = self._switcher.begin(resolved, strategy, reason, again=again, now=now, keep=keep)
        self._tasks.start_soon(self._switcher.run, operation, resolved)
        return operation.id


def check_beside(profiles: Sequence[str], rules: ResidencyRules) -> None:
    """:raises UsageError: when these may never be loaded side by side"""
    twice = sorted({name for name in profiles if profiles.count(name) > 1})
    if twice:
        raise UsageError(f"`{twice[0]}` was named twice", hint="an alias stands for its profile")

    most = 1 if rules.policy == "one" else rules.max
    if most and len(profiles) > most:
        key = 'policy = "one"' if rules.policy == "one" else f"max = {most}"
        text = f"{len(profiles)} profiles were named, and at most {most} may be loaded"
        raise UsageError(text, details=(f"`residency.{key}` in orch.toml",), hint="name fewer of them, or change that")

    for one, other in combinations(profiles, 2):
        if rules.exclude(one, other):
            text = f"`{one}` and `{other}` are never loaded at the same time"
            raise UsageError(text, details=("`residency.exclusive` in orch.toml",), hint="name one of them")
