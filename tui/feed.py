"""Fetches what the dashboard shows: a frame, and the lines that the engine has logged since the last one."""

from __future__ import annotations

import asyncio
from typing import Any, NamedTuple

from orchestrator.api.top_frames import TopFrame
from tui.source import FrameSource, frame_target

POINTS = 240
REQUESTS = 100
LOG_LINES = 500
"""Most lines of log that are fetched at a time."""


class FeedUpdate(NamedTuple):
    """:ivar log: lines that are new; with `log_restarted`, those from before are another daemon's"""

    frame: TopFrame
    log: list[str]
    log_restarted: bool


class Feed:
    """Asks the daemon in threads, as its answer may take a while."""

    def __init__(self, source: FrameSource) -> None:
        self._source = source
        self._daemon: int | None = None
        self._newest: int | None = None

    async def fetch(self, *, with_log: bool) -> FeedUpdate:
        """:raises OrchError: what the daemon says, or that there is none"""
        frame: TopFrame = await asyncio.to_thread(self._source.get, frame_target(POINTS, REQUESTS))
        if not with_log:
            return FeedUpdate(frame, [], False)

        daemon = frame["status"]["daemon_pid"]
        begins = daemon != self._daemon
        if begins:  # each daemon counts its lines from 0
            self._daemon, self._newest = daemon, None

        after = "" if self._newest is None else f"&after={self._newest}"
        lines = await asyncio.to_thread(self._source.get, f"/v1/logs?lines={LOG_LINES}{after}")
        return FeedUpdate(frame, self._texts(lines), begins)

    def _texts(self, lines: list[dict[str, Any]]) -> list[str]:
        if not lines:
            return []

        before, self._newest = self._newest, int(lines[-1]["seq"])
        missed = lines[0]["seq"] - before - 1 if before is not None else 0
        gap = [f"[{missed} lines came too quickly to be shown; they are in the file]"] if missed > 0 else []
        return [*gap, *(each["text"] for each in lines)]
