"""How fast profiles were by their answers to clients, kept across restarts, and which speeds people have accepted.

Circumstances are kept once, and named by a digest. Each profile keeps its newest marks and those that it is compared
with; an entry that cannot be read is as if it were not there. The daemon and the CLI both write: a lock beside the file
keeps one from undoing what the other has written.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from itertools import groupby
from typing import Any

from orchestrator.adapters.store.state_file import load_state, save_state
from orchestrator.core.course.course import SpeedSeries, series_of
from orchestrator.core.course.decline import OF_ANSWERS, best_level
from orchestrator.core.course.marks import Circumstances, SpeedMark

_log = logging.getLogger(__name__)

KEPT = 120
"""Marks of one profile, engine and kind, beside those of its best level."""

KEPT_OF_ALL = 2000


class SpeedMarkStore:
    """Reads and writes the file of marks."""

    def __init__(self, path: str) -> None:
        self.path = path

    def marks(self) -> list[SpeedMark]:
        """Return the marks, oldest first."""
        return _marks(self._state())

    def accepted(self) -> dict[SpeedSeries, float]:
        """Return the Unix time from which on a speed is taken for normal, by whose and of which kind it is."""
        return _accepted(self._state())

    def record(self, marks: Sequence[SpeedMark]) -> None:
        """Keep marks; one that began at the same time as another of its kind replaces it.

        :raises OSError: when it cannot be written
        """
        with self._lock():
            state = self._state()
            known = {(series_of(mark), mark.when_s): mark for mark in (*_marks(state), *marks)}
            self._save(_kept(sorted(known.values(), key=lambda mark: mark.when_s)), _accepted(state))

    def accept(self, since_s: Mapping[SpeedSeries, float]) -> None:
        """Take the speed from these Unix times on for normal.

        :raises OSError: when it cannot be written
        """
        with self._lock():
            state = self._state()
            self._save(_marks(state), {**_accepted(state), **since_s})

    def _save(self, marks: Sequence[SpeedMark], accepted: Mapping[SpeedSeries, float]) -> None:
        circumstances: dict[str, object] = {}
        entries = []
        for mark in marks:
            entry = asdict(mark)
            on = entry.pop("circumstances")
            digest = hashlib.sha256(json.dumps(on, sort_keys=True).encode()).hexdigest()[:12]
            circumstances[digest] = on
            entries.append({**entry, "on": digest})

        names = [{**series._asdict(), "since_s": since_s} for series, since_s in accepted.items()]
        save_state(self.path, {"circumstances": circumstances, "marks": entries, "accepted": names})

    def _state(self) -> Mapping[str, object]:
        state, notice = load_state(self.path)
        if notice:
            _log.warning("%s", notice)

        return state

    @contextlib.contextmanager
    def _lock(self) -> Iterator[None]:
        """Wait for the other writer: it is done in an instant."""
        os.makedirs(os.path.dirname(self.path), mode=0o700, exist_ok=True)
        descriptor = os.open(f"{self.path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)


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
        } if step_ms > 0 and decode > 0:
            circumstances = _circumstances(known.get(on))
            prompt = rest.get("prompt_tok_s")
            prompt_tok_s = float(prompt) if isinstance(prompt, int | float) else None
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
            }:
                found[SpeedSeries(profile, engine, kind)] = float(since_s)

    return found
