"""The profiles that clients are offered as models, read again when a file changes."""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Callable, Sequence
from time import monotonic, time

import anyio

from orchestrator.adapters.abandonable import run_abandonable
from orchestrator.adapters.config.profile_files import ProfileStore
from orchestrator.adapters.file_stamps import Stamp, directory_stamp, stamp
from orchestrator.adapters.gguf.reader import GgufError, read_gguf
from orchestrator.adapters.gguf.splits import split_paths
from orchestrator.adapters.paths import Paths
from orchestrator.core.errors import OrchError
from orchestrator.core.fleet.model_figures import UNKNOWN, Model, ModelFigures, planned_figures
from orchestrator.core.profile.profile import Profile
from orchestrator.core.profile.rules import engine_kind
from orchestrator.daemon.fleet.preparing import read_files
from orchestrator.daemon.telemetry.pace import sleep_until_tick
from orchestrator.engines.model_file import ModelFile, model_file
from orchestrator.engines.registry import EngineRegistry

_log = logging.getLogger(__name__)

CREATED = int(time())
LOOK_FOR_PROFILES_S = 2.0
READ_S = 5.0
LOOK_AGAIN_S = 0.25
"""The least time between two looks for a name that nobody knows: clients can ask for such names without end."""

PATIENCE_S = 2.0
"""A disk that does not answer in this time has no model of that name."""

UNREADABLE = (OrchError, OSError, RuntimeError, ValueError)
"""What reading may meet: files, a full disk, no thread to be had."""


class ModelList:
    """Reads the profiles, and the headers of their models.

    :param on_read: told of the models each time they were read
    :param on_profiles: likewise of the profiles that could be read, and of the names of all
    """

    def __init__(
        self,
        paths: Paths,
        on_read: Callable[[tuple[Model, ...]], None],
        on_profiles: Callable[[Sequence[Profile], Sequence[str]], None] = lambda profiles, names: None,
    ) -> None:
        self._profiles = ProfileStore(paths)
        self._paths = paths
        self._on_read = on_read
        self._on_profiles = on_profiles
        self._headers: dict[str, tuple[Stamp, ModelFigures]] = {}
        self._read_profiles: tuple[tuple[Profile, ModelFile, str | None], ...] = ()
        self._names: Sequence[str] = ()
        self._model_files: tuple[str, ...] = ()
        self._watched: tuple[str, ...] = ()
        self._seen: object = None
        self._looking = anyio.Lock()
        self._looked_at = float("-inf")

    async def read(self) -> None:
        """Read the profiles now.

        :raises OrchError: when they cannot be; what was read before stays
        """
        self._on_read(await read_files(self._read, "the list of profiles", READ_S))
        self._on_profiles([profile for profile, _, _ in self._read_profiles], self._names)

    async def try_read(self) -> None:
        """Read the profiles now; when they cannot be, what was read before stays, and that is said."""
        try:
            await self.read()
        except OrchError as error:
            _log.warning("what was read of the profiles before stays: %s", error)

    async def watch(self) -> None:
        """List new and changed profiles within seconds, for ever. What runs is not touched: that is `orch reload`."""
        while True:
            try:
                # Headers are read here and nowhere else: a disk that hangs may keep a figure back, never a start.
                models = await run_abandonable(self._read_headers)
                if models is not None:
                    self._on_read(models)

                await sleep_until_tick(LOOK_FOR_PROFILES_S)
                await self._read_if_changed()
            except UNREADABLE as error:
                _log.warning("the profiles are not read again now: %s", error)
                await sleep_until_tick(LOOK_FOR_PROFILES_S)

    async def look_again(self, in_passing: bool = False) -> None:
        """Read the profiles if a file has changed: a client has named a model that nobody knows.

        :param in_passing: the request has another way to go, so it does not wait for its turn to look
        """
        if in_passing and (self._looking.locked() or monotonic() - self._looked_at < LOOK_AGAIN_S):
            return

        asked_at = monotonic()
        with anyio.move_on_after(PATIENCE_S):
            async with self._looking:
                if self._looked_at >= asked_at:  # somebody else has looked since
                    return

                await anyio.sleep(max(0.0, self._looked_at + LOOK_AGAIN_S - monotonic()))
                self._looked_at = monotonic()
                try:
                    await self._read_if_changed()
                except UNREADABLE as error:
                    _log.warning("the profiles are not read again now: %s", error)

    async def _read_if_changed(self) -> None:
        if await run_abandonable(self._stamps) != self._seen:
            await self.read()

    def _stamps(self) -> object:
        """Return what differs once a profile, a model file or an engine's program has changed."""
        return directory_stamp(self._paths.profiles), [stamp(path) for path in self._watched]

    def _read(self) -> tuple[Model, ...]:
        """Return the profiles that could be started: a shipped profile without its model file is nothing to offer."""
        # Before the text is read: what changes meanwhile is seen at the next look.
        directory = directory_stamp(self._paths.profiles)
        profiles, _ = self._profiles.load_all()
        self._names = self._profiles.names()
        self._read_profiles = tuple(
            (profile, model_file(self._paths, profile.model), self._program(profile.engine))
            for profile in sorted(profiles, key=lambda each: each.name)
        )
        programs = {program for _, _, program in self._read_profiles if program is not None}
        self._model_files = tuple(sorted({file.path for _, file, _ in self._read_profiles}))
        self._watched = (*self._model_files, *sorted(programs), self._paths.engines_file)
        self._seen = directory, [stamp(path) for path in self._watched]
        return self._models()

    def _models(self) -> tuple[Model, ...]:
        return tuple(
            self._model(profile, file.path, program)
            for profile, file, program in self._read_profiles
            if file.is_available()
        )

    def _model(self, profile: Profile, path: str, program: str | None) -> Model:
        chosen = profile.for_engine(profile.engine)
        kept, header = self._headers.get(path, (None, UNKNOWN))
        if kept != stamp(path):
            header = UNKNOWN

        runs = (chosen, path, stamp(path), program, None if program is None else stamp(program))
        return Model(
            profile.name,
            profile.aliases,
            profile.description,
            "unloaded",
            CREATED,
            planned_figures(chosen.settings, engine_kind(profile.engine), header),
            hashlib.sha256(repr(runs).encode("utf-8", "replace")).hexdigest()[:16],
            profile.variants,
        )

    def _program(self, engine: str) -> str | None:
        try:
            return EngineRegistry(self._paths).place(engine)
        except OrchError:  # a list of engines with mistakes: whoever starts one says so
            return None

    def _read_headers(self) -> tuple[Model, ...] | None:
        """Read the headers of model files that are new or have changed.

        :return: the models with what was learned; None when there was nothing to read
        """
        news = False
        for path in self._model_files:
            found = stamp(path)
            if found is not None and self._headers.get(path, (None,))[0] != found:
                self._headers[path] = (found, header_figures(path))
                news = True

        return self._models() if news else None


def header_figures(path: str) -> ModelFigures:
    """Return what the header of a model's file says; of one that cannot be read, nothing."""
    try:
        header = read_gguf(path)
        sizes = [os.stat(each).st_size for each in split_paths(path)]
    except (GgufError, OSError):
        return UNKNOWN

    return ModelFigures(
        trained_tokens=header.context_length, architecture=header.architecture[:64], size_bytes=sum(sizes)
    )
