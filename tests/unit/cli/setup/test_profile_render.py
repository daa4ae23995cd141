"""`orch profile render` of a profile that keeps its engine on some CPUs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from orchestrator.cli import main as cli
from orchestrator.core.starts.cpu_pinning import LogicalCpu
from orchestrator.engines import render
from tests.unit.engines.engine_scripts import UPSTREAM, engine


def test_the_command_line_of_a_pinned_engine_binds_it_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ORCH_HOME", str(tmp_path))
    monkeypatch.setattr(
        render, "read_topology", lambda: tuple(LogicalCpu(number, str(number % 2)) for number in range(4))
    )
    binary = str(engine(tmp_path / "up/llama-server", UPSTREAM))
    for pin, cpus, begin in (("one_per_core", [0, 1], "taskset -c 0-1 env -i "), ("none", [], "env -i ")):
        profile = tmp_path / "p.toml"
        profile.write_text(f'schema = 1\nmodel = "/m.gguf"\nengine = "upstream"\n[cpu]\npin = "{pin}"\n')
        words = ["profile", "render", str(profile), "--engine", binary]
        assert cli.main(words) == 0
        assert capsys.readouterr().out.startswith(begin)
        assert cli.main([*words, "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["cpus"] == cpus
