"""Speeds that were measured on this machine: what forecasts go by, kept across restarts.

One entry for a key, what was measured and how much it read; the newest of the same replaces the one before. An entry
that cannot be read is as if it were not there.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, NamedTuple

from orchestrator.adapters.store.state_file import load_state, save_state
from orchestrator.core.plan.speed.forecast import SpeedKey, SpeedSample

_log = logging.getLogger(__name__)
_KEPT = 200
_DIGITS = 2
"""Of the amounts that tell entries apart: runs at nearly the same depth are of one kind."""


class HostSpeed(NamedTuple):
    """How fast the host's memory was read at best, GB/s.

    :param threads: that read; None where it is not known
    :param when: RFC 3339; empty where it is not known
    :param machine: `hardware.machine.machine_name` where it was measured; empty where it is not known
    """

    gb_s: float
    threads: int | None = None
    when: str = ""
    machine: str = ""


class SpeedStore:
    """Reads and writes the file of speeds."""

    def __init__(self, path: str) -> None:
        self._path = path

    def samples(self) -> list[SpeedSample]:
        """Return what was measured, oldest first."""
        found = map(_read, _entries(self._state()).values())
        return [sample for sample in found if sample is not None]

    def record(self, sample: SpeedSample) -> None:
        """Keep a sample; the oldest ones beyond some hundreds are dropped.

        :raises OSError: when it cannot be written
        """
        state = self._state()
        entries = _entries(state)
        amounts = [f"{amount:.{_DIGITS}g}" for amount in sample.amounts]
        name = json.dumps([asdict(sample.key), sample.what, round(sample.width), amounts])
        entries.pop(name, None)
        entries[name] = asdict(sample)
        save_state(self._path, {**_kept(state), "samples": dict(list(entries.items())[-_KEPT:])})

    def host(self, machine: str) -> HostSpeed | None:
        """Return how fast the host's memory was read; None where it was not measured, or on another machine.

        :param machine: the name of this one
        """
        state = self._state()
        gb_s, told = state.get("host_gb_s"), state.get("host")
        if not isinstance(gb_s, int | float) or gb_s <= 0:
            return None

        if not isinstance(told, dict):  # kept before these were
            return HostSpeed(float(gb_s))

        if told.get("machine") != machine:
            return None

        threads, when = told.get("threads"), told.get("when")
        return HostSpeed(float(gb_s), threads if isinstance(threads, int) else None, str(when or ""), machine)

    def record_host(self, speed: HostSpeed) -> None:
        """Keep how fast the host's memory was read.

        :raises OSError: when it cannot be written
        """
        told = {"threads": speed.threads, "when": speed.when, "machine": speed.machine}
        save_state(self._path, {**_kept(self._state()), "host_gb_s": round(speed.gb_s, 2), "host": told})

    def _state(self) -> Mapping[str, object]:
        state, notice = load_state(self._path)
        if notice:
            _log.warning("%s", notice)

        return state


def _kept(state: Mapping[str, object]) -> dict[str, object]:
    return {name: state[name] for name in ("samples", "host_gb_s", "host") if name in state}


def _entries(state: Mapping[str, object]) -> dict[str, Any]:
    found = state.get("samples")
    return dict(found) if isinstance(found, dict) else {}


def _read(entry: object) -> SpeedSample | None:
    try:
        assert isinstance(entry, dict)
        key = dict(entry["key"])
        return SpeedSample(
            key=SpeedKey(**{**key, "tensor_types": tuple(map(str, key["tensor_types"]))}),
            what="prompt" if entry["what"] == "prompt" else "decode",
            amounts=tuple(map(float, entry["amounts"])),
            low_ms=float(entry["low_ms"]),
            high_ms=float(entry["high_ms"]),
            tokens_per_step=float(entry["tokens_per_step"]),
            width=float(entry["width"]),
            when=str(entry["when"]),
        )
    except (AssertionError, KeyError, TypeError, ValueError):
        return None
