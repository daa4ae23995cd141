"""MTP and its pitfalls on both real builds: what orch says of them is true, and a healthy run raises no notice."""

from __future__ import annotations

import os
import shlex
from pathlib import Path

import pytest

from orchestrator.core.engine_log.activity import EngineActivity, add_records
from orchestrator.core.engine_log.parser import parse_log
from orchestrator.core.health.degradations import degradations_of
from orchestrator.engines.known.model import write_known_model
from orchestrator.engines.registry import Engine
from tests.engines.serving import serving, started
from tests.healthy import alarms
from tests.support import Home, new_home

pytestmark = [pytest.mark.engine, pytest.mark.timeout(240)]

PROFILE = """\
schema = 1
model = "{model}"
engine = "{engine}"
[context]
size = 2048
[batch]
ubatch = 31
[cpu]
threads = 1
[speculative]
type = "{speculation}"
"""
"""In micro-batches that the fork 0.1.5 computes rightly with AVX2."""


def add(home: Home, engine: Engine, architecture: str, speculation: str = "mtp") -> None:
    home.env["ORCH_ENGINE_" + engine.id.upper().replace("-", "_")] = engine.path
    path = os.path.join(home.root, "known.gguf")
    write_known_model(path, architecture)  # type: ignore[arg-type]
    home.profile("known", PROFILE.format(model=path, engine=engine.id, speculation=speculation))


def drafts(engine: Engine) -> bool:
    """Whether a build drafts with the generated model's head: the fork of spring 2026 cannot load that file."""
    return engine.capabilities.kind != "ik" or engine.capabilities.spec_stages


def test_a_healthy_run_raises_no_notice(engine: Engine) -> None:
    with new_home() as home:
        if drafts(engine):
            add(home, engine, "qwen35moe")
        else:
            add(home, engine, "llama", "none")

        home.orch("up", "known")
        for turn in range(10):
            home.complete(f"A supervisor {turn}", 200)

        status = home.ready("known")
        assert status["notice"] is None and alarms(home) == []
        assert not drafts(engine) or status["speed"]["draft_acceptance"] > 0.5


def test_a_build_that_cannot_load_the_head_is_refused_before_the_start(engine: Engine) -> None:
    with new_home() as home:
        add(home, engine, "qwen35moe")
        done = home.orch("up", "known", "--dry-run", check=False)
        assert ("cannot load qwen35moe with MTP layers" in done.stderr) == (not drafts(engine))


def test_a_file_without_a_head_is_refused_before_the_start_and_the_engine_s_own_words_are_read(
    engine: Engine, tmp_path: Path
) -> None:
    with new_home() as home:
        add(home, engine, "llama")
        done = home.orch("up", "known", "--dry-run", check=False)
        assert done.returncode != 0 and "the model has no MTP head" in done.stderr

        fork = engine.capabilities.kind == "ik"
        words = ("-mtp",) if fork and not drafts(engine) else ("--spec-type", "mtp" if fork else "draft-mtp")
        line = ("-m", os.path.join(home.root, "known.gguf"), "-c", "512", "-np", "1", *words)
        if words == ("-mtp",):
            with serving(engine, tmp_path, *line) as server:  # it goes on without
                said = server.text()
        else:
            with started(engine, tmp_path, *line) as server:
                assert server.process.wait(60) == 1
                said = server.text()

    found = degradations_of(add_records(EngineActivity(), parse_log(said.splitlines())), None)
    assert "mtp_off" in {each.kind for each in found}, said[-2000:]


def test_upstream_cannot_chain_mtp_with_a_draft_model(upstream: Engine, tmp_path: Path) -> None:
    mtp, plain = str(tmp_path / "mtp.gguf"), str(tmp_path / "llama.gguf")
    write_known_model(mtp)
    write_known_model(plain, "llama")
    words = ("-c", "512", "-np", "1", "--spec-type", "draft-mtp,draft-simple", "--spec-draft-model", plain)
    with started(upstream, tmp_path, "-m", mtp, *words) as server:
        assert server.process.wait(60) == 1
        assert "failed to create MTP context" in server.text()


def test_a_build_that_ignores_the_head_is_not_ready(upstream: Engine, tmp_path: Path) -> None:
    """It takes the flags and drops them; it answers, so that only the missing drafts tell."""
    words = "--spec-type|--spec-draft-n-max|--spec-draft-p-min"
    program = tmp_path / "llama-server"
    program.write_text(
        "#!/bin/bash\nkept=()\nwhile (( $# )); do\n"
        f'  case "$1" in {words}) shift ;; *) kept+=("$1") ;; esac\n  shift\ndone\n'
        f'exec {shlex.quote(upstream.path)} "${{kept[@]}}"\n'
    )
    program.chmod(0o755)
    with new_home() as home:
        add(home, upstream, "qwen35moe")
        home.env["ORCH_ENGINE_UPSTREAM"] = str(program)
        done = home.orch("up", "known", check=False)
        assert done.returncode != 0
        assert "3 answers were made without a single draft" in done.stderr, done.stderr
        assert "this build ignores the head" in done.stderr
        assert "speculative.type=none" in done.stderr
