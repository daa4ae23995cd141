"""What a bench asks of the daemon: switches, what runs, and who else is there."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Any

from orchestrator.api import client
from orchestrator.api.top_frames import TopFrame
from orchestrator.api.types import Status
from orchestrator.bench.lease import HeldLease
from orchestrator.core.errors import NotRunningError, OrchError, TimedOutError

SWITCH_S = 3600.0
LOOK_S = 0.25
RECENT = 200
"""Requests that a frame is asked for: more than clients send in a block, or else each of them is a stranger's."""

Say = Callable[[str], None]


class DaemonLink:
    """The control API, for a bench.

    :param say: shows one line of progress
    """

    def __init__(self, socket: str, say: Say) -> None:
        self._socket = socket
        self._say = say
        self._lease: HeldLease | None = None

    def status(self) -> Status:
        answer: Status = self._get("/v1/status")
        return answer

    def frame(self) -> TopFrame:
        answer: TopFrame = self._get(f"/v1/frame?points=0&requests={RECENT}")
        return answer

    def argv(self) -> tuple[str, ...]:
        return tuple(self._get("/v1/launch")["argv"])

    def switch(self, target: str) -> None:
        """Start a target anew, in the place of what runs, even where that is the same; return once it answers.

        Never side by side: a model that is loaded beside another one is fitted into less memory.

        :raises OrchError: when it did not start
        """
        body: dict[str, object] = {"target": target, "strategy": "replace", "again": True, "unverified": True}
        if self._lease is not None:
            body["lease"] = self._lease.id

        operation = self._post("/v1/switch", body)["operation"]
        deadline = time.monotonic() + SWITCH_S
        while True:
            news = self._get(f"/v1/switch?operation={operation}&wait_s=0.5")
            result = news["result"]
            if result is not None:
                if not result["ok"]:
                    if self._lease is not None:
                        self._lease.confirm()  # a switch by a person has taken its place

                    raise OrchError(f"{target} did not start: {result['cause']}", hint="look at `orch logs`")

                return

            self._say(f"{target}: {news['progress']}")
            if time.monotonic() > deadline:
                raise TimedOutError(f"{target} was not ready after {SWITCH_S:g} s", hint="look at `orch status`")

    def strangers(self, prefix: str) -> int:
        """Return how many requests of others wait or run."""
        return sum(not each["id"].startswith(prefix) for each in self._get("/v1/requests")["requests"])

    def wait_idle(self, prefix: str) -> None:
        """Wait until no request of others waits or runs: two looks in a row."""
        quiet = 0
        while quiet < 2:
            count = self.strangers(prefix)
            quiet = 0 if count else quiet + 1
            if count:
                self._say(f"waiting for {count} request{'s' if count > 1 else ''} of clients")

            if quiet < 2:
                time.sleep(LOOK_S)

    def strangers_since(self, frame: TopFrame, unix_s: float, prefix: str) -> int:
        """Return how many requests of others were there after a moment, ended ones included."""
        return sum(
            not (row["request_id"] or "").startswith(prefix)
            and (row["outcome"] in ("held", "running") or _unix(row["started"]) + row["total_s"] > unix_s)
            for row in frame["requests"]
        )

    def end_daemon(self) -> None:
        """Stop the engine, and then the daemon, which was started for the bench alone; it may have ended by itself."""
        with contextlib.suppress(NotRunningError):
            self._post("/v1/down", {"all": True})

    @contextlib.contextmanager
    def lease(self, title: str, resume: str = "") -> Iterator[None]:
        """Try other targets in the block: what served before it serves again after it, however it ends.

        In the block, whatever is asked of the daemon raises `LeaseEndedError` once a person has started, switched or
        stopped something: that stays. A lease within another one is that one.

        :param title: what for, in one line, for `orch status`
        :param resume: the command that goes on with it once it was broken off; empty where there is none
        :raises OrchError: when somebody else holds one; at the end, when something does not serve again
        """
        if self._lease is not None:
            yield
            return

        lease = self._lease = HeldLease(self._socket, title, resume)
        try:
            yield
        finally:
            self._lease = None
            for progress in lease.give_back():
                self._say(f"going back to what served before: {progress}")

    def check(self) -> None:
        """:raises LeaseEndedError: when a lease was opened and is over by now"""
        if self._lease is not None:
            self._lease.check()

    def _get(self, target: str) -> Any:
        return self._ask(target, None, timeout_s=30)

    def _post(self, target: str, body: dict[str, object]) -> Any:
        return self._ask(target, json.dumps(body).encode(), timeout_s=120)

    def _ask(self, target: str, body: bytes | None, timeout_s: float) -> Any:
        self.check()
        try:
            return json.loads(client.request(self._socket, target, body, timeout_s=timeout_s))
        except OrchError:
            if self._lease is not None:
                self._lease.confirm()

            raise


def _unix(rfc3339: str) -> float:
    return datetime.fromisoformat(rfc3339.replace("Z", "+00:00")).timestamp()
