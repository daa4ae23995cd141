"""Real builds of both engines: below ORCH_ENGINE_HOME, by default `.cache/engines` in the repository.

`pytest -m engine tests/engines` builds what is absent, which takes from ten minutes to half an hour for each, once.
Any other call uses what is there and skips, with the reason, what is not.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.adapters.paths import Paths, find_paths
from orchestrator.engines.build import installs
from orchestrator.engines.registry import Engine, EngineRegistry
from tests.engines.slow_build import slow_build
from tests.support import ORCH

ENGINES = ("upstream", "ik-fork")
HOME = Path(os.environ.get("ORCH_ENGINE_HOME") or Path(__file__).parents[2] / ".cache" / "engines").absolute()

_why_not_built = dict.fromkeys(ENGINES, f"not built below {HOME}: run `python -m pytest -m engine tests/engines`")


def engine_paths() -> Paths:
    return find_paths({"ORCH_HOME": str(HOME)})


def pytest_collection_finish(session: pytest.Session) -> None:
    """Build before the first test: a fixture would be ended by the tests' time limit."""
    asked = session.config.option.markexpr == "engine" and not session.config.option.collectonly
    needed = [item for item in session.items if "real_builds" in getattr(item, "fixturenames", ())]
    if not asked or not needed:
        return

    for engine in ENGINES:
        if installs.current(engine, engine_paths()) is None:
            words = ["engines", "build", engine, "--pypi", "--no-verify"]
            done = subprocess.run([*ORCH, *words], env={**os.environ, "ORCH_HOME": str(HOME)}, check=False)
            if done.returncode != 0:
                _why_not_built[engine] = f"`orch {' '.join(words)}` failed with exit code {done.returncode}"


@pytest.fixture(scope="session")
def real_builds() -> Iterator[dict[str, Engine]]:
    """The engines that are built, by name."""
    registry = EngineRegistry(engine_paths(), {"PATH": "/usr/bin:/bin"})
    yield {each: registry.resolve(each) for each in ENGINES if installs.current(each, engine_paths()) is not None}


@pytest.fixture(params=ENGINES)
def engine(request: pytest.FixtureRequest, real_builds: dict[str, Engine]) -> Engine:
    """Each engine in turn."""
    return _built(str(request.param), real_builds)


@pytest.fixture
def upstream(real_builds: dict[str, Engine]) -> Engine:
    return _built("upstream", real_builds)


@pytest.fixture(scope="session")
def slower_upstream(real_builds: dict[str, Engine]) -> Path:
    """The llama-server of a build of upstream that was made a fifth slower."""
    return _slow_build("slower")


@pytest.fixture(scope="session")
def much_slower_upstream(real_builds: dict[str, Engine]) -> Path:
    """The llama-server of a build of upstream that was made several times slower."""
    return _slow_build("much-slower")


def _slow_build(how: str) -> Path:
    installed = installs.current("upstream", engine_paths())
    if installed is None:
        pytest.skip(_why_not_built["upstream"])

    found = slow_build(how, installed, engine_paths(), HOME / "slow")
    if isinstance(found, str):
        pytest.skip(found)

    return found


@pytest.fixture
def fork(real_builds: dict[str, Engine]) -> Engine:
    return _built("ik-fork", real_builds)


def _built(engine: str, builds: dict[str, Engine]) -> Engine:
    if engine not in builds:
        pytest.skip(_why_not_built[engine])

    return builds[engine]
