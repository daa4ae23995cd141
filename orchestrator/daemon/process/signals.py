"""Handles the signals that the daemon is sent.

TERM or INT ends it (running requests may end first), a second one ends it at once. HUP reads the profiles anew and
checks `orch.toml`, as `orch reload` does; where the daemon has a terminal, it says that the terminal is gone, and ends
the daemon.
"""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Awaitable, Callable

import anyio

from orchestrator.core.errors import OrchError
from orchestrator.daemon.control.event_log import EventLog
from orchestrator.daemon.process.manager_link import ManagerLink

_log = logging.getLogger(__name__)


class Signals:
    """Receives them, and holds what follows from them until somebody acts on it.

    :ivar ending: set once the daemon is to end, whoever said so
    :ivar forced: set once it is to end without waiting for requests
    """

    def __init__(self) -> None:
        self.ending = anyio.Event()
        self.forced = anyio.Event()
        self._hung_up = anyio.Event()
        self._in_terminal = has_terminal()

    async def heed(self) -> None:
        """Act on TERM and INT as they come, for ever."""
        with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT, signal.SIGHUP) as signals:
            async for number in signals:
                if number == signal.SIGHUP and not self._in_terminal:
                    self._hung_up.set()
                elif self.ending.is_set():
                    _log.warning("%s again: ending at once", signal.Signals(number).name)
                    self.forced.set()
                else:
                    _log.info("%s: running requests may end; once more ends at once", signal.Signals(number).name)
                    self.ending.set()

    async def reload_when_told(
        self, reload: Callable[[], Awaitable[object]], link: ManagerLink, event_log: EventLog
    ) -> None:
        """Reload at each HUP, for ever; many of them while one is under way are one more."""
        while True:
            await self._hung_up.wait()
            self._hung_up = anyio.Event()
            link.reloading()
            remark = ""
            try:
                await reload()
            except Exception as error:  # noqa: BLE001  (the manager waits for the end of each reload)
                if not isinstance(error, OrchError):
                    _log.exception("a reload failed")

                text = "; ".join((error.message, *error.details)) if isinstance(error, OrchError) else str(error)
                remark = f"reload failed, what was read before stays: {text}"
                _log.error("%s", remark)

            event_log.add("reload_failed" if remark else "reloaded", remark or "the profiles were read anew")
            link.reloaded(remark)


def has_terminal() -> bool:
    """Return whether this process has a terminal that could hang up."""
    try:
        os.close(os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY | os.O_CLOEXEC))
    except OSError:
        return False

    return True
