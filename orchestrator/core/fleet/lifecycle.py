"""The life of an instance, as a pure function: `step(state, event, now) -> (state, effects)`.

    stopped -> preparing -> starting -> ready -> draining -> stopping -> stopped
                  ^            |          |                     |
                  |            +----+-----+                     +-> preparing   (when another start was asked for)
                  |                 | the process ended
                  +--- backoff <----+----> failed ---(rest over, or a person asks)---> preparing

Happy path: a start is asked for; the profile, the engine, the port and the key are prepared; the process is spawned;
the engine answers /health from a port that is ours, then a canary is answered; requests flow. A stop drains, then ends
the process.

What each state knows: `preparing` which target and rung; `starting` and `ready` which process; `draining` and
`stopping` what comes after; `backoff` until when; `failed` why, and when one more try is due.

Failures: out of memory climbs the ladder at once; what cannot change by itself (a bad flag, a broken model)
fails; the rest spends the restart budget (`restart.py`). Every transition into `ready`, `failed` or `stopped` wakes
every waiter: the owner publishes each state that it stores.

What was learned: a rung has survived once its instance was ready for `healthy_s`, or was asked to end before that and
had no failure until then. One that becomes ready and runs out of memory soon after teaches nothing.

Who may call: the owner task alone. Events name the instance they speak of, and those of an earlier one are ignored.
"""

from __future__ import annotations

from dataclasses import replace
from typing import assert_never

from orchestrator.core.failure.reactions import find_reaction, response_to
from orchestrator.core.fleet.ladder import Rung, next_host_rung, next_rung
from orchestrator.core.fleet.lifecycle_states import (
    KEPT_ATTEMPTS,
    Attempt,
    AwaitDrain,
    Backoff,
    CanaryPassed,
    CheckFailed,
    Drained,
    Draining,
    Effects,
    Event,
    Exited,
    Failed,
    Failure,
    FilesChanged,
    Loaded,
    NotStarted,
    Prepare,
    Prepared,
    Preparing,
    Ready,
    ResumeRequested,
    SendCanary,
    Spawn,
    Spawned,
    Starting,
    StartRecord,
    StartRequested,
    State,
    Stopped,
    Stopping,
    StopProcess,
    StopRequested,
    Survived,
    Target,
    WakeAt,
    WatchLoading,
    Woke,
    instance_of,
)
from orchestrator.core.fleet.restart import CrashRecord, GiveUp, RestartPolicy, Retry, after_crash
from orchestrator.core.fleet.state_summary import waits_for_files


