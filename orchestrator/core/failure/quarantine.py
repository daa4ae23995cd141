"""Which requests kill engines: who was in flight when one died, who is a suspect, and who is refused.

A request is known by a digest. In flight at one death, it is a suspect: it may be innocent, and is tried alone. In
flight at the next one as well, and alone there, it is refused for a while. Where it never was alone, the third death
decides. An answer clears it. All pure: time is an argument.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

KEPT = 1024
"""Digests remembered; beyond that, the ones that met a death the longest ago are forgotten."""


@dataclass(frozen=True, slots=True)
class QuarantinePolicy:
    """When a request is refused.

    :param keep_s: for how long after the last death, s; a suspect is one for as long
    :param alone: deaths at which it was in flight, the last time alone
    :param shared: deaths at which it was in flight, whoever else was
    """

    keep_s: float = 600.0
    alone: int = 2
    shared: int = 3


@dataclass(frozen=True, slots=True)
class Met:
    """The deaths that a request has met."""

    deaths: int
    last: float
    refused: bool


@dataclass(frozen=True, slots=True)
class Quarantine:
    """What is known, by digest."""

    met: Mapping[str, Met] = field(default_factory=dict)

    def suspected(self, digest: str, now: float, policy: QuarantinePolicy) -> bool:
        """Whether it has met a death that it may have caused."""
        met = self.met.get(digest)
        return met is not None and not met.refused and now - met.last < policy.keep_s

    def refused_for_s(self, digest: str, now: float, policy: QuarantinePolicy) -> float | None:
        """For how long it is still refused; None when it is not."""
        met = self.met.get(digest)
        if met is None or not met.refused or now - met.last >= policy.keep_s:
            return None

        return policy.keep_s - (now - met.last)


def after_death(
    known: Quarantine, digests: Collection[str], in_flight: int, now: float, policy: QuarantinePolicy
) -> Quarantine:
    """What is known after an engine died.

    :param digests: of the requests that were in flight on it
    :param in_flight: how many requests that were; two may have the same digest
    """
    met = {digest: each for digest, each in known.met.items() if now - each.last < policy.keep_s}
    for digest in set(digests):
        before = met.pop(digest, None)
        deaths = 1 if before is None else before.deaths + 1
        needed = policy.alone if in_flight == 1 else policy.shared
        refused = deaths >= needed or (before is not None and before.refused)
        met[digest] = Met(deaths, now, refused)

    return Quarantine(dict(list(met.items())[-KEPT:]))


def after_answer(known: Quarantine, digest: str) -> Quarantine:
    """What is known after a request got its whole answer: this one does not kill. A refusal stands."""
    met = known.met.get(digest)
    if met is None or met.refused:
        return known

    return Quarantine({each: value for each, value in known.met.items() if each != digest})
