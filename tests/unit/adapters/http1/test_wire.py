from __future__ import annotations

import pytest

from orchestrator.adapters.http1 import connection_options, encode_head, first


def test_a_head_is_written_line_by_line() -> None:
    assert encode_head(b"HTTP/1.1 200 OK", [(b"a", b"1"), (b"b", b"")]) == b"HTTP/1.1 200 OK\r\na: 1\r\nb: \r\n\r\n"


@pytest.mark.parametrize("bad", [b"a\r\nSet-Cookie: x", b"a\nb", b"a\rb", b"a\0b"])
def test_a_header_cannot_end_early(bad: bytes) -> None:
    with pytest.raises(ValueError, match="CR, LF or NUL"):
        encode_head(b"HTTP/1.1 200 OK", [(b"x", bad)])

    with pytest.raises(ValueError, match="CR, LF or NUL"):
        encode_head(b"GET /" + bad + b" HTTP/1.1", [])


def test_the_options_of_all_connection_headers_count() -> None:
    headers = [(b"connection", b"Keep-Alive, X-One"), (b"host", b"a"), (b"connection", b"x-two")]
    assert connection_options(headers) == {b"keep-alive", b"x-one", b"x-two"}


def test_the_first_of_equal_headers_is_found() -> None:
    assert first([(b"a", b"1"), (b"a", b"2")], b"a") == b"1"
    assert first([], b"a") is None
