"""What became of new builds before they were made current, kept across restarts: one entry for a build.

A gate holds a lock while it runs. One that was killed leaves an entry that says `running` without a lock: who reads it
takes it for `interrupted`.
"""

from __future__ import annotations

import contextlib
import logging
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from typing import Any, get_args

from orchestrator.adapters.store.exclusive import exclusive_lock, is_locked
from orchestrator.adapters.store.state_file import load_state, save_state
from orchestrator.core.errors import AlreadyRunningError
from orchestrator.core.setup.build_gate import GateState

_log = logging.getLogger(__name__)
_KEPT = 100
_LOOK_S = 0.5
"""For one that only looks whether a gate runs, which holds the lock for a moment."""


@dataclass(frozen=True, slots=True)
class GateRecord:
    """One build's gate.

    :param against: the build that was current; empty where there was none
    :param bench: its number in `orch bench list`; None where nothing was measured
    :param when: RFC 3339, UTC: when the state was entered
    """

    engine: str
    build: str
    against: str
    state: GateState
    reason: str = ""
    profile: str | None = None
    bench: int | None = None
    when: str = ""

    def as_json(self) -> dict[str, object]:
        kept = ("state", "reason", "against", "profile", "bench", "when")
        return {name: getattr(self, name) for name in kept}


class GateStore:
    """Reads and writes the file of gates."""

    def __init__(self, path: str) -> None:
        self._path = path

    def lock(self) -> contextlib.AbstractContextManager[None]:
        """Be the one gate that runs.

        :raises AlreadyRunningError: when another one does
        """
        busy = AlreadyRunningError("another new build is being judged", hint="wait for its end, or stop it")
        return exclusive_lock(f"{self._path}.lock", busy, _LOOK_S)

    def find(self, engine: str, build: str) -> GateRecord | None:
        """Return what became of a build; a gate that nobody runs any more was interrupted."""
        found = _read(self._entries().get(_name(engine, build)))
        if found is None or found.state != "running" or is_locked(f"{self._path}.lock"):
            return found

        return replace(found, state="interrupted", reason="the gate did not come to its end")

    def waiting(self) -> list[GateRecord]:
        """Return the builds that have passed, and that nobody has made current yet."""
        found = map(_read, self._entries().values())
        return [record for record in found if record is not None and record.state == "waiting"]

    def record(self, record: GateRecord) -> None:
        """Keep a gate's state; the oldest ones beyond a hundred are dropped.

        :raises OSError: when it cannot be written
        """
        entries = self._entries()
        name = _name(record.engine, record.build)
        entries.pop(name, None)
        now = datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
        entries[name] = asdict(replace(record, when=now))
        save_state(self._path, {"gates": dict(list(entries.items())[-_KEPT:])})

    def _entries(self) -> dict[str, Any]:
        state, notice = load_state(self._path)
        if notice:
            _log.warning("%s", notice)

        found = state.get("gates")
        return dict(found) if isinstance(found, dict) else {}


def _name(engine: str, build: str) -> str:
    return f"{engine}@{build}"


def _read(entry: Any) -> GateRecord | None:
    """Return the entry, which anyone may have written; None for what is none."""
    match entry:
        case {"engine": str(engine), "build": str(build), "against": str(against), "state": state, **rest} if (
            state in get_args(GateState)
        ):
            profile, bench = rest.get("profile"), rest.get("bench")
            return GateRecord(
                engine,
                build,
                against,
                state,
                reason=str(rest.get("reason", "")),
                profile=profile if isinstance(profile, str) else None,
                bench=bench if isinstance(bench, int) else None,
                when=str(rest.get("when", "")),
            )
        case _:
            return None
