from __future__ import annotations

import pytest

from orchestrator.adapters.config.key_file import ApiKey
from orchestrator.core.addresses import is_loopback
from orchestrator.core.errors import UsageError
from orchestrator.gateway.config import GatewayOptions


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "127.9.9.9", "127.0.0.1.", "::1", "[::1]", "localhost", "LOCALHOST", "localhost."]
)
def test_an_address_of_this_machine_needs_no_key(host: str) -> None:
    assert is_loopback(host)
    assert GatewayOptions(host=host).host == host


@pytest.mark.parametrize(
    "host", ["0", "0.0.0.0", "::", "[::]", "", "192.168.1.5", "gpu.lan", "127.0.0.1.nip.io", "::ffff:10.0.0.1", "127.1"]
)
def test_any_other_address_is_refused_without_a_key(host: str) -> None:
    assert not is_loopback(host)
    with pytest.raises(UsageError, match="without an API key"):
        GatewayOptions(host=host)

    assert GatewayOptions(host=host, api_keys=(ApiKey("k"),)).host == host


def test_an_empty_key_is_no_key() -> None:
    with pytest.raises(UsageError, match="empty"):
        GatewayOptions(host="0.0.0.0", api_keys=(ApiKey(""),))
