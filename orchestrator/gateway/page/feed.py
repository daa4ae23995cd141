"""The page's feed, as server-sent events: what is to be seen each second, made once for all who look.

Nothing runs while nobody looks: whoever looks first in a second makes that second's frame, the others are given the
same bytes. Events: `hello` (what this client may do), `points` (the plot so far), then `frame` and `log` each second.
"""

from __future__ import annotations

import asyncio
import logging
from time import monotonic

import msgspec

from orchestrator import __version__
from orchestrator.adapters.http1 import Headers, Response
from orchestrator.core.errors import OrchError
from orchestrator.gateway.dispatch import Dispatcher
from orchestrator.gateway.page.contract import PageFrame, PageHost
from orchestrator.gateway.page.engine_ui import EngineUis

_log = logging.getLogger(__name__)

EVERY_S = 1.0
QUIET_S = 15.0
"""After so long without news a comment is sent: proxies end connections that are silent."""

_HEADERS: Headers = [
    (b"content-type", b"text/event-stream"), (b"cache-control", b"no-store"), (b"x-accel-buffering", b"no"),
]  # fmt: skip


class PageFeed:
    """Sends what is to be seen to who looks."""

    def __init__(self, host: PageHost, dispatcher: Dispatcher, uis: EngineUis) -> None:
        self._host = host
        self._dispatcher = dispatcher
        self._uis = uis
        self._making = asyncio.Lock()
        self._made_at = float("-inf")
        self._frame: PageFrame | None = None
        self._full = b""
        self._reduced = b""
        self._failing = False

    async def follow(self, response: Response, *, may: bool, keyed: bool) -> None:
        """Send the feed for as long as the client and the gateway are there.

        :param may: the client may do more than look; else it is shown neither log nor names of keys
        :param keyed: clients need a key for that
        """
        hello = {
            "version": __version__,
            "may": may,
            "keyed": keyed,
            "manage": self._dispatcher.config.switch_on_request,
        }
        response.start(200, _HEADERS)
        response.write(_event("hello", hello))
        seen, told, seq = b"", monotonic(), None
        while self._dispatcher.accepting:
            frame = await self._newest(may=may)
            if frame and not seen:
                response.write(_event("points", self._host.points()))

            if frame != seen:
                response.write(frame)
                seen, told = frame, monotonic()

            if may:
                newest, lines = self._host.log_lines(seq)
                if newest != seq:
                    response.write(_event("log", lines))
                    seq, told = newest, monotonic()

            if monotonic() - told >= QUIET_S:
                response.write(b": orch\n\n")
                told = monotonic()

            await response.drain()
            await asyncio.sleep(EVERY_S - monotonic() % EVERY_S)  # all at the same moment

        response.end()

    async def _newest(self, *, may: bool) -> bytes:
        async with self._making:
            if monotonic() - self._made_at >= EVERY_S / 2:
                await self._make()
                self._made_at = monotonic()

            if may:
                return self._full

            if not self._reduced and self._frame is not None:
                self._reduced = _event("frame", reduced(self._frame))

            return self._reduced

    async def _make(self) -> None:
        try:
            frame = await self._host.frame()
        except (OrchError, OSError) as error:  # no descriptor left to read with, say: what was seen last stays
            if not self._failing:
                _log.warning("the page has no newer figures: %s", error)

            self._failing = True
            return

        await self._uis.note(frame["models"], self._dispatcher.supervisor.view())
        self._full, self._reduced = _event("frame", frame), b""
        self._frame, self._failing = frame, False


def reduced(frame: PageFrame) -> PageFrame:
    """Return what may be shown without a key: not why something failed, which may name files; not who asked, nor by
    which id a request can be cancelled.
    """
    shown = frame.copy()
    shown["cause"] = shown["hint"] = shown["notice"] = None
    shown["models"] = [{**model, "cause": None, "hint": None, "waits": None} for model in frame["models"]]
    shown["requests"] = [{**row, "client": None, "request_id": None} for row in frame["requests"]]
    return shown


def _event(name: str, data: object) -> bytes:
    return f"event: {name}\ndata: ".encode() + msgspec.json.encode(data) + b"\n\n"
