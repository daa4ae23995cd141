from __future__ import annotations

import os
import time
from collections.abc import Iterator

import pytest


@pytest.fixture(scope="session", autouse=True)
def _one_time_zone() -> Iterator[None]:
    """Times of day are shown as they are here; pictures of them are compared."""
    before = os.environ.get("TZ")
    os.environ["TZ"] = "UTC"
    time.tzset()
    yield
    if before is None:
        del os.environ["TZ"]
    else:
        os.environ["TZ"] = before

    time.tzset()
