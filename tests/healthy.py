"""What a run has in which nothing is wrong."""

from __future__ import annotations

import json

from orchestrator.api import client
from tests.support import Home

NORMAL = {"started", "starting", "ready", "first_reading"}
"""Kinds of events that it has. Every other kind is an alarm, or of something that somebody asked for."""


def alarms(home: Home) -> list[str]:
    """Return the events that a run in which nothing is wrong has not; empty when it is one."""
    lines = client.stream(home.control_socket, "/v1/events?lines=1000&follow=0")
    return [f"{row['kind']}: {row['message']}" for row in map(json.loads, lines) if row["kind"] not in NORMAL]
