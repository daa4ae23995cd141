"""The lab, with the invariants checked after every test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.faults.invariants import Watch
from tests.faults.lab import Lab, make_workshop, new_lab


@pytest.fixture(scope="session")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> str:
    return make_workshop(str(tmp_path_factory.mktemp("workshop")))


@pytest.fixture
def lab(workshop: str) -> Iterator[Lab]:
    with new_lab(workshop) as lab:
        watch = Watch(lab)
        yield lab
        watch.check()
