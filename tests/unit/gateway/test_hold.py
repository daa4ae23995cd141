from __future__ import annotations

import pytest

from orchestrator.gateway.errors import GatewayError
from orchestrator.gateway.hold import Hold


def test_those_who_come_back_stand_where_they_stood() -> None:
    hold = Hold(8)
    woken: list[str] = []
    for name, since in (("second", 20.0), ("third", 30.0)):
        hold.enter(name, since, "")

    hold.enter("back", 40.0, "", arrived=10.0)
    hold.enter("fourth", 50.0, "")

    def note(profile: str | None) -> bool:
        woken.append(str(profile))
        return True

    assert hold.release(note) == 4
    assert woken == ["back", "second", "third", "fourth"]


def test_a_full_queue_has_room_for_those_who_come_back() -> None:
    hold = Hold(1)
    hold.enter(None, 1.0, "")
    with pytest.raises(GatewayError, match="waiting already"):
        hold.enter(None, 2.0, "")

    hold.enter(None, 3.0, "", arrived=0.5)
    assert len(hold) == 2


def test_only_those_are_asked_about_who_wait_for_one_of_these_profiles() -> None:
    hold = Hold(8)
    tickets = [hold.enter(name, float(since), "") for since, name in enumerate(("a", None, "b", "a"))]
    asked: list[str | None] = []

    def two(profile: str | None) -> bool:
        asked.append(profile)
        return len(asked) <= 2

    def none(profile: str | None) -> bool:
        asked.append(profile)
        return False

    assert hold.release(two, ("a", None, "nobody")) == 2
    assert asked == ["a", None, "a"]
    assert hold.release(none, ("a",)) == 0
    assert asked[3:] == ["a"]  # after one whose turn it is not, it is nobody's
    assert hold.waiting() == {"a": (2, 0.0), "b": (1, 2.0)}
    with tickets[0], tickets[2]:
        pass

    assert (len(hold), hold.waiting()) == (2, {"a": (1, 3.0)})


def test_those_without_a_name_are_counted_for_the_profile_that_they_wait_for() -> None:
    hold = Hold(8)
    with hold.enter(None, 5.0, ""), hold.enter("a", 7.0, ""), hold.enter("b", 9.0, ""):
        assert hold.waiting() == {"a": (1, 7.0), "b": (1, 9.0)}
        assert hold.waiting("a") == {"a": (2, 5.0), "b": (1, 9.0)}
