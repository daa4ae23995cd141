"""What starts that became ready really took of each device and of the host: the read-back that plans go by.

One entry for a build, a model's file, a shape and the devices; the newest of the same replaces the one before. An entry
that cannot be read is as if it were not there.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping
from dataclasses import asdict, fields
from typing import Any

from orchestrator.adapters.store.state_file import load_state, save_state
from orchestrator.core.plan.shape import PlanShape
from orchestrator.core.starts.readback import MeasuredDevice, MeasuredStart

_log = logging.getLogger(__name__)
_KEPT = 200


class StartStore:
    """Reads and writes the file of starts."""

    def __init__(self, path: str) -> None:
        self._path = path

    def entries(self) -> list[dict[str, Any]]:
        """Return what is kept, the newest last: as `record` wrote it."""
        state, notice = load_state(self._path)
        if notice:
            _log.warning("%s", notice)

        kept = state.get("starts")
        return [entry for entry in kept.values() if isinstance(entry, dict)] if isinstance(kept, dict) else []

    def find(self, build: str, model: str | None = None) -> list[MeasuredStart]:
        """Return the starts of a build, the newest last.

        :param build: its key: label and program
        :param model: the identity of one model's file; None for those of every model
        """
        wanted = [entry for entry in self.entries() if entry.get("build") == build]
        found = map(_read, [entry for entry in wanted if model in (None, entry.get("model"))])
        return [start for start in found if start is not None]

    def record(self, start: MeasuredStart, about: Mapping[str, object]) -> None:
        """Keep a start; the oldest ones beyond some hundreds are dropped.

        :param about: for people and for scores: profile, engine, what was planned, what contradicts it
        :raises OSError: when it cannot be written
        """
        state, _ = load_state(self._path)
        before = state.get("starts")
        entries = dict(before) if isinstance(before, dict) else {}
        names = [device.name for device in start.devices]
        key = _digest([start.build, start.model, asdict(start.shape), start.fitted, names])
        entries.pop(key, None)
        entries[key] = {**asdict(start), **about}
        save_state(self._path, {"starts": dict(list(entries.items())[-_KEPT:])})


def _read(entry: dict[str, Any]) -> MeasuredStart | None:
    try:
        shape = dict(entry["shape"])
        shape["tensor_split"] = tuple(shape.get("tensor_split", ()))
        known = {each.name for each in fields(PlanShape)}
        hidden = entry.get("hidden_mib")
        return MeasuredStart(
            build=str(entry["build"]),
            model=str(entry["model"]),
            shape=PlanShape(**{name: value for name, value in shape.items() if name in known}),
            fitted=entry["fitted"] is True,
            when=str(entry["when"]),
            devices=tuple(_device(each) for each in entry["devices"]),
            host=_sizes(entry["host"]),
            hidden_mib=hidden if isinstance(hidden, int) else None,
        )
    except (KeyError, TypeError, ValueError, AttributeError):
        return None


def _device(entry: dict[str, Any]) -> MeasuredDevice:
    beside = entry.get("beside")
    return MeasuredDevice(str(entry["name"]), _sizes(entry["sizes"]), beside if isinstance(beside, int) else None)


def _sizes(entry: dict[str, Any]) -> dict[str, int]:
    return {str(name): int(size) for name, size in entry.items()}


def _digest(parts: list[object]) -> str:
    return hashlib.sha256(json.dumps(parts, default=list).encode()).hexdigest()[:24]
