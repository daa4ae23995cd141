"""Some modules here look at the children of their own process."""

from __future__ import annotations

import pytest

from tests.daemon_template import end_template


@pytest.fixture(scope="module", autouse=True)
def _no_template() -> None:
    end_template()
