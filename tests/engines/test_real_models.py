"""Real models on both real engines: what is ready computes rightly, and what computes wrongly is never ready."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator

import pytest

from orchestrator.engines.registry import Engine
from tests.engines.real_models import MODELS, fetch
from tests.healthy import alarms
from tests.support import Home, new_home

pytestmark = [pytest.mark.engine, pytest.mark.timeout(600)]

QUESTION = (
    "Tell me in one short sentence what the capital city of France is called, and which river flows through it, please."
)


@pytest.fixture
def home(real_builds: dict[str, Engine]) -> Iterator[Home]:
    with new_home() as home:
        for name, engine in real_builds.items():
            home.env[f"ORCH_ENGINE_{name.upper().replace('-', '_')}"] = engine.path

        home.serve()
        yield home


def add(home: Home, model: str, engine: str) -> None:
    found = fetch(model)
    if isinstance(found, str):
        pytest.skip(found)

    home.profile(model, f'schema = 1\nmodel = "{found}"\nengine = "{engine}"\n[context]\nsize = 2048\n')


def ask(home: Home, model: str, tokens: int = 64) -> str:
    body = {"model": model, "messages": [{"role": "user", "content": QUESTION}], "max_tokens": tokens, "temperature": 0}
    status, _, answer = home.request("POST", "/v1/chat/completions", body)
    assert status == 200, answer
    content: str = json.loads(answer)["choices"][0]["message"]["content"]
    return content


@pytest.mark.parametrize("model", list(MODELS))
def test_a_real_model_is_ready_on_upstream_and_raises_no_alarm(home: Home, upstream: Engine, model: str) -> None:
    add(home, model, "upstream")
    home.orch("up", model)
    for _ in range(20):
        text = ask(home, model)
        assert "Paris" in text or model != "smollm2", text
        assert text

    assert home.ready(model)["notice"] is None
    assert alarms(home) == []


def test_an_engine_that_computes_a_real_model_wrongly_is_never_ready(home: Home, fork: Engine) -> None:
    """The fork 0.1.5 with AVX2 gives this chat no answer at all, and another one from its cache. One that computes
    rightly is ready, and answers.
    """
    add(home, "smollm2", "ik-fork")
    done = home.orch("up", "smollm2", check=False)
    if done.returncode == 0:
        assert "Paris" in ask(home, "smollm2"), f"{fork.build} is ready and computes wrongly"
        return

    status = home.state("failed")
    assert "computes wrongly" in status["attempts"][-1]["cause"]
    assert "orch switch" in done.stderr
    assert len(status["attempts"]) == 1


def test_a_switch_to_an_engine_that_computes_wrongly_leaves_the_other_one_serving(
    home: Home, upstream: Engine, fork: Engine
) -> None:
    add(home, "smollm2", "upstream")
    home.orch("up", "smollm2")
    done = home.orch("switch", "ik-fork", check=False)
    assert "Paris" in ask(home, "smollm2")
    assert done.returncode == 0 or "computes wrongly" in done.stderr


@pytest.mark.parametrize("ubatch", [64, 512])
def test_a_first_start_tells_a_build_that_computes_wrongly_where_the_canary_does_not(
    real_builds: dict[str, Engine], fork: Engine, ubatch: int
) -> None:
    """The fork 0.1.5 with AVX2 and micro-batches of 32 to 128 answers the canary alike in both ways."""
    with new_home() as home:
        for name, engine in real_builds.items():
            home.env[f"ORCH_ENGINE_{name.upper().replace('-', '_')}"] = engine.path

        home.env["ORCH_FIRST_READING_S"] = "120"
        home.serve()
        add(home, "smollm2", "upstream")
        with open(os.path.join(home.root, "config/profiles/smollm2.toml"), "a", encoding="utf-8") as file:
            file.write(f"[batch]\nubatch = {ubatch}\n")

        home.orch("up", "smollm2")
        done = home.orch("switch", "ik-fork", check=False)
        assert "Paris" in ask(home, "smollm2")
        if done.returncode:
            assert "computes" in done.stderr and "wrongly" in done.stderr, done.stderr
            assert "wrongly" in home.orch("switch", "ik-fork", check=False).stderr
            assert home.ready("smollm2")["engine"] == "upstream"
