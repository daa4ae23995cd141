from __future__ import annotations

import pytest

from orchestrator.gateway.requests.ids import MAX_ID, request_id


@pytest.mark.parametrize(
    "asked",
    [
        b"runaway",
        b"7",
        b"3fa85f64-5717-4562-b3fc-2c963f66afa6",
        b"req_011CSHoEeqs5C35K2UUqR7Fy",
        b"a:b.c~d",
        b"x" * MAX_ID,
    ],
)
def test_a_client_may_name_its_request(asked: bytes) -> None:
    assert request_id(asked) == asked.decode()


@pytest.mark.parametrize(
    "asked",
    [
        None,
        b"",
        b"x" * (MAX_ID + 1),
        b"two words",
        b"../../etc",
        b"a/b",
        b"a%2Fb",
        b"\x1b[31mred",
        b'"quoted"',
        "größer".encode(),
        b"-rf",
        b".",
        b"a\tb",
    ],
)
def test_what_does_not_belong_into_paths_and_logs_is_replaced(asked: bytes | None) -> None:
    made = request_id(asked)
    assert made.startswith("req-")
    assert request_id(made.encode()) == made
    assert request_id(asked) != made
