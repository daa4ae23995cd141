"""Every shipped profile starts every real build without a flag error, and answers; the model is a generated one."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.adapters.config.profile_files import ProfileStore
from orchestrator.adapters.paths import find_paths
from orchestrator.core.dialect.render import render
from orchestrator.engines.known.model import write_known_model
from orchestrator.engines.registry import Engine
from tests.engines.serving import started
from tests.support import until

pytestmark = [pytest.mark.engine, pytest.mark.timeout(240)]

KEY = "a-key"
NAMES = [
    profile.name
    for profile in ProfileStore(find_paths({"ORCH_HOME": "/nonexistent"})).load_all()[0]
    if profile.name != "demo"
]


@pytest.mark.parametrize("name", NAMES)
def test_a_shipped_profile_starts_the_real_program(engine: Engine, tmp_path: Path, name: str) -> None:
    profile = ProfileStore(find_paths({"ORCH_HOME": str(tmp_path)})).load(name).for_engine(engine.id)
    # The fork of spring 2026 cannot load a generated MTP model; with a plain one it says that MTP is off, and goes on.
    model = tmp_path / "model.gguf"
    write_known_model(str(model), "qwen35moe" if engine.capabilities.kind == "upstream" else "llama")
    (tmp_path / "key").write_text(KEY)
    argv = render(
        profile,
        engine.capabilities,
        build=engine.build,
        model=str(model),
        host="127.0.0.1",
        port="1",
        api_key_file=str(tmp_path / "key"),
    ).argv
    at = argv.index("--host")
    words = (*argv[:at], *argv[at + 4 :])  # `started` gives it a port of its own
    with started(engine, tmp_path, *words) as server:
        until(server.is_ready, f"{name} is ready on {engine.id}", 120)
        assert server.complete("A supervisor", 4, key=KEY)["content"]
