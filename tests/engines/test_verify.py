"""Verification of both real builds: upstream is right, and the fork that multiplies q4_1 wrongly is found."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from orchestrator.engines.registry import Engine
from tests.engines.real_models import fetch
from tests.support import Home, new_home

pytestmark = [pytest.mark.engine, pytest.mark.timeout(900)]

KNOWN_WRONG = "0.1.5"
"""The fork of PyPI's source archive; on a processor with AVX2 its q4_1 is wrong from 32 tokens on."""


@pytest.fixture
def home(real_builds: dict[str, Engine]) -> Iterator[Home]:
    with new_home() as home:
        for name, engine in real_builds.items():
            home.env[f"ORCH_ENGINE_{name.upper().replace('-', '_')}"] = engine.path

        yield home


def verify(home: Home, *words: str) -> Any:
    done = home.orch("verify", *words, "--json", check=False, timeout_s=600)
    assert done.returncode in (0, 1), done.stderr
    return json.loads(done.stdout)


def failed(answer: Any) -> list[str]:
    return [check["name"] for check in answer["checks"] if check["ok"] is False]


def is_the_wrong_one(fork: Engine) -> bool:
    return KNOWN_WRONG in fork.path + str(Path(fork.path).resolve()) and " avx2 " in Path("/proc/cpuinfo").read_text()


def test_upstream_is_right_on_the_known_truth(home: Home, upstream: Engine) -> None:
    answer = verify(home, "upstream")
    assert answer["verdict"] == "right", failed(answer)
    assert not [check["name"] for check in answer["checks"] if check["ok"] is None]


def test_the_fork_is_judged_and_its_fault_is_found_where_it_has_it(home: Home, fork: Engine) -> None:
    answer = verify(home, "ik-fork")
    wrong = failed(answer)
    assert {check["name"] for check in answer["checks"] if check["ok"]} >= {"weights in f32", "weights in q8_0"}
    if is_the_wrong_one(fork):
        assert {"weights in q4_1, prompt of 32", "weights in q4_1, prompt of 33"} <= set(wrong)
        shown = next(check for check in answer["checks"] if check["name"] == "weights in q4_1, prompt of 32")
        assert shown["ask"].startswith("curl ")
        assert "coded-q4_1.gguf" in shown["start"]


def test_both_engines_read_a_real_model_and_the_one_that_is_wrong_is_named(
    home: Home, upstream: Engine, fork: Engine
) -> None:
    model = fetch("smollm2")
    if isinstance(model, str):
        pytest.skip(model)

    answer = verify(home, f"{model}@upstream", "--against", "ik-fork")
    by_name = {check["name"]: check for check in answer["checks"]}
    assert by_name["read in pieces as read at once"]["ok"], answer
    pair = next(check for name, check in by_name.items() if name.startswith("reads as"))
    if is_the_wrong_one(fork):
        assert pair["observed"] == "different"
        assert any("ik-fork contradicts the known truth" in remark for remark in answer["remarks"])
    else:
        assert pair["observed"] in ("same", "close"), answer
