"""A daemon that is a recording: frames from files, and what it was asked for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, cast

from orchestrator.api.top_frames import TopFrame
from orchestrator.core.errors import OrchError
from tui.text import clean

FRAMES = Path(__file__).parent / "frames"


def frame(name: str) -> TopFrame:
    return cast(TopFrame, clean(json.loads((FRAMES / f"{name}.json").read_text(encoding="utf-8"))))


class Recording:
    """Answers as a daemon does.

    :ivar answers: by the path of a target, what to answer; an error is raised
    :ivar asked: what was asked for that is no frame, oldest first
    """

    def __init__(self, shown: TopFrame | OrchError) -> None:
        self.answers: dict[str, Any] = {"/v1/frame": shown, "/v1/logs": []}
        self.asked: list[tuple[str, dict[str, object] | None]] = []
        self.frames = 0

    def get(self, target: str) -> Any:
        path = target.partition("?")[0]
        self.frames += path == "/v1/frame"
        if path != "/v1/frame":
            self.asked.append((target, None))

        return self._answer(path)

    def post(self, target: str, body: dict[str, object]) -> Any:
        self.asked.append((target, body))
        return self._answer(f"POST {target}")

    def _answer(self, path: str) -> Any:
        answer = self.answers[path]
        if isinstance(answer, Exception):
            raise answer

        return answer() if callable(answer) else answer
