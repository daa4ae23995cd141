"""`orch doctor --measure` as scripts get it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from orchestrator.cli import main as cli
from orchestrator.core.setup.machine_speed import ReadSpeed
from orchestrator.doctor import measure as measuring


def test_figures_have_the_version_of_their_form(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("ORCH_HOME", str(tmp_path))
    monkeypatch.setattr(measuring, "measure_memory", lambda *_, **__: ReadSpeed(31.0, 30.0, 2))
    assert cli.main(["doctor", "--measure", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["version"], document["host_gb_s"]) == (1, 31.0)
