"""An upgrade of the engine that runs: scenario 66. Builds that fail otherwise: `integration/test_engine_builds.py`."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.engines.known.model import write_known_model
from tests.faults.lab import QUICK
from tests.integration.engine_source import write_source
from tests.support import Home, new_home, until

pytest.importorskip("xllamacpp", reason="what is built starts the embedded engine, an optional extra")
_missing = [tool for tool in ("cmake", "ninja", "cc", "c++", "git") if shutil.which(tool) is None]
pytestmark = pytest.mark.skipif(bool(_missing), reason=f"not installed here: {', '.join(_missing)}")

ILLEGAL = """\
#include <signal.h>
int main(void) { return raise(SIGILL); }
"""


@pytest.fixture
def home() -> Iterator[Home]:
    with new_home() as home:
        home.write("config/orch.toml", QUICK)
        yield home


def test_an_engine_that_runs_is_not_touched_by_a_build_that_fails_nor_by_one_that_does_not(
    home: Home, tmp_path: Path
) -> None:
    source = write_source(tmp_path / "source")
    build = ("engines", "build", "upstream", "--path", str(source), "--backend", "cpu", "--no-verify")
    first = home.orch_json(*build)["build"]
    model = os.path.join(home.root, "m.gguf")
    write_known_model(model, "llama", layers=1)
    home.profile("m", f'schema = 1\nmodel = "{model}"\nengine = "upstream"\n[cpu]\nthreads = 1\n')
    home.serve("m")
    until(lambda: home.status()["state"] == "ready", "it is ready")
    pid = home.status()["pid"]

    server = (source / "server.c").read_text()
    (source / "server.c").write_text(ILLEGAL)
    refused = home.orch(*build, check=False)
    assert refused.returncode == 1 and "SIGILL" in refused.stderr, refused.stderr
    assert current(home) == first
    serves(home, pid)

    (source / "server.c").write_text(server)
    (source / "bench.c").write_text("int main(void) { return 1; }\n")
    second = home.orch_json("engines", "update", "upstream", "--no-gate")["build"]
    assert current(home) == second != first
    serves(home, pid)
    home.orch("engines", "rollback", "upstream")
    assert current(home) == first
    serves(home, pid)


def current(home: Home) -> str:
    """The build that the next start takes."""
    builds = home.orch_json("engines", "list", "--builds")
    return str(next(each["build"] for each in builds if each["current"]))


def serves(home: Home, pid: int) -> None:
    assert home.status()["pid"] == pid
    assert home.complete("A supervisor", 4)["tokens_predicted"] == 4
