from __future__ import annotations

import pytest

from orchestrator.adapters.http1.vetting import RejectedRequest, vet

HOST = [(b"host", b"localhost")]


def test_a_plain_request_passes_with_its_length() -> None:
    assert vet("POST", b"/a?b", "1.1", [*HOST, (b"content-length", b" 12 ")], upgrade=False) == ("/a?b", 12)


def test_an_absolute_target_loses_its_host() -> None:
    assert vet("GET", b"http://LocalHost/a?b", "1.1", HOST, upgrade=False)[0] == "/a?b"
    assert vet("GET", b"http://localhost", "1.1", HOST, upgrade=False)[0] == "/"


def test_an_http_1_0_request_needs_no_host() -> None:
    assert vet("GET", b"/", "1.0", [], upgrade=False) == ("/", 0)


@pytest.mark.parametrize(
    ("method", "url", "version", "headers", "status"),
    [
        ("GET", b"/", "1.1", [], 400),
        ("GET", b"/", "1.1", HOST * 2, 400),
        ("GET", b"/", "1.0", HOST * 2, 400),
        ("GET", b"/", "2.0", HOST, 505),
        ("TRACE", b"/", "1.1", HOST, 405),
        ("CONNECT", b"a:1", "1.1", HOST, 405),
        ("GET", b"*", "1.1", HOST, 400),
        ("GET", b"ftp://localhost/", "1.1", HOST, 400),
        ("GET", b"http://localhost:80/", "1.1", HOST, 400),
        ("GET", b"http:///", "1.1", HOST, 400),
        ("GET", b"http://localhost/", "1.0", [], 400),
        ("POST", b"/", "1.1", [*HOST, (b"content-length", b"1_0")], 400),
        ("POST", b"/", "1.1", [*HOST, (b"content-length", "٣".encode())], 400),
        ("POST", b"/", "1.1", [*HOST, (b"content_length", b"1")], 400),
        ("POST", b"/", "1.1", [*HOST, (b"transfer-encoding", b"identity")], 400),
        ("POST", b"/", "1.0", [*HOST, (b"transfer-encoding", b"chunked")], 400),
    ],
)
def test_what_could_be_read_in_two_ways_is_refused(
    method: str, url: bytes, version: str, headers: list[tuple[bytes, bytes]], status: int
) -> None:
    with pytest.raises(RejectedRequest) as caught:
        vet(method, url, version, headers, upgrade=False)

    assert caught.value.status == status


def test_an_underscore_in_a_harmless_header_is_none_of_our_business() -> None:
    assert vet("GET", b"/", "1.1", [*HOST, (b"x_y", b"1")], upgrade=False) == ("/", 0)
