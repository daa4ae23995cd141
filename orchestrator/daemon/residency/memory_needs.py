"""What profiles that wait need: looked up in their files, and kept until one of these changes. Blocking: a thread."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from time import monotonic
from typing import NamedTuple

from orchestrator.adapters.config.profile_files import ProfileStore
from orchestrator.adapters.file_stamps import stamp
from orchestrator.adapters.gguf.reader import GgufError
from orchestrator.adapters.gguf.splits import read_splits
from orchestrator.adapters.hardware.gpu import GpuReading
from orchestrator.adapters.paths import Paths
from orchestrator.core.errors import OrchError
from orchestrator.core.fleet.lifecycle_states import Target
from orchestrator.core.residency.memory_ledger import ProfileNeed, margins_of, planned_need
from orchestrator.core.residency.places import place_of_device, places_of
from orchestrator.daemon.fleet.target_files import TargetFiles
from orchestrator.engines.model_file import model_file
from orchestrator.engines.registry import EngineRegistry
from orchestrator.engines.start_plan import StartPlanner, known_starts

_log = logging.getLogger(__name__)

CHECK_S = 1.0
"""Between two looks at the files of what waits: looks at the memory come faster."""

UNREADABLE = (OrchError, GgufError, OSError, ValueError)


@dataclass(frozen=True, slots=True)
class KnownNeed:
    """What a start needs, and what it keeps free on its devices, MiB by place."""

    need: ProfileNeed
    margins: dict[str, int]


class _Kept(NamedTuple):
    """A need, by what it was looked up with beside the target's files, and when those were last looked at."""

    seen: object
    checked_at: float
    need: KnownNeed


class NeedBook:
    """Looks up what targets need."""

    def __init__(self, paths: Paths) -> None:
        self._paths = paths
        self._profiles = ProfileStore(paths)
        self._files = TargetFiles(paths)
        self._known: dict[Target, _Kept] = {}

    def need_of(self, target: Target, gpus: Sequence[GpuReading]) -> KnownNeed | None:
        """Return what a start needs; None where its files cannot be read: the start itself says what is wrong."""
        devices = tuple((each.index, each.name, each.total_mib) for each in gpus)
        seen = (devices, stamp(self._paths.starts_file))
        kept = self._known.get(target)
        if kept is not None and kept.seen == seen:
            if monotonic() - kept.checked_at < CHECK_S:
                return kept.need

            if not self._files.changed(target):
                self._known[target] = kept._replace(checked_at=monotonic())
                return kept.need

        self._files.note(target)
        try:
            found = self._look_up(target, gpus)
        except UNREADABLE as error:
            _log.info("what %s needs is not known: %s", target, error)
            self._known.pop(target, None)
            return None

        self._known[target] = _Kept(seen, monotonic(), found)
        return found

    def _look_up(self, target: Target, gpus: Sequence[GpuReading]) -> KnownNeed:
        engine = EngineRegistry(self._paths).resolve(target.engine)
        profile = self._profiles.load(target.profile).for_engine(engine.id)
        path = model_file(self._paths, profile.model).ensure()
        parts = read_splits(path)
        planner = StartPlanner(profile, engine, path, parts, gpus, known_starts(self._paths, engine))
        names = planner.used_devices(profile)
        environment = {**os.environ, **profile.environment}
        if names is None:
            places = places_of(profile, len(gpus), environment)
            plan = planner.plan(profile, len(places) or None)
        else:
            places = tuple(place_of_device(name, profile, len(gpus), environment) for name in names)
            plan = planner.plan(profile, len(names))

        size_mib = sum(part.file_size for part in parts) >> 20
        return KnownNeed(planned_need(plan, profile, size_mib, places), margins_of(profile, places))
