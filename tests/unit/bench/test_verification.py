"""A bench knows what `orch verify` has found."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from orchestrator.adapters.config.profile_files import ProfileStore
from orchestrator.adapters.store.verifications import VerificationStore, build_key, model_key
from orchestrator.bench.targets import BenchTarget
from orchestrator.bench.verification import verification_of
from orchestrator.engines.registry import EngineRegistry
from tests.unit.engines.engine_scripts import UPSTREAM, engine, paths_below


@pytest.mark.parametrize(
    ("of_build", "of_model", "expected"),
    [
        (None, None, None),
        ("right", None, "right"),
        ("right", "right", "right"),
        ("wrong", None, "wrong"),
        ("right", "wrong", "wrong"),
        (None, "right", None),
        ("unverified", None, None),
    ],
)
def test_the_build_is_to_be_right_and_the_model_on_it_not_wrong(
    tmp_path: Path, of_build: str | None, of_model: str | None, expected: str | None
) -> None:
    paths = paths_below(tmp_path)
    os.makedirs(paths.profiles)
    Path(paths.profiles, "mine.toml").write_text('schema = 1\nmodel = "/m.gguf"\nengine = "nightly"\n')
    found = EngineRegistry(paths).add("nightly", str(engine(tmp_path / "llama-server", UPSTREAM)))
    build = build_key(found.sha256, found.path)
    profile = ProfileStore(paths).load("mine").for_engine("nightly")
    store = VerificationStore(paths.verifications_file)
    for key, verdict in ((build, of_build), (model_key(build, "/m.gguf", profile), of_model)):
        if verdict is not None:
            store.record(key, verdict, "known truth", "")

    assert verification_of(paths, BenchTarget("mine", "mine", "nightly")) == expected
