"""What serves is told with what is noticed about it; a healthy one is no warning."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import pytest

from orchestrator.adapters.paths import find_paths
from orchestrator.adapters.systemd.steps import Tools
from orchestrator.api import client
from orchestrator.core.errors import NotRunningError, TimedOutError
from orchestrator.doctor.examine import DoctorContext
from orchestrator.doctor.running import check_running

CACHED = {"part_mib": 900, "resident_mib": 900, "experts_mib": 0, "experts_resident_mib": 0, "where": ""}
READY = {"state": "ready", "profile": "some", "notice": None, "page_cache": CACHED}


def told(
    monkeypatch: pytest.MonkeyPatch, home: Path, answer: Mapping[str, object] | Exception
) -> list[tuple[str, str]]:
    def request(*_: object, **__: object) -> bytes:
        if isinstance(answer, Exception):
            raise answer

        return json.dumps(answer).encode()

    monkeypatch.setattr(client, "request", request)
    context = DoctorContext(find_paths({"ORCH_HOME": str(home)}), {}, Tools())
    return [(each.level, each.text) for each in check_running(context)]


def test_what_is_noticed_is_a_warning_and_a_healthy_engine_is_none(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    [(level, text)] = told(monkeypatch, tmp_path, READY)
    assert (level, text) == ("ok", "some serves, and nothing is noticed; cached: 900 of 900 MiB that the host reads")
    [copied] = told(monkeypatch, tmp_path, READY | {"page_cache": None})
    assert copied == ("ok", "some serves, and nothing is noticed")
    noticed = READY | {"notice": "weights are read from the disk while it answers"}
    assert told(monkeypatch, tmp_path, noticed) == [("warning", f"some: {noticed['notice']}")]


def test_nothing_is_said_of_what_does_not_serve(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert told(monkeypatch, tmp_path, NotRunningError("no daemon is running")) == []
    assert told(monkeypatch, tmp_path, READY | {"state": "starting"}) == []
    assert told(monkeypatch, tmp_path, TimedOutError("no answer")) == [("warning", "no answer")]
