"""A pinned engine, each real build in turn: every thread of it runs where orch says."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from orchestrator.adapters.paths import find_paths
from orchestrator.adapters.process.child import LaunchSpec, spawn
from orchestrator.adapters.process.ports import free_port
from orchestrator.core.profile.profile import Profile
from orchestrator.core.starts.cpu_pinning import LogicalCpu
from orchestrator.engines import render
from orchestrator.engines.known.model import write_known_model
from orchestrator.engines.registry import Engine
from tests.integration.processes import Lines

pytestmark = [pytest.mark.engine, pytest.mark.timeout(60)]


def allowed_cpus(pid: int) -> set[str]:
    found = [(each / "status").read_text().splitlines() for each in Path(f"/proc/{pid}/task").iterdir()]
    return {line.partition(":")[2].strip() for lines in found for line in lines if "Cpus_allowed_list" in line}


def test_every_thread_of_a_pinned_engine_may_run_on_its_cpus_alone(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usable = sorted(os.sched_getaffinity(0))
    if len(usable) < 2:
        pytest.skip("one CPU leaves nothing to choose")

    # The machine as if all its CPUs were one core's: on most test machines there is no SMT to leave out.
    monkeypatch.setattr(render, "read_topology", lambda: tuple(LogicalCpu(each, "one") for each in usable))
    model, key, port = str(tmp_path / "m.gguf"), tmp_path / "key", free_port()
    write_known_model(model, "llama")
    key.write_text("key")
    profile = Profile("p", "/p.toml", model, engine.id, settings={"cpu.pin": "one_per_core", "context.size": 512})
    paths = find_paths({"ORCH_HOME": str(tmp_path)})
    launch = render.render_profile(paths, profile, engine, port=port, api_key_file=str(key))
    assert launch.cpus == (usable[0],)

    async def allowed() -> set[str]:
        log = Lines()
        child = await spawn(LaunchSpec(launch.argv, dict(launch.env), str(tmp_path), "i", cpus=launch.cpus), log)
        try:
            while not any("listening" in line for line in log.lines):
                assert child.exit is None, log.lines[-5:]
                await asyncio.sleep(0.05)

            return allowed_cpus(child.pid)
        finally:
            await child.stop(2.0)

    assert asyncio.run(allowed()) == {str(usable[0])}
