from __future__ import annotations

import pytest

from orchestrator.gateway.errors import GatewayError, render
from orchestrator.gateway.requests.key_limits import KeyLimits


def refusal(limits: KeyLimits, key: str, now: float) -> GatewayError:
    with pytest.raises(GatewayError) as caught:
        limits.enter(key, now)

    return caught.value


def test_without_limits_everything_is_let_through() -> None:
    limits = KeyLimits(0, 0)
    for _ in range(1000):
        limits.enter("a", 0.0)


def test_a_key_has_so_many_requests_at_a_time_and_others_have_their_own() -> None:
    limits = KeyLimits(2, 0)
    limits.enter("a", 0.0)
    limits.enter("a", 0.0)
    assert "2 requests with this key wait or run already" in refusal(limits, "a", 0.0).message
    limits.enter("b", 0.0)
    limits.leave("a")
    limits.enter("a", 0.0)
    refusal(limits, "a", 9999.0)


def test_a_refused_request_is_not_counted() -> None:
    limits = KeyLimits(1, 0)
    limits.enter("a", 0.0)
    for _ in range(5):
        refusal(limits, "a", 0.0)

    limits.leave("a")
    limits.enter("a", 0.0)


def test_a_rate_lets_a_minutes_worth_through_at_once_and_then_no_more_than_the_rate() -> None:
    limits = KeyLimits(0, 6)
    for _ in range(6):
        limits.enter("a", 100.0)

    assert refusal(limits, "a", 100.0).retry_after_s == 10
    assert refusal(limits, "a", 104.0).retry_after_s == 6
    limits.enter("a", 110.0)
    assert refusal(limits, "a", 110.0).retry_after_s == 10
    for _ in range(6):  # no more is saved than a minute's worth
        limits.enter("a", 10_000.0)

    refusal(limits, "a", 10_000.0)


def test_a_request_that_waits_as_long_as_it_was_told_is_let_through() -> None:
    limits = KeyLimits(0, 7)
    now, begun = 0.0, 0
    while now < 3600:
        try:
            limits.enter("a", now)
            begun += 1
        except GatewayError as error:
            assert error.retry_after_s is not None
            now += error.retry_after_s
            limits.enter("a", now)
            begun += 1

    assert begun <= 7 * 60 + 7 + 1


@pytest.mark.parametrize(("family", "kind"), [("openai", "rate_limit_error"), ("anthropic", "rate_limit_error")])
def test_the_refusal_is_a_429_with_a_time(family: str, kind: str) -> None:
    status, headers, body = render(family, refusal(limits_used_up(), "a", 0.0))  # type: ignore[arg-type]
    assert status == 429
    assert (b"retry-after", b"60") in headers
    assert kind.encode() in body


def limits_used_up() -> KeyLimits:
    limits = KeyLimits(0, 1)
    limits.enter("a", 0.0)
    return limits
