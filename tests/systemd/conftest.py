"""One machine for the tests of a module, booted from a copy of a root that is made the first time."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

import pytest

from tests.systemd import root
from tests.systemd.machine import Machine, booted, copied


class Boot(Protocol):
    """:param unified: control groups of version 2 alone"""

    def __call__(self, *, unified: bool = False) -> AbstractContextManager[Machine]: ...


def pytest_collection_finish(session: pytest.Session) -> None:
    """Make the root before the first test: a fixture would be ended by the tests' time limit."""
    if asked_for(session.config) and not session.config.option.collectonly and not root.missing():
        root.make()


def asked_for(config: pytest.Config) -> bool:
    return bool(config.option.markexpr == "systemd")


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return root.build_wheel(tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def boot(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Boot]:
    """Boots a machine with orch in /opt/orch and a user `ada`; what it wrote is there at the next boot."""
    reason = root.missing() if asked_for(request.config) else "boots a machine: run `make service-tests`"
    if reason is not None:
        pytest.skip(reason)

    wheel: Path = request.getfixturevalue("wheel")
    directory = tmp_path_factory.mktemp("machine")
    with copied(root.ROOT, directory) as copy:
        shutil.copy(wheel, copy / "root")
        with booted(copy, directory / "console.log", unified=root.UNIFIED_ONLY) as machine:
            machine.do(f"/opt/orch/bin/pip install --quiet --no-index --no-deps /root/{wheel.name}", timeout_s=120)
            machine.do("useradd --create-home --shell /bin/bash ada")

        yield lambda *, unified=False: booted(copy, directory / "console.log", unified=unified or root.UNIFIED_ONLY)
