"""What `orch verify` has found of a build keeps it from what it computes wrongly, and from nothing else."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator

import pytest

from orchestrator.adapters.paths import find_paths, make_directories
from orchestrator.adapters.store.verifications import VerificationStore, build_key
from orchestrator.engines.known.model import write_known_model
from tests.support import Home, new_home

pytest.importorskip("xllamacpp", reason="the embedded engine is an optional extra")


@pytest.fixture
def home() -> Iterator[Home]:
    with new_home() as home:
        model = os.path.join(home.root, "plain.gguf")  # its weights are f16 and f32
        write_known_model(model, "llama", layers=1)
        home.profile("plain", f'schema = 1\nmodel = "{model}"\nengine = "embedded"\n[context]\nsize = 1024\n')
        yield home


def found_wrong(home: Home, *failed: str) -> None:
    engine = {each["id"]: each for each in home.orch_json("engines", "list")}["embedded"]
    paths = find_paths({"ORCH_HOME": home.root})
    make_directories(paths)
    store = VerificationStore(paths.verifications_file)
    store.record(build_key(engine["sha256"], engine["path"]), "wrong", "known truth", "some failed", failed)


def test_a_build_that_multiplies_the_models_weights_wrongly_is_not_started_unless_told_so(home: Home) -> None:
    found_wrong(home, "weights in f16, prompt of 32")
    for words in (("up", "plain"), ("up", "plain", "--dry-run")):
        refused = home.orch(*words, check=False)
        assert refused.returncode == 1, refused.stderr
        assert "computes wrongly what it needs" in refused.stderr
        assert "weights in f16, prompt of 32" in refused.stderr
        assert "--unverified" in refused.stderr

    home.orch("up", "plain", "--unverified")
    assert home.ready("plain")
    home.orch("switch", "plain@embedded", "--unverified")
    assert "computes wrongly" in home.orch("switch", "plain@embedded", check=False).stderr


def test_a_first_start_is_verified_once_and_what_it_found_is_kept(home: Home) -> None:
    home.env["ORCH_FIRST_READING_S"] = "60"
    home.orch("up", "plain")
    assert home.ready("plain")
    kept = os.path.join(home.root, "state", "verifications.json")
    with open(kept, encoding="utf-8") as file:
        state = json.load(file)

    [entry] = state["verifications"].values()
    assert (entry["verdict"], entry["how"]) == ("right", "quick"), entry
    home.orch("down")
    home.orch("up", "plain")
    assert home.ready("plain")
    assert home.orch("events").stdout.count("plain@embedded: right") == 1
    home.orch("down")

    entry["verdict"] = "wrong"
    home.write("state/verifications.json", json.dumps(state))
    refused = home.orch("up", "plain", check=False)
    assert refused.returncode == 1
    assert "quick verification" in refused.stderr
    home.orch("up", "plain", "--unverified")
    assert home.ready("plain")


def test_a_fault_in_what_the_model_does_not_have_keeps_it_from_nothing(home: Home) -> None:
    found_wrong(home, "weights in q4_1, prompt of 32", "slots side by side", "cache in q4_0", "MTP on: accepted drafts")
    home.orch("up", "plain")
    assert home.ready("plain")
