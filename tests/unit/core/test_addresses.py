from __future__ import annotations

import pytest

from orchestrator.core.addresses import bare_host, is_address, is_loopback, listen_host


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "127.9.9.9", "127.0.0.1.", "::1", "[::1]", "localhost", "LOCALHOST", "localhost.", "0:0:0:0:0:0:0:1"],
)
def test_this_machine_is_known_by_its_addresses_and_one_name(host: str) -> None:
    assert is_loopback(host)


@pytest.mark.parametrize(
    "host",
    ["", ".", "0", "127.1", "0.0.0.0", "::", "[::]", "10.0.0.1", "127.0.0.1..", "127.0.0.1.nip.io", "a.localhost",
     "localhost.lan", "::ffff:10.0.0.1"],
)  # fmt: skip
def test_whatever_could_be_another_machine_is_not_this_one(host: str) -> None:
    assert not is_loopback(host)


def test_hosts_are_compared_without_case_brackets_and_the_dot_of_the_root() -> None:
    assert bare_host("GPU.Lan.") == "gpu.lan"
    assert bare_host("[FE80::1]") == "fe80::1"


def test_short_forms_of_an_address_are_names() -> None:
    assert [host for host in ("0", "127.1", "1.2.3.4", "::1", "gpu.lan", "") if is_address(host)] == ["1.2.3.4", "::1"]


def test_an_address_is_listened_on_without_what_a_resolver_would_have_to_read() -> None:
    assert listen_host("127.0.0.1.") == "127.0.0.1"
    assert listen_host("[::1]") == "::1"


def test_a_name_is_listened_on_as_it_was_written() -> None:
    assert [listen_host(host) for host in ("LOCALHOST", "localhost.", "GPU.lan.")] == [
        "LOCALHOST", "localhost.", "GPU.lan.",
    ]  # fmt: skip