def step(state: State, event: Event, now: float, policy: RestartPolicy) -> tuple[State, Effects]:
    """Return the state that follows, and the effects to perform. Total: a pair without a meaning changes nothing."""
    match event:
        case StartRequested():
            return _start(state, event)
        case StopRequested():
            return _stop(state, event)
        case ResumeRequested():
            if isinstance(state, Draining):
                # The timer that `ready` had may have gone off meanwhile.
                wake = WakeAt(state.since + policy.healthy_s)
                return Ready(state.start_record, state.instance, state.pid, state.since), (wake,)

            return state, ()
        case Woke():
            return _wake(state, now, policy)
        case FilesChanged():
            return _look_again(state, event)
        case _:
            if event.instance != instance_of(state):
                return state, ()  # of an earlier instance, or of one that was given up

    match state, event:
        case Preparing(), Prepared():
            start_record = _append_attempt(
                replace(
                    state.start_record, rung=event.rung, recovery=event.recovery, cache_in_host=event.cache_in_host
                ),
                event.rung,
                now,
            )
            return Starting(start_record, state.instance), (Spawn(state.instance),)
        case Preparing(), NotStarted():
            start_record = _append_attempt(state.start_record, state.start_record.rung or Rung(), now)
            return _after_failure(start_record, event.failure, 0.0, now, policy, state.instance)
        case Starting(pid=None), Spawned():
            return replace(state, pid=event.pid), (WatchLoading(state.instance, state.start_record.silent_loads),)
        case Starting(pid=int(), loaded=False), Loaded():
            return replace(state, loaded=True), (SendCanary(state.instance),)
        case Starting(pid=int(pid), loaded=True), CanaryPassed():
            start_record = replace(_with_outcome(state.start_record, "ready"), silent_loads=0)
            ready = Ready(start_record, state.instance, pid, now)
            return ready, (WakeAt(now + policy.healthy_s),)
        case Starting() | Ready(), CheckFailed():
            ready_for_s = now - state.since if isinstance(state, Ready) else 0.0
            stopping = Stopping(
                _with_failure(state.start_record, event.failure), state.instance, None, event.failure, ready_for_s
            )
            return stopping, (StopProcess(state.instance),)
        case Draining(), CheckFailed():  # it answers nobody: no use in waiting for those in flight
            stopping = Stopping(_with_failure(state.start_record, event.failure), state.instance, state.then)
            return stopping, (StopProcess(state.instance),)
        case Starting(), NotStarted() | Exited():
            return _after_failure(state.start_record, event.failure, 0.0, now, policy, state.instance)
        case Ready(), Exited():
            return _after_failure(state.start_record, event.failure, now - state.since, now, policy, state.instance)
        case Draining(), Drained():
            return _stop_healthy(state, state.then)
        case Draining(), Exited():
            return _after_stop(_with_failure(state.start_record, event.failure), state.then, state.instance)
        case Stopping(), Spawned():
            return state, (StopProcess(state.instance),)  # asked for before there was a process to stop
        case Stopping(), Exited() | NotStarted():
            if state.failure is not None and state.then is None:
                failure = _main_failure(state.failure, event.failure)
                return _after_failure(state.start_record, failure, state.ready_for_s, now, policy, state.instance)

            return _after_stop(state.start_record, state.then, state.instance)
        case _:
            return state, ()


def rung_after(start_record: StartRecord, failure: Failure) -> Rung | None:
    """Return the rung to try after memory ran out; None at the top, or when the attempts are used up."""
    if start_record.climbed + 1 >= start_record.recovery.max_attempts:
        return None

    if response_to(failure.failure_class, failure.action, failure.phase) == "host_steps":
        in_host = start_record.cache_in_host or failure.phase == "kv"
        return next_host_rung(start_record.rung or Rung(), start_record.recovery, cache_in_host=in_host)

    return next_rung(
        start_record.rung or Rung(),
        start_record.recovery,
        margin_helps=failure.action == "retry_margin",
        requested_mib=failure.requested_mib,
        device=failure.device,
    )


def _start(state: State, event: StartRequested) -> tuple[State, Effects]:
    match state:
        case Stopped():
            return _prepare(StartRecord(event.target), event.instance)
        case Preparing() | Starting() | Ready() if state.start_record.target == event.target:
            return state, ()  # it is on its way already
        case Preparing() | Backoff() | Failed():
            return _prepare(StartRecord(event.target), _next_instance(state.instance))
        case Starting():
            return Stopping(state.start_record, state.instance, event.target), (StopProcess(state.instance),)
        case Ready():
            draining = Draining(state.start_record, state.instance, state.pid, state.since, event.target)
            return draining, (AwaitDrain(state.instance),)
        case Draining() | Stopping():
            return replace(state, then=event.target), ()
        case _:
            assert_never(state)


def _stop(state: State, event: StopRequested) -> tuple[State, Effects]:
    match state:
        case Stopped():
            return state, ()
        case Preparing() | Backoff() | Failed():
            return Stopped(state.start_record), ()
        case Starting():
            return Stopping(state.start_record, state.instance, None), (StopProcess(state.instance),)
        case Ready():
            if event.force:
                return _stop_healthy(state, None)

            draining = Draining(state.start_record, state.instance, state.pid, state.since, None)
            return draining, (AwaitDrain(state.instance),)
        case Draining():
            if event.force:
                return _stop_healthy(state, None)

            return replace(state, then=None), ()
        case Stopping():
            return replace(state, then=None, failure=None), ()
        case _:
            assert_never(state)


