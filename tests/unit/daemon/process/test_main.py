"""What the daemon gives its gateway."""

from __future__ import annotations

import pytest

from orchestrator.adapters.http1 import HttpLimits
from orchestrator.core.config import Config
from orchestrator.daemon.process.main import RESERVED_DESCRIPTORS, gateway_options


@pytest.mark.parametrize("clients", [1, 48, 200])
def test_each_client_has_a_descriptor_and_one_for_its_engine(clients: int) -> None:
    for descriptors in (RESERVED_DESCRIPTORS + 2 * clients, RESERVED_DESCRIPTORS + 2 * clients + 1):
        assert gateway_options(Config(), descriptors, ("127.0.0.1",)).limits.connections == clients


def test_there_is_room_for_one_client_and_for_no_more_than_the_limit() -> None:
    assert gateway_options(Config(), 64, ("127.0.0.1",)).limits.connections == 1
    assert gateway_options(Config(), 1 << 30, ("127.0.0.1",)).limits.connections == HttpLimits().connections
