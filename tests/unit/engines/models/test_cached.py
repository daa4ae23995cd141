"""The file behind `-hf ORG/REPO:QUANT`, wherever a program has put it."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.adapters.paths import find_paths
from orchestrator.engines.models.cached import CachedModel, find_cached

HUB = ".cache/huggingface/hub/models--org--Some-GGUF/snapshots/abc"


def find(home: Path, quant: str = "", file: str = "") -> CachedModel | None:
    env = {"HOME": str(home), "XDG_DATA_HOME": str(home / "data"), "XDG_RUNTIME_DIR": str(home)}
    return find_cached(find_paths(env), env, "org/Some-GGUF", quant, file)


def put(home: Path, name: str) -> str:
    path = home / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    return str(path)


@pytest.mark.parametrize("folder", ["data/orch/models/org/Some-GGUF/", f"{HUB}/", ".cache/llama.cpp/org_Some-GGUF_"])
def test_it_is_found_in_each_place_with_its_projector(tmp_path: Path, folder: str) -> None:
    put(tmp_path, f"{folder}Some-Q8_0.gguf")
    model, projector = put(tmp_path, f"{folder}Some-Q4_K_M.gguf"), put(tmp_path, f"{folder}mmproj-F16.gguf")
    assert find(tmp_path) == find(tmp_path, "Q4_K_M") == CachedModel(model, projector)
    assert find(tmp_path, "", "Some-Q4_K_M.gguf") == CachedModel(model, projector)


def test_a_split_model_is_its_first_part_and_all_of_them(tmp_path: Path) -> None:
    first = put(tmp_path, f"{HUB}/Q8_0/Some-Q8_0-00001-of-00002.gguf")
    assert find(tmp_path, "Q8_0") is None
    put(tmp_path, f"{HUB}/Q8_0/Some-Q8_0-00002-of-00002.gguf")
    assert find(tmp_path, "Q8_0") == CachedModel(first, "")


def test_what_is_not_here_or_unclear_is_none(tmp_path: Path) -> None:
    put(tmp_path, f"{HUB}/Some-Q8_0.gguf")
    put(tmp_path, f"{HUB}/Some-Q5_0.gguf")
    assert find(tmp_path) is None
    assert find(tmp_path, "Q6_K") is None
