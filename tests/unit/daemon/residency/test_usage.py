"""What counts as use of a loaded profile: requests that an engine answered, and those under way."""

from __future__ import annotations

from time import monotonic
from types import SimpleNamespace
from typing import cast

import pytest

from orchestrator.core.fleet.fleet_states import Fleet
from orchestrator.core.fleet.lifecycle_states import Ready, StartRequested
from orchestrator.core.fleet.resident_states import Resident
from orchestrator.daemon.fleet.owner import Owner
from orchestrator.daemon.residency.usage import RECENT_S, UsageBook
from orchestrator.gateway.contract import Finished, Traffic
from tests.unit.core.fleet.lifecycle_machine import A, Machine, start


class Watched:
    """A book beside a fleet whose one resident has been ready for so many seconds."""

    def __init__(self, ready_s: float, *, in_flight: int = 0, active: int = 0, queued: int = 0) -> None:
        machine = Machine()
        self.now = monotonic()
        machine.now = self.now - ready_s
        machine.take(StartRequested(A, "s.1"), *start("s.1"))
        assert isinstance(machine.state, Ready)
        fleet = Fleet({"s": Resident({"s": machine.state}, "s", A)}, "s")
        traffic = SimpleNamespace(in_flight=lambda instance: in_flight, active=active, queued=queued)
        self.book = UsageBook(cast(Owner, SimpleNamespace(fleet=fleet)), cast(Traffic, traffic))

    def ended(self, instance: str | None, profile: str | None = "a") -> None:
        self.book.request_ended(cast(Finished, SimpleNamespace(instance=instance, profile=profile)))


def test_one_that_had_no_request_is_idle_since_it_became_ready() -> None:
    watched = Watched(61.0)
    use = watched.book.use(watched.now)["a"]
    assert use.idle_s == pytest.approx(61.0)
    assert use.recent == 0.0
    assert watched.book.idle_s("b", watched.now) is None
    assert watched.book.order() == []


def test_the_end_of_a_request_begins_the_time_anew_and_one_that_reached_no_engine_does_not() -> None:
    watched = Watched(600.0)
    watched.ended(None)
    assert watched.book.use(watched.now)["a"].idle_s == pytest.approx(600.0)
    watched.ended("s.1")
    assert watched.book.use(monotonic())["a"].idle_s < 1.0
    assert watched.book.order() == ["a"]


def test_a_request_in_flight_is_use_however_long_it_takes() -> None:
    watched = Watched(600.0, in_flight=1, active=1)
    assert watched.book.use(watched.now)["a"].in_flight == 1
    assert watched.book.idle_s("a", watched.now) == 0.0
    assert watched.book.unassigned() == 0


def test_a_request_whose_body_is_on_its_way_is_not_assigned_yet() -> None:
    assert Watched(600.0, active=3, queued=1, in_flight=1).book.unassigned() == 1


def test_what_was_asked_often_of_late_is_worth_more_and_that_fades() -> None:
    watched = Watched(600.0)
    for _ in range(3):
        watched.ended("s.1")

    now = monotonic()
    assert watched.book.use(now)["a"].recent == pytest.approx(3.0, rel=0.01)
    assert watched.book.use(now + RECENT_S)["a"].recent == pytest.approx(1.5, rel=0.01)