def _stop_healthy(state: Ready | Draining, then: Target | None) -> tuple[State, Effects]:
    """End an instance that served without a failure until it was asked to stop."""
    return Stopping(state.start_record, state.instance, then), (_survived(state), StopProcess(state.instance))


def _survived(state: Ready | Draining) -> Survived:
    return Survived(state.instance, state.start_record.rung or Rung())


def _wake(state: State, now: float, policy: RestartPolicy) -> tuple[State, Effects]:
    match state:
        case Ready(since=since):
            due = since + policy.healthy_s
            return state, ((_survived(state),) if now >= due else (WakeAt(due),))
        case Backoff(until=until) | Failed(until=float(until)) if now >= until:
            return _prepare(state.start_record, _next_instance(state.instance))
        case Backoff(until=until) | Failed(until=float(until)):
            # The timer of an earlier wait, or one that is early (uvloop's count whole milliseconds): without another
            # one, nothing would end this wait.
            return state, (WakeAt(until),)
        case _:
            return state, ()  # a person was quicker


def _look_again(state: State, event: FilesChanged) -> tuple[State, Effects]:
    """Try once more what failed for good: it is another start by now. What was tried stays to be seen."""
    if isinstance(state, Failed) and waits_for_files(state) and state.instance == event.instance:
        start_record = StartRecord(state.start_record.target, attempts=state.start_record.attempts)
        return _prepare(start_record, _next_instance(state.instance))

    return state, ()


def _prepare(start_record: StartRecord, instance: str, settle_s: float = 0.0) -> tuple[State, Effects]:
    return Preparing(start_record, instance), (Prepare(instance, start_record.target, start_record.rung, settle_s),)


def _same_rung_failed_before(start_record: StartRecord) -> bool:
    """Return whether the attempt before the last one ran out of memory on the same rung."""
    before = start_record.attempts[-2] if len(start_record.attempts) > 1 else None
    return before is not None and before.outcome == "device_oom" and before.rung == start_record.attempts[-1].rung


def _append_attempt(start_record: StartRecord, rung: Rung, now: float) -> StartRecord:
    number = start_record.attempts[-1].number + 1 if start_record.attempts else 1
    return replace(start_record, attempts=(*start_record.attempts, Attempt(number, now, rung))[-KEPT_ATTEMPTS:])


def _with_outcome(
    start_record: StartRecord, outcome: str, failure: Failure | None = None, next: str | None = None
) -> StartRecord:
    last = replace(start_record.attempts[-1], outcome=outcome, failure=failure, next=next)
    return replace(start_record, attempts=(*start_record.attempts[:-1], last))


def _with_failure(start_record: StartRecord, failure: Failure) -> StartRecord:
    return _with_outcome(start_record, failure.failure_class, failure)


def _main_failure(check: Failure, death: Failure) -> Failure:
    """Return the failure of a process that was being stopped because of a failed check.

    The words of its own log come first: the abort of a process that ran out of memory cuts off the canary, which is
    noticed before the exit. The log of one that merely hung says nothing, and its exit status is of our making. A check
    that itself quotes the log is the later word.
    """
    silent = death.evidence is None or death.failure_class in ("ok", "killed") or death.action == "continue"
    shown = check.evidence is not None and check.failure_class != "device_oom"
    return check if silent or shown or check.permanent else death


def _after_stop(start_record: StartRecord, then: Target | None, instance: str) -> tuple[State, Effects]:
    if start_record.attempts[-1].failure is None:
        start_record = _with_outcome(start_record, "stopped")

    if then is None:
        return Stopped(start_record), ()

    return _prepare(StartRecord(then), _next_instance(instance))


