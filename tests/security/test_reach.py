"""What listens, and where: one address, this machine's own, unless a key was set."""

from __future__ import annotations

import socket
from urllib.parse import urlsplit

import psutil
import pytest

from orchestrator.core.exit_codes import USAGE
from tests.security.conftest import Guarded
from tests.support import new_home


def test_the_daemon_listens_on_the_gateways_address_and_on_no_other(guarded: Guarded) -> None:
    assert guarded.home.daemon is not None
    url = urlsplit(guarded.home.url)
    daemon = psutil.Process(guarded.home.daemon.pid)
    listening = {tuple(each.laddr) for each in daemon.net_connections(kind="inet") if each.status == "LISTEN"}
    assert listening == {("127.0.0.1", url.port)}
    assert not [each for each in daemon.net_connections(kind="inet") if each.type == socket.SOCK_DGRAM]


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "0"])
def test_a_daemon_that_others_could_reach_without_a_key_does_not_start(host: str) -> None:
    with new_home() as home:
        home.env["ORCH_GATEWAY_HOST"] = host
        done = home.orch("serve", check=False)
        assert done.returncode == 2
        assert "api_key_file" in done.stderr


def test_a_daemon_whose_key_file_is_empty_does_not_start() -> None:
    with new_home() as home:
        home.write("config/orch.toml", '[gateway]\nhost = "0.0.0.0"\napi_key_file = "keys"\n')
        home.write("config/keys", "# none yet\n")
        done = home.orch("serve", check=False)
        assert done.returncode == USAGE
        assert "has no key" in done.stderr
