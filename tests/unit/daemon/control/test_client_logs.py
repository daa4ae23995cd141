from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import cast

import pytest

from orchestrator.adapters.log.store import InstanceLog
from orchestrator.daemon.control.client_logs import ClientLogs, EventLines
from orchestrator.daemon.control.event_log import EventLog
from orchestrator.daemon.fleet.engine_run import EngineRun, EngineRuns, Tee


def run_of(profile: str, instance: str) -> EngineRun:
    launch = SimpleNamespace(instance=instance, target=SimpleNamespace(profile=profile))
    return cast(EngineRun, SimpleNamespace(launch=launch, shown_log=InstanceLog()))


def test_a_profile_s_log_is_that_of_its_newest_process_and_without_one_there_is_none() -> None:
    runs, everything = EngineRuns(), InstanceLog()
    logs = ClientLogs(everything, EventLog(None), runs)
    assert logs.engine_log(None) is everything
    assert logs.engine_log("a") is None
    first, second, other = run_of("a", "1.1"), run_of("a", "1.2"), run_of("b", "2.1")
    for run in (first, second, other):
        runs.add(run)

    assert logs.engine_log("a") is second.shown_log
    runs.remove(second)
    assert logs.engine_log("a") is first.shown_log


def test_events_are_lines_with_their_numbers() -> None:
    events = EventLog(None)
    lines = EventLines(events)
    assert (lines.oldest_seq, lines.next_seq, lines.since(0)[1]) == (1, 1, [])
    events.add("started", "daemon 7")
    events.add("ready", "demo")
    assert (lines.oldest_seq, lines.next_seq) == (1, 3)
    missed, found = lines.since(2)
    assert (missed, [line.seq for line in found]) == (0, [2])
    assert found[0].text.endswith(" ready: demo")
    assert lines.since(lines.next_seq) == (0, [])


@pytest.mark.asyncio
async def test_a_new_event_wakes_who_waits_for_it() -> None:
    events = EventLog(None)
    waiting = asyncio.create_task(EventLines(events).changed())
    await asyncio.sleep(0)
    events.add("ready", "demo")
    await asyncio.wait_for(waiting, 10)


def test_what_people_read_of_a_process_has_nothing_of_what_clients_ask() -> None:
    own, of_one, of_all = InstanceLog(), InstanceLog(), InstanceLog()
    Tee(own, of_one, of_all).write(["prompt: secret", "[orch: started {}]", "all slots are idle"])
    assert "secret" in own.tail(9)[0].text
    for shown in (of_one, of_all):
        assert "secret" not in "\n".join(line.text for line in shown.tail(9))