def _after_failure(
    start_record: StartRecord, failure: Failure, ready_for_s: float, now: float, policy: RestartPolicy, instance: str
) -> tuple[State, Effects]:
    """Decide what follows a process that ended by itself, or was ended because it failed, in this order.

    1. After a long healthy time, this is a new recovery: earlier crashes and climbs are forgotten, the rung is kept.
    2. Out of memory at a start beside others, of whom one can go: the same rung once more, which waits until it has
       gone (`fleet.py`). Out of device memory that a dead engine still held: the same rung once more, after a wait.
       Neither says anything of the rung, and a margin learned from it would be kept for good.
    3. Out of memory: the next rung, at once, while the profile allows attempts. Not charged to the budget.
    4. A load that was silent for too long: once more, with twice the time; the second time it has failed.
    5. Something that the same start would meet again: failed, until a person changes it.
    6. Anything else: the restart budget decides between a wait and a rest.

    Which failure is which is in `core/failure/reactions.py`.
    """
    if ready_for_s >= policy.stable_s:
        start_record = replace(start_record, climbed=0, crashes=CrashRecord())

    response = response_to(failure.failure_class, failure.action, failure.phase)
    if response in ("margin", "steps", "host_steps"):
        if failure.crowded and not ready_for_s:
            text = "try the same again with one model less beside it"
            start_record = _with_outcome(start_record, failure.failure_class, failure, text)
            return _prepare(start_record, _next_instance(instance))

        if (
            response != "host_steps"
            and failure.unreleased_mib
            and not ready_for_s
            and not _same_rung_failed_before(start_record)
        ):
            wait = f"try the same again in {policy.settle_s:g} s"
            why = f"{failure.unreleased_mib} MiB were not given back yet by what ran before"
            start_record = _with_outcome(start_record, failure.failure_class, failure, f"{wait}: {why}")
            return _prepare(start_record, _next_instance(instance), policy.settle_s)

        rung = rung_after(start_record, failure)
        if rung is not None:
            start_record = _with_outcome(start_record, failure.failure_class, failure, f"try {rung}")
            return _prepare(
                replace(start_record, rung=rung, climbed=start_record.climbed + 1), _next_instance(instance)
            )

        reaction = find_reaction(failure.failure_class, failure.action, failure.phase)
        if reaction is not None and reaction.at_top == "give_up":
            start_record = _with_outcome(
                start_record, failure.failure_class, failure, "give up: the ladder has no further step"
            )
            return Failed(start_record, instance, failure, None), ()

    if response == "restart_longer" and not start_record.silent_loads:
        text = "start once more, with twice the time"
        start_record = replace(_with_outcome(start_record, failure.failure_class, failure, text), silent_loads=1)
        return _prepare(start_record, _next_instance(instance))

    if response in ("give_up", "restart_longer"):
        start_record = _with_outcome(
            start_record, failure.failure_class, failure, "give up: the same start would fail the same way"
        )
        return Failed(start_record, instance, failure, None), ()

    record, decision = after_crash(start_record.crashes, ready_for_s, now, policy)
    start_record = replace(start_record, crashes=record)
    match decision:
        case Retry(delay_s):
            start_record = _with_outcome(start_record, failure.failure_class, failure, f"start again in {delay_s:g} s")
            return Backoff(start_record, instance, failure, now + delay_s), (WakeAt(now + delay_s),)
        case GiveUp(cooldown_s):
            start_record = _with_outcome(
                start_record, failure.failure_class, failure, f"rest for {cooldown_s:g} s, then one more try"
            )
            return Failed(start_record, instance, failure, now + cooldown_s), (WakeAt(now + cooldown_s),)
        case _:
            assert_never(decision)


def _next_instance(instance: str) -> str:
    """Return a fresh id for the process that replaces this one: `1a2b.1` is followed by `1a2b.2`."""
    stem, dot, number = instance.rpartition(".")
    return f"{stem}.{int(number) + 1}" if dot and number.isdecimal() else f"{instance}.2"
