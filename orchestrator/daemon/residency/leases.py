"""Leases: a client tries other targets for a while (`orch bench`); what served before serves again, however it ends.

    held --asked for, or its client is gone--> restoring --what served before serves, or cannot--> over
         --somebody started, switched or stopped something, or the daemon ends--> over, nothing is restored

There is one at a time. While it lasts the state file keeps what served before as what is to run, so a daemon that is
killed meanwhile leaves the next one to start that, and to say what was interrupted.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Literal, Protocol

import anyio
import anyio.to_thread
from anyio.abc import TaskGroup

from orchestrator.api.types import LeaseStatus
from orchestrator.core.errors import AlreadyRunningError, OrchError
from orchestrator.core.fleet.fleet_states import DownRequested
from orchestrator.core.fleet.lifecycle_states import Target
from orchestrator.core.fleet.resident_states import EndCause
from orchestrator.core.residency.lease import (
    ServedTargets,
    destination,
    left_over,
    next_restore,
    restore_result,
    served_by,
    with_loaded,
    without_profiles,
)
from orchestrator.daemon.control.event_log import EventLog
from orchestrator.daemon.fleet.owner import Owner, fresh_slot
from orchestrator.daemon.fleet.switcher import Switcher, name_of

_log = logging.getLogger(__name__)

MAX_TEXT = 200
PROGRESS_S = 0.5


class TargetMemory(Protocol):
    """What is remembered for the next daemon (`daemon/process/desired_target.py`)."""

    async def hold(self, served: ServedTargets, note: LeaseStatus) -> None:
        """Remember these, whatever runs from now on."""
        ...

    async def release(self, note: LeaseStatus | None) -> None:
        """Remember what runs again."""
        ...

    async def again(self, target: Target) -> OrchError | None:
        """Look whether a target that ran before can be started as it is written; the reason why not."""
        ...


@dataclass(slots=True)
class Lease:
    """One of them.

    :param title: what it is for, in one line; `resume` is the command that goes on with it, empty where there is none
    :ivar started: the profiles that were started under it
    :ivar leaving: set once it is not held any more, `over` once nothing of it is left to do
    :ivar cause: why it was broken off; `problems`: what does not serve again, and why
    """

    title: str
    resume: str
    since: str
    served: ServedTargets
    id: str = field(default_factory=fresh_slot)
    phase: Literal["held", "restoring", "over"] = "held"
    started: set[str] = field(default_factory=set)
    cause: str | None = None
    problems: list[str] = field(default_factory=list)
    leaving: anyio.Event = field(default_factory=anyio.Event)
    over: anyio.Event = field(default_factory=anyio.Event)

    async def news(self, progress: Callable[[], str]) -> AsyncIterator[dict[str, object]]:
        """Tell its client of it until it is over: its id, how far what served before is, and how it ended."""
        yield {"lease": self.id}
        await self.leaving.wait()
        while not self.over.is_set():
            yield {"progress": progress()}
            with anyio.move_on_after(PROGRESS_S):
                await self.over.wait()

        yield {"cause": self.cause, "problems": self.problems}

    def status(self, state: Literal["held", "restoring", "interrupted", "failed"]) -> LeaseStatus:
        cause = "; ".join(filter(None, (self.cause, *self.problems))) or None
        focus = name_of(self.served.focus) if self.served.focus is not None else None
        return LeaseStatus(
            title=self.title, resume=self.resume, since=self.since, state=state, serves=focus, cause=cause
        )


class Leases:
    """Grants them.

    :param tasks: where what served before is restored
    :param now: RFC 3339
    :param sweep: removes what a client has left that was killed; blocks
    :param end: ends the daemon, which was started for the client alone; None where it was not
    """

    def __init__(
        self,
        tasks: TaskGroup,
        owner: Owner,
        switcher: Switcher,
        memory: TargetMemory,
        event_log: EventLog,
        now: Callable[[], str],
        sweep: Callable[[], object],
        end: Callable[[], None] | None = None,
    ) -> None:
        self._tasks = tasks
        self._owner = owner
        self._switcher = switcher
        self._memory = memory
        self._event_log = event_log
        self._now = now
        self._sweep = sweep
        self._end = end
        self._lease: Lease | None = None
        self._yielded: Lease | None = None
        self._last: LeaseStatus | None = None
        self._closed = False

    def recall(self, note: LeaseStatus | None) -> None:
        """Take over what the daemon before has noted."""
        if note is not None and note["state"] in ("held", "restoring"):
            note["state"], note["cause"] = "interrupted", "the daemon ended meanwhile"
            self._event_log.add("lease_interrupted", _interruption(note["title"], note["cause"], note["resume"]))

        self._last = note

    def status(self) -> LeaseStatus | None:
        """Return the lease there is, else what became of the last one if that is worth knowing."""
        lease = self._lease
        return lease.status("restoring" if lease.phase == "restoring" else "held") if lease is not None else self._last

    async def open(self, title: str, resume: str) -> Lease:
        """Grant one. One that is about to restore what served before hands that on to it.

        :raises AlreadyRunningError: when there is one
        """
        earlier = self._lease
        if self._closed:
            raise OrchError("the daemon ends")

        if earlier is not None and earlier.phase == "held":
            raise AlreadyRunningError(
                f"{earlier.title} runs, since {earlier.since}", hint="wait for its end, or stop it"
            )

        # What is still on its way back is owed by the new one.
        served = earlier.served if earlier is not None else served_by(self._owner.fleet)
        lease = self._lease = Lease(title[:MAX_TEXT], resume[:MAX_TEXT], self._now(), served)
        if earlier is not None:
            lease.started |= earlier.started
            self._finish(earlier)

        self._last = self._yielded = None
        try:
            await self._memory.hold(lease.served, lease.status("held"))
        except BaseException:
            self.gone(lease)
            raise

        self._event_log.add("lease_begun", f"{lease.title} tries other targets")
        return lease

    def check(self, lease_id: str, target: Target) -> None:
        """Note that a target is about to be started under a lease.

        :raises OrchError: when it is not held any more
        """
        lease = self._lease
        if lease is None or lease.id != lease_id or lease.phase != "held":
            raise OrchError(f"{target} is not started: the lease for that is over", hint="`orch events` says why")

        lease.started.add(target.profile)

    def leave(self, lease_id: str) -> None:
        """Give one back: what served before is restored.

        :raises OrchError: when it is over already
        """
        lease = self._lease
        if lease is None or lease.id != lease_id:
            raise OrchError("this lease is over", hint="`orch events` says why")

        self._restore_later(lease)

    def gone(self, lease: Lease) -> None:
        """Take one back: its client has left without a word."""
        if lease is self._lease and lease.phase == "held":
            lease.cause = "its process ended"
            self._tell(lease)
            self._restore_later(lease)

    async def acted(self, what: str, operation: str | None = None) -> None:
        """A person has decided what runs: that stays, and what served before is not restored over it.

        :param what: the command, for people
        :param operation: the switch that came of it; should it fail, what was tried is no place to return to
        """
        lease, self._last = self._lease or self._yielded, None
        self._lease = self._yielded = None
        if lease is None:
            await self._memory.release(None)
            return

        if lease.phase == "held":
            lease.cause = f"`{what}` meanwhile"
            self._tell(lease)

        if lease.cause is not None:
            self._last = lease.status("interrupted")

        self._finish(lease)
        if operation is None:
            await self._memory.release(self._last)
        else:
            self._yielded = lease
            self._tasks.start_soon(self._yield_to, lease, operation)

    async def _yield_to(self, lease: Lease, operation: str) -> None:
        """Follow a person's switch; restore what served before where it has failed."""
        switch = self._switcher.find(operation)
        await switch.done.wait()
        if self._yielded is not lease or self._lease is not None:
            return

        self._yielded = None
        back = destination(self._owner.fleet.focused)
        failed = switch.result is not None and not switch.result["ok"]
        if failed and back is not None and back.profile in lease.started and back != switch.target:
            lease.phase, self._lease = "restoring", lease
            await self._restore(lease)
        else:
            await self._memory.release(self._last)

    async def loaded(self, target: Target) -> None:
        """A person has loaded this beside the rest: it is to be there afterwards as well."""
        await self._owe(lambda served: with_loaded(served, target))

    async def ended(self, profiles: set[str] | None, what: str) -> None:
        """A person has stopped or unloaded these: they are not brought back.

        :param profiles: None for all
        :param what: the command, for people
        """
        lease = self._lease
        focus = lease.served.focus if lease is not None else None
        if (
            lease is None
            or profiles is None
            or lease.started & profiles
            or (focus is not None and focus.profile in profiles)
        ):
            await self.acted(what)
        else:
            await self._owe(lambda served: without_profiles(served, profiles))

    def close(self) -> None:
        """The daemon ends: nothing is restored by this one."""
        self._closed = True
        lease, self._lease = self._lease, None
        if lease is not None:
            lease.cause = lease.cause or "the daemon ended meanwhile"
            self._last = lease.status("interrupted")
            self._finish(lease)

    async def _owe(self, change: Callable[[ServedTargets], ServedTargets]) -> None:
        lease = self._lease
        if lease is not None:
            lease.served = change(lease.served)
            await self._memory.hold(lease.served, lease.status("restoring" if lease.phase == "restoring" else "held"))

    def _restore_later(self, lease: Lease) -> None:
        if lease.phase == "held":
            lease.phase = "restoring"
            lease.leaving.set()
            self._tasks.start_soon(self._restore, lease)

    async def _restore(self, lease: Lease) -> None:
        self._switcher.interrupt(EndCause("interrupted", f"{lease.title} is over"))
        tried: set[Target] = set()
        while lease.phase == "restoring":
            event = next_restore(lease.served, tried, self._owner.fleet, fresh_slot())
            if event is None:
                await self._take_down_left(lease)
                break

            tried.add(event.target)
            error = await self._memory.again(event.target)
            if lease.phase != "restoring":
                return

            if error is None:
                await self._owner.ask(event)

            await self._take_down_left(lease)
            problem = error.message if error is not None else await self._problem_of(lease, event.target)
            if problem is not None:
                lease.problems.append(f"{event.target} does not serve again: {problem}")
                _log.warning("%s: %s", lease.title, lease.problems[-1])

        if lease.phase == "restoring":
            await self._restored(lease)

    async def _problem_of(self, lease: Lease, target: Target) -> str | None:
        """Wait until a target serves again; return why it does not."""
        generation = 0
        while lease.phase == "restoring":
            result = restore_result(target, self._owner.fleet)
            if result is not None:
                return result.problem

            await self._owner.published.changed(generation)
            generation = self._owner.published.generation

        return None

    async def _take_down_left(self, lease: Lease) -> None:
        left = left_over(lease.served, lease.started, self._owner.fleet)
        if left:
            await self._owner.ask(DownRequested(left))

    async def _restored(self, lease: Lease) -> None:
        self._lease = None
        self._last = lease.status("interrupted") if lease.cause else None
        if lease.problems:
            self._event_log.add("restore_failed", f"after {lease.title}: {'; '.join(lease.problems)}")
            self._last = lease.status("failed")

        if not lease.problems and lease.served.focus is not None:
            self._event_log.add("restored", f"{lease.served.focus} serves again after {lease.title}")

        self._finish(lease)
        await self._memory.release(self._last)
        await anyio.to_thread.run_sync(self._sweep)
        if self._end is not None and lease.cause is not None and not lease.served.targets and self._lease is None:
            self._end()

    def _finish(self, lease: Lease) -> None:
        lease.phase = "over"
        lease.leaving.set()
        lease.over.set()

    def _tell(self, lease: Lease) -> None:
        self._event_log.add("lease_interrupted", _interruption(lease.title, lease.cause, lease.resume))


def _interruption(title: str, cause: str | None, resume: str) -> str:
    return f"{title} was interrupted: {cause}" + (f"; `{resume}` goes on" if resume else "")
