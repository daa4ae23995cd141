from __future__ import annotations

import pytest

from orchestrator.gateway.requests.origins import AllowedOrigins, is_preflight

PAGE = b"https://chat.example"


def origin(value: bytes) -> list[tuple[bytes, bytes]]:
    return [(b"origin", value)]


@pytest.mark.parametrize(
    ("allowed", "asked", "permission"),
    [
        (("https://chat.example",), b"https://chat.example", b"https://chat.example"),
        (("https://chat.example", "app://obsidian.md"), b"app://obsidian.md", b"app://obsidian.md"),
        (("null",), b"null", b"null"),
        (("*",), b"https://anything.example", b"*"),
        (("*",), b"null", b"*"),
        (("https://chat.example",), b"http://chat.example", None),
        (("https://chat.example",), b"https://chat.example:8443", None),
        (("https://chat.example",), b"https://chat.example.evil.example", None),
        (("https://chat.example",), b"https://evil.example/https://chat.example", None),
        (("https://chat.example",), b"null", None),
        (("https://chat.example",), b"", None),
    ],
)
def test_an_origin_has_permission_when_it_is_named_and_never_for_credentials(
    allowed: tuple[str, ...], asked: bytes, permission: bytes | None
) -> None:
    origins = AllowedOrigins(allowed)
    told = dict(origins.headers(origin(asked)))
    assert origins.allows(asked) is (permission is not None)
    assert told.get(b"access-control-allow-origin") == permission
    assert told[b"vary"] == b"Origin"
    assert b"access-control-allow-credentials" not in told


def test_what_names_no_origin_gets_no_permission_and_is_not_kept_for_one_that_does() -> None:
    assert AllowedOrigins(("*",)).headers([]) == [(b"vary", b"Origin")]
    assert AllowedOrigins(()).headers(origin(PAGE)) == []


def test_a_question_is_one_that_says_which_page_wants_to_send_what() -> None:
    method = (b"access-control-request-method", b"POST")
    assert is_preflight("OPTIONS", [*origin(PAGE), method])
    assert not is_preflight("OPTIONS", origin(PAGE))
    assert not is_preflight("OPTIONS", [method])
    assert not is_preflight("POST", [*origin(PAGE), method])


def test_the_fields_that_clients_libraries_send_are_granted_and_no_others() -> None:
    asked = (
        b"authorization, Content-Type,x-api-key,anthropic-dangerous-direct-browser-access,anthropic-version,"
        b"x-stainless-os , openai-organization, cookie, x-forwarded-for, evil-header, anthropic-\xff, "
    )
    told = dict(AllowedOrigins(("*",)).preflight([(b"access-control-request-headers", asked)]))
    assert told[b"access-control-allow-headers"] == (
        b"authorization, content-type, x-api-key, anthropic-dangerous-direct-browser-access, anthropic-version, "
        b"x-stainless-os, openai-organization"
    )
    assert told[b"access-control-allow-methods"] == b"GET, HEAD, POST"
    assert int(told[b"access-control-max-age"]) > 0
    assert b"access-control-allow-private-network" not in told


def test_a_page_of_the_internet_is_told_that_it_may_reach_this_network() -> None:
    told = AllowedOrigins(("*",)).preflight([(b"access-control-request-private-network", b"true")])
    assert (b"access-control-allow-private-network", b"true") in told
    assert not [name for name, _ in told if name == b"access-control-allow-headers"]
