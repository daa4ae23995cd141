"""What one key may ask for: so many requests at a time, and so many a minute. Pure; the time is given.

The rate is a bucket of tokens: it holds one minute's worth, is filled evenly, and each request takes one. A burst after
a rest is let through, and over any longer time no key is served faster than its rate.
"""

from __future__ import annotations

import math
from collections.abc import Hashable

from orchestrator.gateway.errors import GatewayError

_BUSY_RETRY_S = 2
"""When one of its other requests may have ended; nobody knows."""


class KeyUse:
    """The requests of one key.

    :ivar tokens: requests that it may begin at once
    """

    __slots__ = ("filled_s", "in_flight", "tokens")

    def __init__(self, tokens: float, now: float) -> None:
        self.in_flight = 0
        self.tokens = tokens
        self.filled_s = now


class KeyLimits:
    """The limits, and who has used how much of them. As many entries as there are keys.

    :param in_flight: requests of one key that may wait or run at a time; 0: no limit
    :param per_minute: requests that one key may begin in a minute; 0: no limit
    """

    def __init__(self, in_flight: int, per_minute: int) -> None:
        self._in_flight = in_flight
        self._per_minute = per_minute
        self._uses: dict[Hashable, KeyUse] = {}

    def enter(self, key: Hashable, now: float) -> None:
        """Count a request that begins; `leave` has to follow.

        :param key: the client's key
        :param now: monotonic time
        :raises GatewayError: `too_many_requests`, with the time after which another try makes sense; not counted then
        """
        use = self._uses.setdefault(key, KeyUse(self._per_minute, now))
        if self._in_flight and use.in_flight >= self._in_flight:
            raise GatewayError(
                "too_many_requests",
                f"{use.in_flight} requests with this key wait or run already, {self._in_flight} are allowed "
                "(gateway.max_in_flight_per_key)",
                retry_after_s=_BUSY_RETRY_S,
            )

        if self._per_minute:
            per_s = self._per_minute / 60
            use.tokens = min(use.tokens + (now - use.filled_s) * per_s, self._per_minute)
            use.filled_s = now
            if use.tokens < 1:
                raise GatewayError(
                    "too_many_requests",
                    f"{self._per_minute} requests a minute are allowed with this key (gateway.max_per_minute_per_key)",
                    retry_after_s=math.ceil((1 - use.tokens) / per_s),
                )

            use.tokens -= 1

        use.in_flight += 1

    def leave(self, key: Hashable) -> None:
        """Count a request that has ended."""
        self._uses[key].in_flight -= 1
