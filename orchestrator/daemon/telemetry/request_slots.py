"""Which slot of an engine works for which request, and which works for none. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from orchestrator.core.measure.slots import Slot
from orchestrator.daemon.telemetry.engine_samples import Work
from orchestrator.gateway.contract import EngineProgress, Finished, Underway

ABANDONED_S = 2.0
"""An engine has so long to notice that its client is gone."""


def slots_of(underway: Sequence[Underway], work: Work) -> dict[int, Slot]:
    """Return the slot that works for each request at an instance, by the request's id; empty where that is not certain.

    Engines do not tell. But they number what they are asked in its order, as the gateway does: as many busy slots as
    requests, all of which were there when the slots were asked for, are each other's in that order.
    """
    here = (each for each in underway if each.instance is not None and each.instance == work.instance)
    sent = sorted((each for each in here if each.outcome != "held"), key=lambda each: each.id)
    busy = sorted((slot for slot in work.slots if slot.busy), key=lambda slot: slot.task or 0)
    tasks = {slot.task for slot in busy}
    known = len(busy) == 1 or (None not in tasks and len(tasks) == len(busy))
    there = all(each.started + each.held_s <= work.asked_s for each in sent)
    if len(sent) != len(busy) or not known or not there:
        return {}

    return {each.id: slot for each, slot in zip(sent, busy, strict=True)}


def progress_of(underway: Sequence[Underway], *works: Work) -> Mapping[int, EngineProgress]:
    """Return what is known of the engines' work for each request, by the request's number."""
    return {
        number: EngineProgress(slot.prompt_done if slot.reading else 1.0, slot.decoded)
        for work in works
        for number, slot in slots_of(underway, work).items()
    }


def abandoned_slots(underway: Sequence[Underway], ended: Iterable[Finished], work: Work) -> int:
    """Return how many slots have worked on for some seconds although there are fewer requests: their clients are gone.

    :param ended: the requests that ended last; those that ended just before the slots were asked for are not counted
    """
    lasting = sum(since_s <= work.asked_s - ABANDONED_S for since_s in work.busy_since.values())
    there = sum(each.instance == work.instance and each.outcome != "held" for each in underway)
    just_ended = sum(
        each.instance == work.instance and each.started + each.total_s > work.asked_s - ABANDONED_S for each in ended
    )
    return max(lasting - there - just_ended, 0)
