"""One machine for all tests of a module, booted from a root that is made the first time."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.systemd import root
from tests.systemd.machine import Machine, booted


def pytest_collection_finish(session: pytest.Session) -> None:
    """Make the root before the first test: a fixture would be ended by the tests' time limit."""
    asked = session.config.option.markexpr == "systemd" and not session.config.option.collectonly
    if asked and any("machine" in getattr(item, "fixturenames", ()) for item in session.items) and not root.missing():
        root.make()


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return root.build_wheel(tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def machine(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """Booted, with orch in /opt/orch and a user `ada` who may stay when she logs out."""
    reason = root.missing()
    if reason is None and not root.made():
        reason = "the root is not made: run `python -m pytest -m systemd tests/systemd`"

    if reason is not None:
        pytest.skip(reason)

    directory = tmp_path_factory.mktemp("machine")
    with booted(root.ROOT, directory / "console.log") as machine:
        target = Path(f"/proc/{machine.leader}/root/root") / wheel.name
        shutil.copy(wheel, target)
        machine.do(f"/opt/orch/bin/pip install --quiet --no-index --no-deps /root/{wheel.name}", timeout_s=120)
        machine.do("useradd --create-home --shell /bin/bash ada")
        yield machine
