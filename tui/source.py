"""The source of a dashboard's figures: the control API of a daemon. Blocking: called in threads.

Whatever text comes in is made harmless here, once, so that nothing behind this has to think of it.
"""

from __future__ import annotations

import json
from typing import Any, Protocol

from orchestrator.api import client
from orchestrator.core.terminal import neutralise
from tui.text import clean

FRAME_LIMIT_S = 4.0
"""The daemon takes 2 s at most: figures that are older than this must not look like those of now."""

ANSWER_LIMIT_S = 10.0
WORK_LIMIT_S = 120.0
"""For requests that make the daemon look at files and programs before it answers."""


class FrameSource(Protocol):
    """A daemon, or a recording of one. Both raise OrchError as `api.client` does."""

    def get(self, target: str) -> Any: ...

    def post(self, target: str, body: dict[str, object]) -> Any: ...


class DaemonSource:
    """The daemon at a control socket."""

    def __init__(self, socket_path: str) -> None:
        self._path = socket_path

    def get(self, target: str) -> Any:
        """Return the answer's JSON; JSON Lines as a list."""
        limit_s = FRAME_LIMIT_S if target.startswith("/v1/frame") else ANSWER_LIMIT_S
        answer = client.request(self._path, target, timeout_s=limit_s)
        if target.startswith("/v1/logs"):
            return [clean(json.loads(line)) for line in answer.splitlines() if line]

        return clean(json.loads(answer))

    def post(self, target: str, body: dict[str, object]) -> Any:
        answer = client.request(self._path, target, json.dumps(body).encode(), timeout_s=WORK_LIMIT_S)
        return clean(json.loads(answer))


def frame_target(points: int, requests: int) -> str:
    return f"/v1/frame?points={points}&requests={requests}"


def error_texts(error: Exception) -> tuple[str, list[str], str]:
    """Return an error's message, details and hint, safe to print on a terminal."""
    message = neutralise(str(getattr(error, "message", error)))
    details = [neutralise(str(each)) for each in getattr(error, "details", ())]
    return message, details, neutralise(getattr(error, "hint", None) or "")
