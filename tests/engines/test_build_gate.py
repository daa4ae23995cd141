"""The gate of a new build on real engines: the wrong ones are refused for what is wrong with them, and the slow one."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.adapters.paths import Paths, find_paths
from orchestrator.adapters.store.gates import GateRecord
from orchestrator.bench.gate import BuildGate
from orchestrator.cli.bench_shell import bench_shell
from orchestrator.core.bench.workloads import TOKENS
from orchestrator.engines.build import installs
from orchestrator.engines.registry import Engine
from tests.engines.real_models import fetch
from tests.installed_builds import install_script
from tests.support import ROOT, Home, new_home

pytestmark = [pytest.mark.engine, pytest.mark.timeout(640)]

SHORT = 48
"""Tokens of an answer: with the whole length a gate takes longer than a test may on a busy machine."""

MUTANTS = {
    "swap": "answers: ",
    "drop": "answers: ",
    "seed": "seeds differ",
    "accept": "accepted drafts",
}
"""What the reason names of each: the check that is about what is wrong with it."""


@pytest.fixture
def home(monkeypatch: pytest.MonkeyPatch) -> Iterator[Home]:
    with new_home() as home:
        for name in ("ORCH_HOME", "ORCH_GATEWAY_PORT", "ORCH_FIRST_READING_S"):
            monkeypatch.setenv(name, home.env[name])

        yield home


@pytest.fixture
def paths(home: Home) -> Paths:
    return find_paths({"ORCH_HOME": home.root})


def judge(
    paths: Paths, new: installs.Install, current: installs.Install, *, verify: bool, tokens: int = TOKENS
) -> GateRecord:
    gate = BuildGate(paths, 0.03, verify, lambda store: bench_shell(paths, store), lambda text: None, tokens)
    return gate.run(new, current)


def test_every_mutant_is_refused_for_what_is_wrong_with_it(home: Home, paths: Paths, upstream: Engine) -> None:
    engine = shlex.quote(upstream.path)
    right = install_script(home, paths, "right", f'exec {engine} "$@"', current=True)
    mutant = f"PYTHONPATH={ROOT} MUTANT_OF={engine} exec {sys.executable} -m tests.fakes.mutant_engine"
    for how, found in MUTANTS.items():
        record = judge(paths, install_script(home, paths, how, f'{mutant} {how} "$@"'), right, verify=True)
        assert record.state == "refused", (how, record.reason)
        assert record.reason.startswith("it computes wrongly: "), (how, record.reason)
        assert found in record.reason, (how, record.reason)
        assert record.reason.endswith(", which the current build passes"), (how, record.reason)

    unchanged = judge(paths, install_script(home, paths, "none", f'{mutant} none "$@"'), right, verify=True)
    assert unchanged.state == "accepted", "the relay alone is no fault: " + unchanged.reason


PROFILE = """\
schema = 1
model = "{model}"
engine = "upstream"

[context]
size = 2048
parallel = 1

[cpu]
threads = 1
threads_batch = 1
"""


def test_a_build_that_was_made_slower_is_not_made_current(
    home: Home, paths: Paths, upstream: Engine, slower_upstream: Path
) -> None:
    model = fetch("smollm2")
    if isinstance(model, str):
        pytest.skip(model)

    home.profile("smol", PROFILE.format(model=model))
    present = install_script(home, paths, "present", f'exec {shlex.quote(upstream.path)} "$@"', current=True)
    slower = install_script(home, paths, "slower", f'exec {shlex.quote(str(slower_upstream))} "$@"')
    home.serve("smol")
    home.ready("smol")
    record = judge(paths, slower, present, verify=False, tokens=SHORT)
    assert record.state == "refused", record.reason
    assert "; too slow: -" in record.reason and "with `smol` against present, -3 % is tolerated" in record.reason
    assert [each.build for each in installs.installed("upstream", paths) if each.current] == ["present"]
    status = home.ready("smol")
    assert status["engine"] == "upstream", "what served before serves again"
