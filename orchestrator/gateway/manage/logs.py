"""llama-swap's routes for logs: the text so far, and the text as it comes."""

from __future__ import annotations

import asyncio
from urllib.parse import parse_qs

from orchestrator.adapters.http1 import Headers, Request, Response
from orchestrator.gateway.dispatch import Dispatcher
from orchestrator.gateway.manage.contract import LogView, ModelManager

OWN, ENGINES = "proxy", "upstream"
"""llama-swap's words for its own log and that of all engines; anything else is a model."""

LOOK_S = 1.0
"""So often a stream looks whether the gateway still serves, and whether a model has another engine process."""

_TEXT: Headers = [
    (b"content-type", b"text/plain; charset=utf-8"), (b"x-content-type-options", b"nosniff"),
    (b"cache-control", b"no-cache"), (b"x-accel-buffering", b"no"),
]  # fmt: skip


class LogRoutes:
    """Serves them."""

    def __init__(self, dispatcher: Dispatcher, manager: ModelManager) -> None:
        self._dispatcher = dispatcher
        self._manager = manager

    def history(self, response: Response) -> None:
        """Answer with the log of all engines, as far as it is in memory."""
        log = self._manager.engine_log(None)
        response.send(200, _TEXT, _text(log, log.oldest_seq) if log is not None else b"")

    async def follow(self, which: str | None, request: Request, response: Response) -> None:
        """Answer with a log, and go on with it until the client leaves or the gateway stops.

        :param which: `proxy`, a model, or all engines
        :raises GatewayError: `model_not_found`
        """
        profile = None if which in (None, OWN, ENGINES) else await self._dispatcher.profile_for(which)
        skips = "no-history" in parse_qs(request.query, keep_blank_values=True)
        log = self._find(which, profile)
        at = 0 if log is None else log.next_seq if skips else log.oldest_seq
        response.start(200, _TEXT)
        while self._dispatcher.accepting:
            if log is not None:
                response.write(_text(log, at))
                at = log.next_seq
                await response.drain()

            await _wait(log)
            found = self._find(which, profile)
            if found is not log and found is not None:
                if log is not None:
                    response.write(_text(log, at))

                log, at = found, found.oldest_seq

        response.end()

    def _find(self, which: str | None, profile: str | None) -> LogView | None:
        return self._manager.own_log() if which == OWN else self._manager.engine_log(profile)


def _text(log: LogView, at: int) -> bytes:
    missed, lines = log.since(at)
    head = f"[{missed} lines were too many for this reader]\n" if missed else ""
    return (head + "".join(f"{line.text}\n" for line in lines)).encode("utf-8", "replace")


async def _wait(log: LogView | None) -> None:
    if log is None:
        await asyncio.sleep(LOOK_S)
        return

    try:
        async with asyncio.timeout(LOOK_S):
            await log.changed()
    except TimeoutError:
        return
