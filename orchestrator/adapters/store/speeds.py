"""Speeds that were measured on this machine: what forecasts go by, kept across restarts.

Of answers, one entry for a key, what was measured and how much it read; the newest of the same replaces the one before.
Of each machine, what `orch doctor --measure` found: of the memory the fastest reading with so many threads, since other
programs only make it slower and it stands for what cannot be exceeded; of file systems and links the newest. An entry
that cannot be read is as if it were not there.
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict
from typing import Any, NamedTuple

from orchestrator.adapters.store.state_file import load_state, save_state
from orchestrator.core.plan.speed.forecast import SpeedKey, SpeedSample
from orchestrator.core.setup.machine_speed import PcieLink

_log = logging.getLogger(__name__)
_KEPT = 200
_DIGITS = 2
"""Of the amounts that tell entries apart: runs at nearly the same depth are of one kind."""


class HostSpeed(NamedTuple):
    """How fast the host's memory was read at best, GB/s.

    :param threads: that read
    :param when: RFC 3339
    """

    gb_s: float
    threads: int
    when: str


class DiskSpeed(NamedTuple):
    """How fast a file of a file system was read past the page cache, GB/s; `when` as above."""

    gb_s: float
    when: str


class CardLinks(NamedTuple):
    """The links of a machine's cards; `when` as above."""

    links: tuple[PcieLink, ...]
    when: str


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
        """Return the fastest that the host's memory was read, with any number of threads; None where it was not.

        :param machine: `hardware.machine.machine_name` of this one: what another one reads says nothing
        """
        return max(_memory(self._machine(machine)), default=None)

    def disk(self, machine: str, file_system: str) -> DiskSpeed | None:
        """Return how fast a file system was read.

        :param file_system: where it is mounted
        """
        found = _table(_table(self._machine(machine), "disks"), file_system)
        with suppress(KeyError, ValueError):
            return DiskSpeed(_speed(found["gb_s"]), str(found["when"]))

        return None

    def links(self, machine: str) -> CardLinks | None:
        """Return the links of a machine's cards."""
        found = _table(self._machine(machine), "links")
        with suppress(KeyError, TypeError):
            return CardLinks(tuple(PcieLink(**each) for each in found["cards"]), str(found["when"]))

        return None

    def record_machine(
        self, machine: str, memory: HostSpeed, disks: Mapping[str, DiskSpeed], links: CardLinks | None
    ) -> None:
        """Keep what was measured of a machine, beside what is kept of it and was not measured now.

        :param disks: by where their file systems are mounted
        :raises OSError: when it cannot be written
        """
        state = self._state()
        kept = dict(self._machine(machine))
        fastest = {each.threads: each for each in sorted([*_memory(kept), memory])}
        kept["memory"] = {str(each.threads): {"gb_s": each.gb_s, "when": each.when} for each in fastest.values()}
        kept["disks"] = _table(kept, "disks") | {place: each._asdict() for place, each in disks.items()}
        if links is not None:
            kept["links"] = {"cards": [each._asdict() for each in links.links], "when": links.when}

        save_state(self._path, {**_kept(state), "machines": {**_table(state, "machines"), machine: kept}})

    def _machine(self, name: str) -> dict[str, Any]:
        return _table(_table(self._state(), "machines"), name)

    def _state(self) -> Mapping[str, object]:
        state, notice = load_state(self._path)
        if notice:
            _log.warning("%s", notice)

        return state


def _kept(state: Mapping[str, object]) -> dict[str, object]:
    return {name: state[name] for name in ("samples", "machines") if name in state}


def _entries(state: Mapping[str, object]) -> dict[str, Any]:
    return _table(state, "samples")


def _table(state: Mapping[str, object], name: str) -> dict[str, Any]:
    found = state.get(name)
    return dict(found) if isinstance(found, dict) else {}


def _memory(machine: Mapping[str, object]) -> Iterator[HostSpeed]:
    for threads, each in _table(machine, "memory").items():
        with suppress(KeyError, TypeError, ValueError):
            yield HostSpeed(_speed(each["gb_s"]), int(threads), str(each["when"]))


def _speed(gb_s: object) -> float:
    """:raises ValueError: when it is no speed"""
    if not isinstance(gb_s, int | float) or not 0 < gb_s < math.inf:
        raise ValueError(gb_s)

    return float(gb_s)


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
