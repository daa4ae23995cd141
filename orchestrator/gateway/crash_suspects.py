"""Requests that met the death of their engine: who may have caused it, who is refused, and who is tried alone.

A suspect (`core/failure/quarantine.py`) is sent to an engine that has nothing else to do, and for a moment nothing else
is sent there: if it kills this one as well, nobody else is hurt, and there is no doubt. The moment is short: a suspect
that the engine survives is sent with others again, and one that cannot be alone in time goes with the rest. Where the
engine closes a suspect's connection, the moment lasts until it is known whether the engine lives: it closes its
connections one by one as it dies, and whoever was let in between would count as having been there.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from time import monotonic

from orchestrator.adapters.http1 import Request
from orchestrator.core.failure.quarantine import Quarantine, QuarantinePolicy, add_answer, add_death
from orchestrator.gateway.contract import Endpoint
from orchestrator.gateway.errors import GatewayError

_TIMER_SLACK_S = 0.01
"""Timers of the loop count whole milliseconds: one that is early would find that nothing has changed."""

_MAX_UNCONFIRMED = 8
"""Instances whose end was not confirmed: they were stopped on purpose, and nothing will be said of them."""


_CHARGED_WITHIN_S = 60.0
"""An engine that lives for so long after it failed a request dies of something else."""

ID_LENGTH = 12
"""Digits of a digest by which people name a request."""


@dataclass(frozen=True, slots=True)
class QuarantinedRequest:
    """One request that met deaths, as people see it.

    :param deaths: of engines that it was in flight at
    :param refused: else it is a suspect, and tried alone
    :param left_s: how long it is remembered
    """

    id: str
    route: str
    profile: str
    engine: str
    deaths: int
    refused: bool
    left_s: float


@dataclass(slots=True)
class _Lost:
    """What one instance failed. It is kept once it is charged: the others that were there may come later.

    :ivar digests: of the requests that are not charged yet
    :ivar in_flight: the most requests that are known to have been there at once
    :ivar last: when it failed the newest, monotonic
    :ivar closed_until: nothing is sent there before (monotonic), since a suspect's connection was closed
    """

    digests: list[str] = field(default_factory=list)
    in_flight: int = 0
    last: float = 0.0
    closed_until: float = 0.0


@dataclass(slots=True)
class _Trial:
    """A suspect that waits to be alone at an instance.

    :ivar since: monotonic
    """

    instance: str
    since: float


class RequestFingerprint:
    """The identity of a request, computed when it is asked for: only after a death is there a reason to.

    The key that the client shows is a part of it: what one client sends cannot get another's request refused. What runs
    is another: a changed profile, another build or another rung may well answer it.
    """

    __slots__ = ("_body", "_digest", "_request", "_runs", "path")

    def __init__(self, request: Request, path: str, body: bytes) -> None:
        self._request = request
        self.path = path
        self._body = body
        self._digest = ""
        self._runs: str | None = None

    def digest(self, runs: str) -> str:
        """Return the digest of the request to what runs (`Endpoint.runs`)."""
        if self._runs != runs:
            self._runs = runs
            request, made = self._request, hashlib.sha256()
            for part in (
                request.header(b"authorization") or b"",
                request.header(b"x-api-key") or b"",
                request.method.encode("latin-1"),
                self.path.encode(),
                request.query.encode("latin-1", "replace"),
                runs.encode(),
                self._body,
            ):
                made.update(b"%d:" % len(part))
                made.update(part)

            self._digest = made.hexdigest()

        return self._digest


class CrashSuspects:
    """Keeps the requests that were in flight when an engine died, and says which of them may be sent again.

    :param later: has a function called after so many seconds
    :param wake: called when somebody who was told to wait may look again
    """

    def __init__(
        self, policy: QuarantinePolicy, trial_s: float, later: Callable[[float, Callable[[], None]], object],
        wake: Callable[[], None],
    ) -> None:  # fmt: skip
        self._policy = policy
        self._trial_s = trial_s
        self._later = later
        self._wake = wake
        self._known = Quarantine()
        self._lost: dict[str, _Lost] = {}
        self._sent: dict[str, tuple[str, str, str]] = {}
        self._waiting: dict[RequestFingerprint, _Trial] = {}
        self._tried: dict[str, tuple[RequestFingerprint, float]] = {}

    # What happened.

    def lost(self, endpoint: Endpoint, fingerprint: RequestFingerprint, in_flight: int = 0) -> None:
        """The engine closed this request's connection, or answered it with an error; whether it ends will be seen.

        :param in_flight: the requests that were with the engine, this one included; one that lives answers one by one.
            0 where it closed the connection: `attribute` or `spared` will follow
        """
        digest = fingerprint.digest(endpoint.runs)
        lost = self._lost.setdefault(endpoint.instance, _Lost())
        lost.digests.append(digest)
        lost.in_flight = max(lost.in_flight, in_flight)
        lost.last = monotonic()
        if not in_flight and self._known.suspected(digest, lost.last, self._policy):
            lost.closed_until = lost.last + self._trial_s
            self._later(self._trial_s + _TIMER_SLACK_S, self._wake)

        self._sent[digest] = (fingerprint.path, endpoint.profile, endpoint.engine)
        if len(self._lost) > _MAX_UNCONFIRMED:
            del self._lost[next(iter(self._lost))]

    def spared(self, instance: str) -> None:
        """The instance lives: it closed a connection, and that was all."""
        lost = self._lost.pop(instance, None)
        if lost is not None and lost.closed_until:
            self._wake()

    def attribute(self, fallen: Collection[str], now: float) -> None:
        """Charge the deaths that the daemon has confirmed to those who were there."""
        for lost in [each for instance, each in self._lost.items() if each.digests and instance in fallen]:
            if now - lost.last < _CHARGED_WITHIN_S:
                lost.in_flight = max(lost.in_flight, len(lost.digests))
                self._known = add_death(self._known, lost.digests, lost.in_flight, now, self._policy)

            lost.digests = []
            unconfirmed = {digest for each in self._lost.values() for digest in each.digests}
            kept = self._known.requests.keys() | unconfirmed
            self._sent = {digest: sent for digest, sent in self._sent.items() if digest in kept}

    def answered(self, fingerprint: RequestFingerprint, runs: str = "") -> None:
        """An engine has answered this request and lives: it is a suspect no more."""
        if self._known.requests:
            self._known = add_answer(self._known, fingerprint.digest(runs))

    def clear(self, request_id: str | None) -> int:
        """Forget the deaths of a request, or of all of them; return how many were forgotten."""
        before = self._known.requests
        self._known = Quarantine(
            {digest: each for digest, each in before.items() if request_id not in (None, digest[:ID_LENGTH])}
        )
        self._wake()
        return len(before) - len(self._known.requests)

    def entries(self, now: float) -> list[QuarantinedRequest]:
        """Return the requests that met deaths, those that are refused first."""
        found = [
            QuarantinedRequest(
                digest[:ID_LENGTH], *self._sent.get(digest, ("", "", "")), each.deaths, each.refused, left
            )
            for digest, each in self._known.requests.items()
            if (left := self._policy.keep_s - (now - each.last)) > 0
        ]
        return sorted(found, key=lambda each: (not each.refused, -each.left_s))

    # What follows from it.

    def check(self, fingerprint: RequestFingerprint, now: float, runs: str = "", cause: str = "") -> None:
        """
        :raises GatewayError: `request_quarantined`
        """
        if not self._known.requests:
            return

        left_s = self._known.refused_for_s(fingerprint.digest(runs), now, self._policy)
        if left_s is not None:
            text = (
                f"engines died while they answered this request, so it is refused for {left_s:.0f} s, or until the "
                "profile, the build or the model file changes (`orch quarantine`)"
            )
            raise GatewayError(
                "request_quarantined", f"{text}: {cause}" if cause else text, headers=[(b"x-should-retry", b"false")]
            )

    def may_enter(
        self, fingerprint: RequestFingerprint, in_flight: int, now: float, runs: str = "", instance: str = ""
    ) -> bool:
        """Return whether a request can be sent now to an instance with so many requests in flight, or has to wait."""
        if not self._known.requests:
            return True

        lost = self._lost.get(instance)
        if lost is not None and now < lost.closed_until:
            return False

        tried = self._tried.get(instance)
        if tried is not None and now < tried[1]:
            return False

        if self._known.suspected(fingerprint.digest(runs), now, self._policy):
            trial = self._waiting.get(fingerprint)
            if trial is None:
                trial = self._waiting[fingerprint] = _Trial(instance, now)
                self._later(self._trial_s + _TIMER_SLACK_S, self._wake)

            trial.instance = instance
            return in_flight == 0 or now - trial.since >= self._trial_s

        # Nobody is let in before a suspect that waits for the engine to be idle: it never would be.
        trials = self._waiting.values()
        return all(each.instance != instance or now - each.since >= self._trial_s for each in trials)

    def entered(self, fingerprint: RequestFingerprint, in_flight: int, now: float, instance: str = "") -> None:
        """A request is being sent; a suspect that is alone there stays so for a moment."""
        waited = self._waiting.pop(fingerprint, None)
        if waited is not None and in_flight == 0:
            self._tried[instance] = fingerprint, now + self._trial_s
            self._later(self._trial_s + _TIMER_SLACK_S, self._wake)

    def left(self, fingerprint: RequestFingerprint) -> None:
        """A request is not with an engine any more, or has given up waiting for one."""
        self._waiting.pop(fingerprint, None)
        if self._tried:
            self._tried = {name: each for name, each in self._tried.items() if each[0] is not fingerprint}

        if self._known.requests:
            self._wake()
