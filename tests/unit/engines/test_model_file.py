from __future__ import annotations

import os
from pathlib import Path

from orchestrator.adapters.gguf.splits import read_splits
from orchestrator.core.profile.profile import DEMO_MODEL
from orchestrator.engines.model_file import model_file
from tests.unit.engines.engine_scripts import paths_below


def test_a_model_of_the_user_is_its_path_and_available_while_it_exists(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    model = model_file(paths_below(tmp_path), str(path))
    assert (model.path, model.generated, model.is_available()) == (str(path), False, False)

    path.write_bytes(b"GGUF")
    assert model.is_available()


def test_a_model_of_the_user_is_never_made(tmp_path: Path) -> None:
    path = str(tmp_path / "model.gguf")
    assert model_file(paths_below(tmp_path), path).ensure() == path
    assert not os.path.exists(path)


def test_the_demo_model_is_available_before_it_is_made_and_made_once(tmp_path: Path) -> None:
    paths = paths_below(tmp_path)
    model = model_file(paths, DEMO_MODEL)
    assert model.generated and model.is_available()
    assert not os.path.exists(model.path)

    path = model.ensure()
    assert path == model.path and path.startswith(paths.cache + os.sep)
    assert read_splits(path)[0].architecture == "qwen35moe"

    made = os.stat(path).st_mtime_ns
    assert model.ensure() == path
    assert os.stat(path).st_mtime_ns == made
