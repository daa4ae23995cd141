"""Messages to the service manager: ready, one line of status, reloading, stopping, and "give me time".

Nothing here has an effect without a manager that listens (`adapters/systemd/notify.py`).
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio

from orchestrator.adapters.systemd.notify import Notifier, extend_field, reloading_fields, status_field
from orchestrator.api.wording import agreeing
from orchestrator.core.fleet.lifecycle_states import Failed, Failure, Ready, State, Stopped, describe
from orchestrator.daemon.fleet.owner import Owner
from orchestrator.daemon.fleet.router import Router

STATUS_EVERY_S = 1.0
"""Progress of a load moves many times a second; nobody reads it so often."""

EXTEND_S = 30.0
EXTEND_EVERY_S = 10.0
"""Each request for time is renewed long before what it asked for is over."""


class ManagerLink:
    """Speaks to the service manager for the daemon."""

    def __init__(self, notifier: Notifier, owner: Owner, router: Router, gateway_url: str) -> None:
        self._notifier = notifier
        self._owner = owner
        self._router = router
        self._gateway_url = gateway_url
        self._remark: tuple[str, State] | None = None
        self._ready = False
        self._stopping = False
        self._said = ""

    @property
    def connected(self) -> bool:
        return self._notifier.connected

    async def follow(self) -> None:
        """Send the status line as it changes, for ever."""
        while True:
            generation = self._router.views.generation
            told = self._say() and self._notifier.flush()
            with anyio.move_on_after(None if told else STATUS_EVERY_S):  # a busy manager is told later, change or not
                await self._router.views.changed(generation)

            await anyio.sleep(STATUS_EVERY_S)

    def remark(self, text: str) -> None:
        """Say this in the status line until the state is another one; an empty text takes it away."""
        self._remark = (text, self._owner.fleet.state) if text else None
        self._say()

    def ready(self) -> None:
        """Report READY=1: the listeners accept and what ran before is on its way again, or the model is loaded."""
        if self._stopping:
            return

        self._ready = True
        self._said = self._line()
        self._notifier.send("READY=1", f"MAINPID={os.getpid()}", status_field(self._said))

    def reloading(self) -> None:
        self._notifier.send(*reloading_fields())

    def reloaded(self, remark: str) -> None:
        """:param remark: what went wrong; empty when nothing did"""
        self.remark(remark)
        if self._ready:
            self.ready()

    def stopping(self) -> None:
        self._stopping = True
        self._said = self._line()
        self._notifier.send("STOPPING=1", status_field(self._said))

    def ping(self) -> None:
        self._notifier.try_send("WATCHDOG=1")

    @asynccontextmanager
    async def more_time(self) -> AsyncIterator[None]:
        """Keep the manager waiting while this context is open, whatever its own limit for starting or stopping says."""
        if not self.connected:
            yield
            return

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._extend)
            yield
            tasks.cancel_scope.cancel()

    async def _extend(self) -> None:
        while True:
            self._notifier.send(extend_field(EXTEND_S))
            await anyio.sleep(EXTEND_EVERY_S)

    async def until_loaded(self) -> Failure | None:
        """Wait until what was asked for serves; at once when nothing was.

        :return: why it will not
        """
        generation = 0
        async with self.more_time():
            while True:
                published = await self._owner.published.changed(generation)
                generation = self._owner.published.generation
                state = published.fleet.state
                match state:
                    case Failed(failure=failure):
                        return failure
                    case Ready() | Stopped():
                        return None

    def _say(self) -> bool:
        """Send the status line where it has changed, and return whether the manager has it, or there is none."""
        line = self._line()
        if line != self._said and self._notifier.try_send(status_field(line)):
            self._said = line

        return line == self._said or not self.connected

    def _line(self) -> str:
        state = self._owner.fleet.state
        residents = self._owner.fleet.residents.values()
        ready = sum(isinstance(each.state, Ready) for each in residents) - isinstance(state, Ready)
        line = status_line(state, self._router.view().progress, self._gateway_url, beside=ready)
        if self._stopping:
            return f"stopping; {line}"

        # A remark is about the state in which it was made; one that has changed says more by itself.
        return f"{self._remark[0]}; {line}" if self._remark and self._remark[1] == state else line


def status_line(state: State, progress: str, url: str, *, beside: int = 0) -> str:
    """Return one line for `systemctl status`: what is loaded, what is loading, or why nothing is.

    :param beside: how many others serve
    """
    url = f"{beside} more {agreeing(beside, 'is', 'are')} ready; {url}" if beside else url
    match state:
        case Stopped():
            return f"no model is loaded; {url}"
        case Failed(failure=failure):
            return f"{state.start_record.target} failed: {describe(failure)}; {url}"
        case _:
            return f"{progress}; {url}"
