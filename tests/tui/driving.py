"""Drives the dashboard: waits end as soon as what they wait for is there."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from textual.pilot import Pilot

from tests.support import PATIENCE_S
from tui.app import Dashboard
from tui.source import FrameSource
from tui.widgets.lines import Fixed, Scrolled


async def until(pilot: Pilot[None], condition: Callable[[], Any], what: str) -> Any:
    """Let the app work until a condition holds, and return what it gave."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        value = condition()
        if value:
            return value

        assert time.monotonic() < deadline, f"not within {PATIENCE_S:g} s: {what}\n{picture(pilot.app)}"
        await pilot.pause(0.02)


@asynccontextmanager
async def dashboard(source: FrameSource, size: tuple[int, int] = (80, 24), **options: Any) -> AsyncIterator[Any]:
    """A dashboard that has been started: the app and its pilot."""
    app = Dashboard(source, **{"interval_s": 0.1, **options})
    async with app.run_test(size=size, notifications=True) as pilot:
        await until(pilot, lambda: app.frames_seen or app.lost, "the first frame")
        await pilot.pause()
        yield app, pilot


def picture(app: Any) -> str:
    """The texts of all panels and of what is open over them: for conditions, and for messages."""
    parts = []
    for screen in app.screen_stack:
        parts += [f"{each.id}: {each.text}" for each in screen.query(Fixed)]
        parts += [f"{each.id}: {each.text}" for each in screen.query(Scrolled)]

    parts += [f"said: {each.message}" for each in app._notifications]
    return "\n".join(parts)


def head(app: Dashboard) -> str:
    return app.head.text
