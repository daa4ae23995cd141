"""Pictures of the dashboard, compared with the ones in `__snapshots__` (update them: `pytest --snapshot-update`)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from textual.pilot import Pilot

from tests.tui.driving import until
from tests.tui.recorded import Recording, frame
from tui.app import Dashboard


async def _settled(pilot: Pilot[None]) -> None:
    app: Any = pilot.app
    await until(pilot, lambda: app.frames_seen and app.requests.lines, "the first frame is drawn")
    await pilot.pause()


@pytest.mark.parametrize("size", [(80, 24), (140, 40)], ids=["80x24", "140x40"])
@pytest.mark.parametrize("name", ["serving", "failed"])
def test_the_picture_is_as_it_was(snap_compare: Callable[..., bool], name: str, size: tuple[int, int]) -> None:
    app = Dashboard(Recording(frame(name)), interval_s=3600)
    assert snap_compare(app, terminal_size=size, run_before=_settled)
