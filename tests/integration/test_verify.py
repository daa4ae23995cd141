"""Verification of the real embedded engine: right as it is, and each of its mutants is found."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.adapters.paths import Paths, find_paths
from orchestrator.core.verify.checks import Check, verdict_of
from orchestrator.engines.known.coded import coded_model, write_coded_model
from orchestrator.engines.known.model import write_known_model
from orchestrator.engines.probe import probe
from orchestrator.engines.verify.drawing import check_drawing
from orchestrator.engines.verify.known_truth import check_context
from orchestrator.engines.verify.trial import Subject
from tests.support import Home, new_home

pytest.importorskip("xllamacpp", reason="the embedded engine is an optional extra")
pytestmark = pytest.mark.timeout(300)

ROOT = Path(__file__).parents[2]


@pytest.fixture
def home() -> Iterator[Home]:
    with new_home() as home:
        yield home


def mutant(directory: Path, how: str) -> str:
    """Write a program that is the embedded engine, wrong in one way."""
    program = directory / f"mutant-{how}"
    program.write_text(f'#!/bin/sh\nPYTHONPATH={ROOT} exec {sys.executable} -m tests.fakes.mutant_engine {how} "$@"\n')
    program.chmod(0o755)
    return str(program)


def paths_in(directory: Path) -> Paths:
    return find_paths({"ORCH_HOME": str(directory / "home")})


def verify(directory: Path, how: str, *, drawing: bool) -> list[Check]:
    """Run the part of the known truth that is about drawing, or the part about the context."""
    paths = paths_in(directory)
    program = mutant(directory, how)
    subject = Subject(program, probe(program, paths).capabilities, paths)
    if drawing:
        return asyncio.run(check_drawing(subject, str(directory), lambda _: None))

    model = coded_model("f16")
    path = str(directory / "coded.gguf")
    write_coded_model(path, model)
    return asyncio.run(check_context(subject, str(directory), path, model, lambda _: None))


def failed(checks: list[Check]) -> set[str]:
    return {check.name.partition(",")[0] for check in checks if check.ok is False}


def test_the_embedded_engine_is_right_and_the_verdict_is_kept(home: Home) -> None:
    answer = home.orch_json("verify", "embedded")
    assert answer["verdict"] == "right", [check for check in answer["checks"] if check["ok"] is False]
    names = {check["name"] for check in answer["checks"]}
    assert {"weights in q4_1", "weights in iq4_xs", "slots side by side", "answers: cached"} <= names
    assert "MTP on: accepted drafts, temperature 1" in names
    assert all({"name", "ok", "observed", "expected", "bound"} <= set(check) for check in answer["checks"])

    listed = {each["id"]: each for each in home.orch_json("engines", "list")}["embedded"]
    assert (listed["verified"]["verdict"], listed["verified"]["how"]) == ("right", "known truth")


@pytest.mark.parametrize(
    ("how", "found"),
    [
        ("swap", {"answers: long"}),
        ("drop", {"answers: long"}),
        ("seed", {"MTP off: seeds differ", "MTP on: seeds differ"}),
        ("accept", {"MTP on: accepted drafts"}),
    ],
)
def test_a_mutant_is_wrong_and_what_shows_it_is_told(tmp_path: Path, how: str, found: set[str]) -> None:
    checks = verify(tmp_path, how, drawing=how in ("seed", "accept"))
    assert verdict_of(checks) == "wrong"
    assert failed(checks) & found, failed(checks)
    shown = [check for check in checks if check.ok is False and check.shown_by is not None]
    assert shown, "a failure without what repeats it"


def test_a_model_of_the_users_is_read_alike_in_every_way_and_against_another_engine(home: Home) -> None:
    model = os.path.join(home.root, "plain.gguf")
    write_known_model(model, "llama")
    home.profile("plain", f'schema = 1\nmodel = "{model}"\nengine = "embedded"\n')
    answer = home.orch_json("verify", "plain", "--against", "embedded")
    assert answer["verdict"] == "right"
    assert [check["observed"] for check in answer["checks"]] == ["same", "same", "same"]


def test_an_engine_that_dies_is_wrong_and_says_so(home: Home, tmp_path: Path) -> None:
    server = Path(sys.executable).parent / "orch-embedded-server"
    dying = tmp_path / "dying"
    fails = 'case "$*" in *--port*) echo "GGML_ASSERT(x) failed" >&2; exit 1;; esac'
    dying.write_text(f'#!/bin/sh\n{fails}\nexec {server} "$@"\n')
    dying.chmod(0o755)
    done = home.orch("verify", str(dying), "--json", check=False)
    assert done.returncode == 1
    answer = json.loads(done.stdout)
    assert answer["verdict"] == "wrong"
    assert "GGML_ASSERT(x) failed" in answer["checks"][0]["detail"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["nothing-of-this-name"], "nothing-of-this-name"),
        (["/no/such/file.gguf"], "there is no file /no/such/file.gguf"),
        (["embedded", "--against", "upstream"], "PROFILE@embedded --against upstream"),
    ],
)
def test_what_is_not_there_is_named(home: Home, words: list[str], said: str) -> None:
    done = home.orch("verify", *words, check=False)
    assert done.returncode == 2
    assert said in done.stderr


def test_a_second_copy_is_not_loaded_beside_one_that_serves(home: Home) -> None:
    model = os.path.join(home.root, "plain.gguf")
    write_known_model(model, "llama")
    home.profile("plain", f'schema = 1\nmodel = "{model}"\nengine = "embedded"\n')
    home.orch("up", "plain")
    done = home.orch("verify", "plain", check=False)
    assert done.returncode == 1
    assert "plain is running" in done.stderr
    assert "orch down" in done.stderr


def test_a_users_model_with_mtp_is_read_without_it_as_well(home: Home) -> None:
    model = os.path.join(home.root, "mtp.gguf")
    write_known_model(model)
    text = f'schema = 1\nmodel = "{model}"\nengine = "embedded"\n[context]\nsize = 4096\n[cpu]\nthreads = 1\n'
    home.profile("drafts", text + '[speculative]\ntype = "mtp"\n')
    answer = home.orch_json("verify", "drafts@embedded")
    assert answer["verdict"] == "right", answer
    [check] = [each for each in answer["checks"] if each["name"] == "MTP on as off"]
    assert check["observed"] == check["expected"] > 50
