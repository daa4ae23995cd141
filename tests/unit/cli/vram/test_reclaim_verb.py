"""`orch vram reclaim` on a machine that is made up: what is shown, written and removed."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from orchestrator.adapters.hardware import desktops
from orchestrator.cli.main import main
from orchestrator.core import exit_codes
from orchestrator.core.vram.desktop_facts import DesktopFacts, LoginSession
from orchestrator.core.vram.session_files import is_ours
from tests.unit.core.vram.desktops import DESKTOP, NVIDIA, SWAY


@pytest.fixture
def sessions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory of sessions, of a machine with one card."""
    directory = tmp_path / "wayland-sessions"
    directory.mkdir()
    usual = directory / "sway.desktop"
    usual.write_text(SWAY)

    def found(report: object) -> DesktopFacts:
        texts = {str(path): path.read_text() for path in directory.iterdir() if path != usual}
        written = {path: text for path, text in texts.items() if is_ours(path, text)}
        foreign = tuple(path for path in texts if path not in written)
        session = LoginSession(str(usual), usual.read_text())
        return replace(DESKTOP, cards=(NVIDIA,), sessions=(session,), written=written, foreign=foreign)

    monkeypatch.setattr(desktops, "desktop_facts", found)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    return directory


def test_a_session_is_added_beside_the_usual_one_and_removed_again(sessions: Path, capsys: Any) -> None:
    assert main(["vram", "reclaim", "--install"]) == exit_codes.OK
    added = sessions / "orch-sway-software.desktop"
    assert capsys.readouterr().out == "installed: software\n" and "WLR_RENDERER=pixman sway" in added.read_text()
    assert main(["vram", "reclaim", "--install"]) == exit_codes.OK
    assert "so already" in capsys.readouterr().out
    assert main(["vram", "reclaim"]) == exit_codes.OK
    assert f"installed: {added}" in capsys.readouterr().out
    (sessions / "orch-mine.desktop").write_text(SWAY)
    assert main(["vram", "reclaim", "--uninstall"]) == exit_codes.OK
    assert sorted(path.name for path in sessions.iterdir()) == ["orch-mine.desktop", "sway.desktop"]
    assert (sessions / "sway.desktop").read_text() == SWAY


@pytest.mark.parametrize("form", [[], ["--json"]])
def test_a_dry_run_shows_the_files_and_writes_none(sessions: Path, capsys: Any, form: list[str]) -> None:
    assert main(["vram", "reclaim", "--install", "software", "--dry-run", *form]) == exit_codes.OK
    shown = capsys.readouterr().out
    assert "orch-sway-software.desktop" in shown and "GALLIUM_DRIVER=llvmpipe" in shown
    assert [path.name for path in sessions.iterdir()] == ["sway.desktop"]


def test_without_root_the_command_for_it_is_shown(sessions: Path, capsys: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert main(["vram", "reclaim", "--install"]) == exit_codes.FAILED
    said = capsys.readouterr().err
    assert "sudo" in said and "vram reclaim --install software" in said and "orch-sway-software.desktop" in said
    assert [path.name for path in sessions.iterdir()] == ["sway.desktop"]


@pytest.mark.parametrize("words", [["vram", "reclaim", "--plan", "--json"], ["vram", "--json", "reclaim"]])
def test_a_plan_for_scripts_has_the_ways_and_their_files(sessions: Path, capsys: Any, words: list[str]) -> None:
    assert main(words) == exit_codes.OK
    data = json.loads(capsys.readouterr().out)
    assert [(way["name"], len(way["steps"])) for way in data["ways"]] == [("software", 1), ("console", 0)]
    assert data["installed"] == [] and "462 MiB" in data["situation"]


def test_a_dry_run_of_nothing_is_refused(capsys: Any) -> None:
    assert main(["vram", "reclaim", "--dry-run"]) == exit_codes.USAGE
    assert "--install" in capsys.readouterr().err
