"""Proves that the daemon is alive as a whole, and ends it when a part of it is not.

A core task outlives whatever a file, an engine, a client or a limit of the machine can do to it: such an error is
logged and said, and the task begins again after a wait. A bug (`is_bug`) ends it, and the daemon with it: nobody is
served by half of one. The service manager's watchdog hears from us only after the owner has taken an event and every
such task is there. One loop runs them all, so whatever blocks it silences the watchdog too.
"""

from __future__ import annotations

import faulthandler
import logging
import os
import sys
import threading
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from time import monotonic

import anyio
from anyio.abc import TaskGroup

from orchestrator.core.errors import OrchError

_log = logging.getLogger(__name__)

PINGS_A_PERIOD = 3
"""The manager gives up after one period without a word; half of it is what sd_watchdog_enabled(3) asks for."""

END_WITHIN_S = 0.8
"""For the orderly end after a core task's death. What it does not manage, the guard process and the manager do."""


AGAIN_S = 1.0
MOST_AGAIN_S = 30.0
"""Wait before a task begins again; doubled each time it fails soon after the last."""

STABLE_S = 60.0


class CoreTaskDied(OrchError):
    """Raised when a task died that the daemon cannot do without. It is a bug; its traceback has been logged."""


def is_bug(error: BaseException) -> bool:
    """Return whether an error can only come from a mistake in the program: nothing outside of it raises these."""
    if isinstance(error, BaseExceptionGroup):
        return any(map(is_bug, error.exceptions))

    return isinstance(error, AssertionError | TypeError | AttributeError | NameError)


class CoreTasks:
    """Starts tasks that run for ever, and knows that they do.

    :param record: notes an event for people: its kind, and a sentence
    :ivar running: their names, those that wait to begin again included
    """

    def __init__(self, tasks: TaskGroup, record: Callable[[str, str], None]) -> None:
        self._tasks = tasks
        self._record = record
        self.running: set[str] = set()

    def start(self, name: str, work: Callable[[], Awaitable[None]], *, again: bool = True) -> None:
        """Start a task.

        :param again: whether it may begin anew after an error that is no bug; the owner may not, with half a step done
        """
        self.running.add(name)
        self._tasks.start_soon(self._run, name, work if not again else partial(self._keep_up, name, work))

    async def _keep_up(self, name: str, work: Callable[[], Awaitable[None]]) -> None:
        wait_s = AGAIN_S
        while True:
            began = monotonic()
            try:
                await work()
                return
            except Exception as error:
                if is_bug(error):
                    raise

                if monotonic() - began > STABLE_S:
                    wait_s = AGAIN_S

                reason = "; ".join(dict.fromkeys(str(each) or type(each).__name__ for each in leaves(error)))
                _log.exception("the task `%s` failed, and begins again in %g s", name, wait_s)
                self._record("task_failed", f"the daemon's task `{name}` failed and begins again: {reason}")

            await anyio.sleep(wait_s)
            wait_s = min(2 * wait_s, MOST_AGAIN_S)

    async def _run(self, name: str, work: Callable[[], Awaitable[None]]) -> None:
        try:
            await work()
        except Exception as error:
            _log.critical("the task `%s` died, and the daemon with it", name, exc_info=True)
            raise CoreTaskDied(f"the task `{name}` died: {error!r}", hint="please report it with the log") from error
        finally:
            self.running.discard(name)

        raise CoreTaskDied(f"the task `{name}` ended, and should not")


def leaves(error: BaseException) -> Iterator[BaseException]:
    """Yield an error, or those of a group."""
    if isinstance(error, BaseExceptionGroup):
        for each in error.exceptions:
            yield from leaves(each)
    else:
        yield error


class Heartbeat:
    """Pings the manager's watchdog, each time after a proof of life.

    :param prove: takes an event through the owner's queue
    :param core: every task that must be there
    :param ping: sends WATCHDOG=1
    :param period_s: the manager's limit
    """

    def __init__(
        self, prove: Callable[[], Awaitable[object]], core: CoreTasks, ping: Callable[[], object], period_s: float
    ) -> None:
        self._prove = prove
        self._core = core
        self._expected = frozenset(core.running)
        self._ping = ping
        self._every_s = period_s / PINGS_A_PERIOD

    async def run(self) -> None:
        """Ping the watchdog after each proof of life, for ever.

        Without a proof there is no ping: the manager then ends the daemon with SIGABRT, and starts it again.
        """
        while True:
            if await self._alive():
                self._ping()

            await anyio.sleep(self._every_s)

    async def _alive(self) -> bool:
        missing = self._expected - self._core.running
        if missing:
            _log.error("no sign of life for the watchdog: %s is gone", ", ".join(sorted(missing)))
            return False

        with anyio.move_on_after(self._every_s) as limit:
            await self._prove()

        if limit.cancelled_caught:
            _log.error("no sign of life for the watchdog: the owner has taken no event for %.1f s", self._every_s)

        return not limit.cancelled_caught


def end_within(seconds: float) -> None:
    """End the process with 1 if it has not ended by then, from a thread that nothing else holds up."""

    def end() -> None:
        if sys.stderr is not None:
            sys.stderr.write("the daemon did not end in time; where its threads are:\n")
            faulthandler.dump_traceback()

        os._exit(1)

    timer = threading.Timer(seconds, end)
    timer.daemon = True
    timer.start()
