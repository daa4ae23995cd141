"""A lease, as its holder sees it: other targets may be tried while it lasts; what served before serves again after it.

The daemon restores it when the connection ends, whatever ended it: the holder may be killed at any time.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from typing import Any

from orchestrator.api import client
from orchestrator.core.errors import NotRunningError, OrchError

NEWS_S = 5.0
"""For the end of a lease to be told once it is over."""

_WAIT_S = 0.2


class LeaseEndedError(OrchError):
    """Raised when a lease is over before its holder is done: a person has started, switched or stopped something, or
    the daemon has ended.
    """


class HeldLease:
    """Opens one, and follows what the daemon tells of it in a thread.

    :param socket: the control socket
    :param title: what it is for, in one line
    :param resume: the command that goes on with it once it was broken off; empty where there is none
    :ivar progress: how far what served before is, once the lease was given back
    :raises OrchError: when another one is held
    """

    def __init__(self, socket: str, title: str, resume: str) -> None:
        self._socket = socket
        self._title = title
        self._resume = resume
        self._told: dict[str, Any] | None = None
        self._error: OrchError | None = None
        self._granted = threading.Event()
        self._over = threading.Event()
        self.id = ""
        self.progress = ""
        threading.Thread(target=self._follow, daemon=True, name="lease").start()
        self._wait(self._granted)
        if self._error is not None:
            raise self._error

    def check(self) -> None:
        """:raises LeaseEndedError: when it is over"""
        if self._over.is_set():
            cause = self._told["cause"] if self._told is not None else "the daemon has ended"
            hint = f"`{self._resume}` goes on" if self._resume else None
            raise LeaseEndedError(f"{self._title} was broken off: {cause}", hint=hint)

    def confirm(self) -> None:
        """Ask the daemon whether it is held: something went wrong, and its end may be on its way here.

        :raises LeaseEndedError: when it is over
        """
        try:
            lease = client.status(self._socket)["lease"]
            held = lease is not None and lease["state"] == "held"
        except OrchError:  # it has ended, or ends now, and then it may have answered nothing
            held = False

        if not held:
            self._over.wait(NEWS_S)
            self.check()

    def give_back(self) -> Iterator[str]:
        """Give it back, and yield the progress until what served before serves again.

        :raises OrchError: when something of it does not
        """
        if self._over.is_set():
            return

        try:
            client.request(self._socket, "/v1/lease/end", json.dumps({"lease": self.id}).encode())
        except NotRunningError:
            return  # the next daemon starts what served before
        except OrchError:  # it was over a moment ago; a daemon that does not answer restores once we are gone
            self._over.wait(NEWS_S)
            return

        while not self._over.wait(_WAIT_S):
            yield self.progress

        if self._told is not None and self._told["problems"]:
            raise OrchError("; ".join(self._told["problems"]), hint="look at `orch status` and `orch logs`")

    def _wait(self, event: threading.Event) -> None:
        while not event.wait(_WAIT_S):  # in pieces: so that ^C is heard
            pass

    def _follow(self) -> None:
        body = json.dumps({"title": self._title, "resume": self._resume}).encode()
        try:
            for line in client.stream(self._socket, "/v1/lease", body):
                told = json.loads(line)
                if "lease" in told:
                    self.id = told["lease"]
                    self._granted.set()
                elif "progress" in told:
                    self.progress = told["progress"]
                else:
                    self._told = told
        except (OrchError, OSError, ValueError) as error:
            self._error = error if isinstance(error, OrchError) else OrchError(f"no lease: {error}")
        finally:
            if not self.id and self._error is None:
                self._error = OrchError("the daemon closed the connection without an answer")

            self._over.set()
            self._granted.set()
