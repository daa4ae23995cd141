"""Writes orch's own marks into `engine.log`: each start, and what the daemon concluded when one failed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime

from orchestrator.adapters.log.store import InstanceLog
from orchestrator.core.engine_log.marks import mark_line
from orchestrator.core.fleet.lifecycle_states import Attempt, Starting, StartRecord, State, Stopping
from orchestrator.core.fleet.state_summary import start_record_of


class StartMarks:
    """Follows the fleet.

    :param log: the one that people read
    :param build: the label of the build that an instance runs
    """

    def __init__(self, log: InstanceLog, build: Callable[[str | None], str | None]) -> None:
        self._log = log
        self._build = build
        self._slots: Mapping[str, State] = {}
        self._started: dict[str, tuple[float, str]] = {}  # slot: when the last attempt began, and its instance

    def looked(self, slots: Mapping[str, State]) -> None:
        """Write what a change of the fleet means. Called before the effects of the change are performed."""
        for slot, state in slots.items():
            before = self._slots.get(slot)
            if state is not before:
                self._moved(slot, before, state)

        self._started = {slot: value for slot, value in self._started.items() if slot in slots}
        self._slots = dict(slots)

    def _moved(self, slot: str, before: State | None, state: State) -> None:
        start_record = start_record_of(state)
        if start_record is None or not start_record.attempts:
            return

        last = start_record.attempts[-1]
        if isinstance(state, Starting) and not isinstance(before, Starting):
            self._started[slot] = (last.started, state.instance)
            self._write("started", state.instance, start_record, build=self._build(state.instance), rung=str(last.rung))
        elif not isinstance(state, Stopping) and last.failure is not None and last != _judged_before(before):
            began, instance = self._started.get(slot, (None, None))
            self._judge(slot if began != last.started or instance is None else instance, start_record, last)

    def _judge(self, instance: str, start_record: StartRecord, attempt: Attempt) -> None:
        failure = attempt.failure
        assert failure is not None
        values: dict[str, object] = {
            "class": failure.failure_class, "phase": failure.phase, "action": failure.action, "device": failure.device,
            "requested_mib": failure.requested_mib, "message": failure.message, "evidence": failure.evidence or "",
            "hint": failure.hint, "next": attempt.next,
        }  # fmt: skip
        self._write("judged", instance, start_record, **values)

    def _write(self, kind: str, instance: str, start_record: StartRecord, **values: object) -> None:
        target, attempt = start_record.target, start_record.attempts[-1]
        now = datetime.now(UTC).isoformat(timespec="seconds")
        head = {"profile": target.profile, "engine": target.engine, "attempt": attempt.number, "instance": instance}
        self._log.write([mark_line(kind, **head, time=now, **values)])


def _judged_before(state: State | None) -> Attempt | None:
    """Return the attempt that was written about already; one that is only being ended was not."""
    start_record = start_record_of(state) if state is not None and not isinstance(state, Stopping) else None
    return start_record.attempts[-1] if start_record is not None and start_record.attempts else None
