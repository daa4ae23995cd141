"""Requests that kill engines: those in flight when one died become suspects, and suspects may be refused.

A request is known by a digest, which has what runs in it: to another build or profile it is another request. In flight
at one death, it is a suspect: it may be innocent, and is tried alone. In flight at the next one as well, and alone
there, it is refused for a while. An engine that is ended because it answers only errors counts as dead. Where it never
was alone, the third death decides. An answer clears it. All pure: time is an argument.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

KEPT = 1024
"""Digests remembered; beyond that, the ones that met a death the longest ago are forgotten."""


@dataclass(frozen=True, slots=True)
class QuarantinePolicy:
    """The deaths after which a request is refused.

    :param keep_s: for how long after the last death, s; a suspect is one for as long
    :param alone: deaths at which it was in flight, the last time alone
    :param shared: deaths at which it was in flight, whoever else was
    """

    keep_s: float = 600.0
    alone: int = 2
    shared: int = 3


@dataclass(frozen=True, slots=True)
class RequestDeaths:
    """The deaths of engines that a request was in flight at; `last` is when, monotonic."""

    deaths: int
    last: float
    refused: bool


@dataclass(frozen=True, slots=True)
class Quarantine:
    """The requests that met deaths, by digest; the newest last."""

    requests: Mapping[str, RequestDeaths] = field(default_factory=dict)

    def suspected(self, digest: str, now: float, policy: QuarantinePolicy) -> bool:
        """True where the request was in flight at a death that it may have caused."""
        found = self.requests.get(digest)
        return found is not None and not found.refused and now - found.last < policy.keep_s

    def refused_for_s(self, digest: str, now: float, policy: QuarantinePolicy) -> float | None:
        """The time for which the request is still refused; None when it is not."""
        found = self.requests.get(digest)
        if found is None or not found.refused or now - found.last >= policy.keep_s:
            return None

        return policy.keep_s - (now - found.last)


def add_death(
    quarantine: Quarantine, digests: Collection[str], in_flight: int, now: float, policy: QuarantinePolicy
) -> Quarantine:
    """Return the quarantine after the death of an engine.

    :param digests: of the requests that were in flight on it
    :param in_flight: how many requests that were; two may have the same digest
    """
    requests = {digest: each for digest, each in quarantine.requests.items() if now - each.last < policy.keep_s}
    for digest in set(digests):
        before = requests.pop(digest, None)
        deaths = 1 if before is None else before.deaths + 1
        needed = policy.alone if in_flight == 1 else policy.shared
        refused = deaths >= needed or (before is not None and before.refused)
        requests[digest] = RequestDeaths(deaths, now, refused)

    return Quarantine(dict(list(requests.items())[-KEPT:]))


def add_answer(quarantine: Quarantine, digest: str) -> Quarantine:
    """Return the quarantine after a request got its whole answer: this one does not kill. A refusal stands."""
    found = quarantine.requests.get(digest)
    if found is None or found.refused:
        return quarantine

    return Quarantine({each: value for each, value in quarantine.requests.items() if each != digest})
