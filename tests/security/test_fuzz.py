"""Short runs of what `python benchmarks/fuzz.py` does for long."""

from __future__ import annotations

from pathlib import Path

import pytest
import uvloop

from tests.security import fuzz_http, fuzz_profiles
from tests.security.reference_http import Seen, requests


def test_what_reaches_the_engine_is_what_a_strict_reader_sees() -> None:
    report = uvloop.run(fuzz_http.fuzz(1500, seed=11))
    assert report.problems == []
    assert report.cases == 1500
    assert report.forwarded > 300
    assert report.statuses["400"] > 300


def test_the_reader_that_the_gateway_is_held_against_is_strict() -> None:
    one = b"POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n{}"
    assert [seen.body for seen in requests(one + one)] == [b"{}", b"{}"]
    assert not next(requests(one[:-1])).complete
    for wrong in (
        one.replace(b"2", b"+2"), one.replace(b"Host:", b"Host :"), one.replace(b"\r\nHost", b"\nHost"),
        one.replace(b"Content-Length: 2", b"Content-Length: 2\r\nTransfer-Encoding: chunked"),
        one.replace(b"Content-Length: 2", b"Transfer-Encoding: chunked"), one.replace(b"Host: a", b"Host: a\r\n b"),
    ):  # fmt: skip
        assert list(requests(wrong)) == []


@pytest.mark.parametrize("body", [b"{}", fuzz_http.INSIDE])
def test_a_request_too_many_at_the_engine_would_be_noticed(body: bytes) -> None:
    sent = b"POST /completion HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
    right = Seen(b"POST", b"/completion", (), body)
    assert fuzz_http.disagreements(sent, [right], b'{"engine":1}') == []
    assert fuzz_http.disagreements(sent, [right, Seen(b"POST", b"/completion", (), b"{}")], b"")
    assert fuzz_http.disagreements(sent, [Seen(b"POST", b"/completion", (), b"")], b"")
    assert fuzz_http.disagreements(sent, [right], b'{"engine":1}{"engine":2}')


def test_any_text_is_a_profile_or_is_refused_by_name(tmp_path: Path) -> None:
    refused, problems = fuzz_profiles.fuzz(str(tmp_path), 300, seed=3)
    assert problems == []
    assert 100 < refused < 300
