"""Whether the files that a target is made of are others than when it was last prepared. Blocking: a thread."""

from __future__ import annotations

import os

from orchestrator.adapters.config.profile_files import ProfileStore
from orchestrator.adapters.file_stamps import directory_stamp, stamp
from orchestrator.adapters.gguf.splits import split_paths
from orchestrator.adapters.paths import Paths
from orchestrator.core.errors import OrchError
from orchestrator.core.fleet.lifecycle_states import Target
from orchestrator.engines import probe_cache
from orchestrator.engines.locate import PROGRAM, search_path
from orchestrator.engines.model_file import model_file
from orchestrator.engines.registry import EngineRegistry


class TargetFiles:
    """Remembers what the files of each target were like."""

    def __init__(self, paths: Paths) -> None:
        self._paths = paths
        self._profiles = ProfileStore(paths)
        self._files: dict[Target, tuple[str, ...]] = {}
        self._stamps: dict[Target, object] = {}

    def note(self, target: Target) -> None:
        """Remember what the files are like now: before they are read, so that what changes meanwhile is seen later."""
        self._stamps[target] = self._stamp(target)

    def changed(self, target: Target) -> bool:
        """Return whether a file of the target is another one than when it was noted."""
        return self._stamp(target) != self._stamps.get(target)

    def _stamp(self, target: Target) -> object:
        """Return what differs once the profile, the model's files, or the engine's program has changed."""
        try:
            profile = self._profiles.load(target.profile).for_engine(target.engine)
            # A path in a setting: a projector, a draft model, a grammar.
            paths = [each for each in profile.settings.values() if isinstance(each, str) and os.path.isabs(each)]
            self._files[target] = (*split_paths(model_file(self._paths, profile.model).path), *paths)
        except (OrchError, OSError, ValueError):
            pass  # its text is wrong at the moment: its files are those of before

        files = [stamp(path) for path in (self._paths.engines_file, *self._files.get(target, ()))]
        return directory_stamp(self._paths.profiles), files, self._program_stamp(target.engine)

    def _program_stamp(self, engine: str) -> object:
        try:
            path = EngineRegistry(self._paths).place(engine)
        except OrchError:  # a list of engines with mistakes
            return None

        if path is None:  # it is searched for
            return [stamp(os.path.join(directory, PROGRAM)) for directory in search_path(os.environ)]

        try:
            return probe_cache.stamp_of(path), stamp(path), os.access(path, os.X_OK)
        except OSError:
            return None
