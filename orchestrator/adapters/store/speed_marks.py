"""How fast profiles were by their answers to clients, kept across restarts, and which speeds people have accepted.

Circumstances are kept once, and named by a digest. Each profile keeps its newest marks and those that it is compared
with; an entry that cannot be read is as if it were not there. The daemon and the CLI both write: a lock beside the file
keeps one from undoing what the other has written.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from itertools import groupby
from typing import Any, NamedTuple

from orchestrator.adapters.file_stamps import Stamp, stamp
from orchestrator.adapters.store.exclusive import exclusive_lock
from orchestrator.adapters.store.state_file import load_state, save_state
from orchestrator.core.course.course import SpeedSeries, series_of
from orchestrator.core.course.decline import OF_ANSWERS, best_level
from orchestrator.core.course.marks import Circumstances, SpeedMark
from orchestrator.core.errors import OrchError

_log = logging.getLogger(__name__)

KEPT = 120
"""Marks of one profile, engine and kind, beside those of its best level."""

KEPT_OF_ALL = 2000

_LATEST_S = 4e9
"""Unix time of the year 2096; `_MOST` is more than any rate or step. What lies outside was not written by orch."""

_MOST = 1e9

LOCK_PATIENCE_S = 5.0
"""For the other writer, who is done in an instant."""


class KeptSpeeds(NamedTuple):
    """What the file says.

    :param marks: oldest first
    :param accepted: the Unix time from which on a speed is taken for normal, by whose and of which kind it is
    :param stamp: of the file as it is read here, or of an older one: what differs from it is to be read anew
    """

    marks: list[SpeedMark]
    accepted: dict[SpeedSeries, float]
    stamp: Stamp


class SpeedMarkStore:
    """Reads and writes the file of marks."""

    def __init__(self, path: str) -> None:
        self.path = path

    def read(self) -> KeptSpeeds:
        before = stamp(self.path)
        state, notice = load_state(self.path)
        if notice:
            _log.warning("%s", notice)

        return KeptSpeeds(_marks(state), _accepted(state), before)

    def record(self, marks: Sequence[SpeedMark]) -> KeptSpeeds:
        """Keep marks, and return what the file says then; one that began when another of its kind did replaces it.

        :raises OSError: when it cannot be written
        :raises OrchError: when another process does not end writing it
        """
        with self._lock():
            found = self.read()
            known = {(series_of(mark), mark.when_s): mark for mark in (*found.marks, *marks)}
            kept = _kept(sorted(known.values(), key=lambda mark: mark.when_s))
            self._save(kept, found.accepted)
            return KeptSpeeds(kept, found.accepted, stamp(self.path))

    def accept(self, since_s: Mapping[SpeedSeries, float]) -> None:
        """Take the speed from these Unix times on for normal.

        :raises OSError: when it cannot be written
        :raises OrchError: when another process does not end writing it
        """
        with self._lock():
            found = self.read()
            self._save(found.marks, {**found.accepted, **since_s})

    def _save(self, marks: Sequence[SpeedMark], accepted: Mapping[SpeedSeries, float]) -> None:
        circumstances: dict[str, object] = {}
        entries = []
        for mark in marks:
            entry = asdict(mark)
            del entry["bench"], entry["trial"]  # benches have a file of their own
            on = entry.pop("circumstances")
            digest = hashlib.sha256(json.dumps(on, sort_keys=True).encode()).hexdigest()[:12]
            circumstances[digest] = on
            entries.append({**entry, "on": digest})

        names = [{**series._asdict(), "since_s": since_s} for series, since_s in accepted.items()]
        save_state(self.path, {"circumstances": circumstances, "marks": entries, "accepted": names})

    def _lock(self) -> contextlib.AbstractContextManager[None]:
        lock = f"{self.path}.lock"
        busy = OrchError(f"{self.path} is written to by another process", details=(lock,), hint="try it again")
        return exclusive_lock(lock, busy, LOCK_PATIENCE_S)


def _kept(marks: Sequence[SpeedMark]) -> list[SpeedMark]:
    """Return the marks that are worth keeping, oldest first."""
    kept: list[SpeedMark] = []
    for _, group in groupby(sorted(marks, key=series_of), key=series_of):
        own = list(group)
        older, newest = own[:-KEPT], own[-KEPT:]
        best = best_level(own, OF_ANSWERS)
        kept += [mark for mark in older if best is not None and mark in best.marks]
        kept += newest

    return sorted(kept, key=lambda mark: mark.when_s)[-KEPT_OF_ALL:]


def _marks(state: Mapping[str, object]) -> list[SpeedMark]:
    entries, known = state.get("marks"), state.get("circumstances")
    if not isinstance(entries, list) or not isinstance(known, dict):
        return []

    found = (_read(entry, known) for entry in entries)
    return [mark for mark in found if mark is not None]


def _read(entry: object, known: Mapping[str, Any]) -> SpeedMark | None:
    match entry:
        case {
            "when_s": int() | float() as when_s,
            "profile": str(profile),
            "engine": str(engine),
            "kind": str(kind),
            "on": str(on),
            "answers": int(answers),
            "decode_tok_s": int() | float() as decode,
            "low_tok_s": int() | float() as low,
            "high_tok_s": int() | float() as high,
            "step_ms": int() | float() as step_ms,
            **rest,
        } if 0 <= when_s < _LATEST_S and all(0 < each < _MOST for each in (decode, low, high, step_ms)):
            circumstances = _circumstances(known.get(on))
            prompt = rest.get("prompt_tok_s")
            prompt_tok_s = float(prompt) if isinstance(prompt, int | float) and 0 < prompt < _MOST else None
            if circumstances is not None:
                return SpeedMark(
                    when_s, profile, engine, kind, circumstances, answers, decode, low, high, step_ms, prompt_tok_s
                )

    return None


def _circumstances(entry: object) -> Circumstances | None:
    match entry:
        case {
            "build": str(build),
            "model": str(model),
            "settings": dict(settings),
            "device": str(device),
            "driver": str(driver),
            "kernel": str(kernel),
        }:
            return Circumstances(build, model, {str(a): str(b) for a, b in settings.items()}, device, driver, kernel)
        case _:
            return None


def _accepted(state: Mapping[str, object]) -> dict[SpeedSeries, float]:
    entries = state.get("accepted")
    found = {}
    for entry in entries if isinstance(entries, list) else ():
        match entry:
            case {
                "profile": str(profile),
                "engine": str(engine),
                "kind": str(kind),
                "since_s": int() | float() as since_s,
            } if 0 <= since_s < _LATEST_S:
                found[SpeedSeries(profile, engine, kind)] = float(since_s)

    return found
