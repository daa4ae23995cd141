"""What follows from one look at an instance that serves. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from orchestrator.core.engine_log.events import LogRecord
from orchestrator.core.fleet.lifecycle import rung_after
from orchestrator.core.fleet.lifecycle_states import Failure, StartRecord, describe
from orchestrator.core.health.liveness import LivenessVerdict


@dataclass(frozen=True, slots=True)
class ServingDecision:
    """What is done about an instance.

    :param end: end it because of this; None to let it serve on
    :param routed: whether new requests go there
    :param routing_news: a sentence for people when `routed` has changed; None when it has not
    :param memory_news: a sentence for people: device memory ran out, and it serves on; None when it did not
    """

    end: Failure | None
    routed: bool
    routing_news: str | None = None
    memory_news: str | None = None


def decide_serving(
    start_record: StartRecord, out_of_memory: Failure | None, verdict: LivenessVerdict, routed: bool
) -> ServingDecision:
    """Return what is done after a look.

    1. Device memory ran out and the ladder has a further step: it is ended for that, also when it hangs, since a
       restart that does not climb would only run out again. 2. It hangs: it is ended for that. 3. It serves on; new
       requests go there while it answers.

    :param out_of_memory: what its log has told since the look before
    :param routed: whether new requests go there now
    """
    memory_news = None
    if out_of_memory is not None:
        if rung_after(start_record, out_of_memory) is not None:
            return ServingDecision(out_of_memory, routed)

        memory_news = f"{start_record.target}: {describe(out_of_memory)}; it serves on: the ladder has no further step"

    if verdict.kind == "hung":
        hung = Failure("engine_bug", f"the engine hangs: {verdict.reason}", phase="runtime")
        return ServingDecision(hung, routed, memory_news=memory_news)

    answers = verdict.kind == "ok"
    news = None
    if answers != routed:
        news = "the engine answers again" if answers else f"new requests wait: {verdict.reason}"

    return ServingDecision(None, answers, news, memory_news)


def answers_failed(failures: int, line: LogRecord | None, said: str) -> Failure:
    """Return the failure of an instance that lives and answers every request with an error.

    :param failures: answers in a row
    :param line: the engine's own words in its log; None when it has none
    :param said: what it answered to a question of our own
    """
    found = line.failure if line is not None else None
    failure_class = found.signature.failure_class if found is not None else "engine_bug"
    return Failure(
        failure_class if failure_class == "driver" else "engine_bug",
        f"the engine lives and answers only errors: the last {failures}, and two to orch itself",
        line.text.strip()[:500] if line is not None else said,
        action="restart",
        phase="runtime",
    )
