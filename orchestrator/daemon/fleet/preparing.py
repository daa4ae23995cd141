"""From a target to what a process needs: profile, engine, argv, port, key. Blocking: runs in a thread.

Everything that can be wrong without starting anything is found here, so that a mistake never disturbs what is running.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import TypeVar

import anyio
import anyio.to_thread

from orchestrator.adapters.abandonable import NoThreadError, run_abandonable
from orchestrator.adapters.config.profile_files import ProfileStore
from orchestrator.adapters.gguf.reader import GgufHeader
from orchestrator.adapters.hardware.gpu import GpuProvider, GpuReading
from orchestrator.adapters.paths import Paths, make_private
from orchestrator.adapters.process.key_handover import EngineKey, make_key
from orchestrator.adapters.process.ports import free_port
from orchestrator.adapters.store.margins import MarginKey, MarginStore, margin_key
from orchestrator.adapters.store.verifications import VerificationStore, build_key, model_key
from orchestrator.core.dialect.capabilities import Capabilities
from orchestrator.core.dialect.model_limits import refuse_model
from orchestrator.core.engine_log.loaded_memory import LoadedMemory
from orchestrator.core.errors import OrchError, TimedOutError, UsageError
from orchestrator.core.fleet.ladder import Rung, apply_rung, cache_may_be_in_host, first_rung, raise_rung
from orchestrator.core.fleet.lifecycle_states import Target
from orchestrator.core.identities import device_identity
from orchestrator.core.profile.profile import EngineProfile, split_target
from orchestrator.core.profile.speculation import drafts_with_mtp
from orchestrator.core.starts.start import StartPlan
from orchestrator.daemon.fleet.target_files import TargetFiles
from orchestrator.engines.build.installs import verify
from orchestrator.engines.model_check import check_embeddings, check_fit, check_mtp, check_verified, read_model
from orchestrator.engines.model_file import model_file
from orchestrator.engines.read_back import ReadBack, keep, read_back
from orchestrator.engines.registry import Engine, EngineRegistry, engine_key
from orchestrator.engines.render import RenderedLaunch, render_profile
from orchestrator.engines.start_plan import StartPlanner, known_starts

_log = logging.getLogger(__name__)

HOST = "127.0.0.1"

FILES_S = 20.0
"""For the files of a target to be read, where somebody waits for it; less than clients of the control API wait."""

T = TypeVar("T")


class UnexpectedError(OrchError):
    """Raised in place of an error that nobody expected; its cause is that error."""


async def read_files(work: Callable[[], T], what: str, limit_s: float | None = FILES_S) -> T:
    """Do what reads a target's files in a thread that nobody has to wait for: a disk that hangs holds up nothing else.

    :param what: what is read, for messages
    :raises OrchError: as the work does
    :raises UnexpectedError: in place of any other error
    :raises TimedOutError: when it takes too long
    """
    try:
        with anyio.fail_after(limit_s):
            try:
                return await run_abandonable(work)
            except NoThreadError:  # one that anyio keeps may be idle
                return await anyio.to_thread.run_sync(work, abandon_on_cancel=True)
    except OrchError:
        raise
    except TimeoutError as error:
        hint = "is the disk or the network that they are on still there?"
        raise TimedOutError(f"{what}: the files did not answer within {limit_s:g} s", hint=hint) from error
    except Exception as error:
        _log.warning("%s cannot be read", what, exc_info=True)
        raise UnexpectedError(f"{what} cannot be read: {str(error) or type(error).__name__}") from error


@dataclass(frozen=True, slots=True)
class Launch:
    """All that is needed to start a process and to talk to it.

    :param written: the profile as its text says; `profile` is with the rung laid over it
    :param rendered: argv with the binary first, and the environment
    :param directory: where the process runs: the fork leaves files there
    :param key: that the engine wants, and where it reads it
    :param lacking: the records that it is started without, and why
    :param model_bytes: size of the model's files, to show how far loading is
    :param cache_in_host: whether some of the KV cache may be in host memory
    :param margin_offset_mib: how much less than its margin the engine is given
    :param plan: what it is expected to take; None where that is not known. `planner` made it
    :param verify_as: the key under which its first verification is to be kept; None where there is one already, or
        whoever started it wants none
    """

    instance: str
    target: Target
    written: EngineProfile
    profile: EngineProfile
    rendered: RenderedLaunch
    rung: Rung
    port: int
    key: EngineKey
    directory: str
    model_bytes: int
    margin_key: MarginKey
    capabilities: Capabilities
    cache_in_host: bool = True
    lacking: tuple[str, ...] = ()
    margin_offset_mib: int = 0
    plan: StartPlan | None = None
    planner: StartPlanner | None = None
    verify_as: str | None = None

    @property
    def api_key(self) -> str:
        return self.key.key

    @property
    def mtp(self) -> bool:
        return drafts_with_mtp(self.profile.settings)


@dataclass(frozen=True, slots=True)
class ResolvedTarget:
    """A target that has been checked as far as that goes without starting it.

    :param notes: what whoever asked should know
    :param plan: what it is expected to take; None where that is not known
    """

    target: Target
    profile: EngineProfile
    argv: tuple[str, ...]
    model_path: str
    model_bytes: int
    notes: tuple[str, ...]
    plan: StartPlan | None = None


class Preparer:
    """Prepares launches for one installation."""

    def __init__(self, paths: Paths, gpus: GpuProvider) -> None:
        self._paths = paths
        self._profiles = ProfileStore(paths)
        self._gpus = gpus
        self._margins = MarginStore(paths.margins_file)
        self._verifications = VerificationStore(paths.verifications_file)
        self._trusted: set[Target] = set()
        self._files = TargetFiles(paths)

    def resolve(
        self, name: str, engine: str | None, *, unverified: bool = False, force: bool = False
    ) -> ResolvedTarget:
        """Return the target that a name (or an alias, or a file) and an engine stand for, checked.

        :param unverified: also one that `orch verify` has found to be computed wrongly
        :param force: also one that cannot fit
        :raises OrchError: whatever would keep it from starting
        """
        profile = self._profiles.find_by_model_name(name) or self._profiles.load(name)
        target = Target(profile.name, engine or profile.engine)
        checked = self._find_engine(target.engine)
        chosen = profile.for_engine(checked.id)
        render_profile(self._paths, profile, checked)  # what the build cannot express is said first
        path, parts = self._check_model(chosen, checked, unverified=unverified)
        planner = self._planner(chosen, checked, path, parts, self._gpus.read())
        if not force:
            planner.refuse_impossible(chosen)

        rendered = render_profile(self._paths, profile, checked, offset=planner.margin_offset(chosen))
        size = sum(part.file_size for part in parts)
        return ResolvedTarget(
            target, rendered.profile, rendered.argv, path, size, rendered.notes, planner.plan(rendered.profile)
        )

    def resolve_text(
        self, text: str, running: Target | None, *, unverified: bool = False, force: bool = False
    ) -> ResolvedTarget:
        """Return the target that `profile@engine[@build]`, an engine or a profile stands for, checked as by `resolve`.

        :param running: an engine alone means its profile
        """
        name, engine = split_target(text)
        if engine is not None:
            return self.resolve(name, engine, unverified=unverified, force=force)

        if text in EngineRegistry(self._paths).ids():
            if running is None:
                raise UsageError(
                    f"`{text}` is an engine, and no profile runs that could be switched to it",
                    hint=f"`orch switch PROFILE@{text}`",
                )

            return self.resolve(running.profile, text, unverified=unverified, force=force)

        return self.resolve(text, None, unverified=unverified, force=force)

    def prepare(self, instance: str, target: Target, rung: Rung | None) -> Launch:
        """:raises OrchError: when the target cannot be started"""
        self._files.note(target)
        profile = self._profiles.load(target.profile)
        engine = self._find_engine(target.engine)
        chosen = profile.for_engine(engine.id)
        path, parts = self._check_model(chosen, engine)
        gpus = self._gpus.read()
        devices = tuple(device_identity(each.name, each.total_mib) for each in gpus)
        key = margin_key(chosen, path, engine_key(engine), devices)
        planner = self._planner(chosen, engine, path, parts, gpus)
        lacking: list[str] = []
        offset = planner.margin_offset(chosen)
        moved_mib = offset.mib if offset is not None else 0
        learned = self._best_effort(
            lambda: self._margins.learned(key, moved_mib), "what was learned of margins", lacking
        )
        if rung is None:
            rung = first_rung(chosen, learned)
            rung = planner.possible_rung(chosen, rung) or rung
        elif learned is not None:  # while the engine served: a spill
            rung = raise_rung(rung, learned)

        directory = os.path.join(self._paths.state, "engine")
        if self._best_effort(lambda: _made(directory), "its directory", lacking) is None:
            directory = "/"

        port = free_port()
        handed_key, why = make_key(self._paths.keys, instance)
        lacking += [f"its key file ({why})"] if why else []
        try:
            rendered = render_profile(
                self._paths,
                profile,
                engine,
                adjust=partial(apply_rung, rung=rung),
                host=HOST,
                port=port,
                api_key_file=handed_key.path,
                offset=offset,
            )
        except BaseException:
            handed_key.forget()
            raise
        return Launch(
            instance=instance,
            target=target,
            written=chosen,
            profile=rendered.profile,
            rendered=rendered,
            rung=rung,
            port=port,
            key=handed_key,
            directory=directory,
            model_bytes=sum(part.file_size for part in parts),
            margin_key=key,
            capabilities=engine.capabilities,
            cache_in_host=not devices or cache_may_be_in_host(rendered.profile),
            lacking=tuple(lacking),
            margin_offset_mib=moved_mib,
            plan=planner.plan(rendered.profile),
            planner=planner,
            verify_as=None if target in self._trusted else self._unverified_key(engine, path, rendered.profile),
        )

    def _planner(
        self,
        profile: EngineProfile,
        engine: Engine,
        path: str,
        parts: tuple[GgufHeader, ...],
        gpus: Sequence[GpuReading],
    ) -> StartPlanner:
        return StartPlanner(profile, engine, path, parts, gpus, known_starts(self._paths, engine))

    def trust(self, target: Target) -> None:
        """Start a target from now on without having it read first: somebody said `--unverified`, or it ran before."""
        self._trusted.add(target)

    def _unverified_key(self, engine: Engine, model_path: str, profile: EngineProfile) -> str | None:
        """Return the key of a model on a build; None where it has been verified."""
        key = model_key(build_key(engine.sha256, engine.path), model_path, profile)
        return None if self._verifications.find(key) else key

    def keep_verification(self, launch: Launch, verdict: str, how: str, summary: str) -> None:
        """Keep the result of a launch's first verification.

        :raises OSError: when it cannot be written
        """
        if launch.verify_as is not None:
            self._verifications.record(launch.verify_as, verdict, how, summary)

    def read_back(
        self, launch: Launch, memory: LoadedMemory, beside: Mapping[str, int], hidden_mib: int | None
    ) -> ReadBack | None:
        """Keep what a start took, and return it beside its plan; None where it said nothing.

        :raises OSError: when it cannot be written
        """
        if launch.planner is None:
            return None

        now = datetime.now(UTC).isoformat(timespec="seconds")
        path = model_file(self._paths, launch.profile.model).path
        build = launch.margin_key.build
        found = read_back(
            launch.planner, launch.profile, memory,
            build=build, model_path=path, beside=beside, hidden_mib=hidden_mib, now=now,
        )  # fmt: skip
        if found is not None:
            keep(self._paths, found, launch.profile)

        return found

    def survived(self, launch: Launch, rung: Rung) -> bool:
        """Remember the margins of a start that proved healthy, where the ladder had to climb to them.

        :return: whether something new was learned
        """
        first = first_rung(self._profiles.load(launch.target.profile).for_engine(launch.rendered.engine))
        return rung.margins != first.margins and self.learn(launch, rung)

    def learn(self, launch: Launch, rung: Rung) -> bool:
        """Have the next start begin with margins no smaller than these.

        :return: whether that is new
        """
        if rung.margins is None:
            return False

        now = datetime.now(UTC).isoformat(timespec="seconds")
        offset = launch.margin_offset_mib
        return self._margins.remember(launch.margin_key, rung.margins, launch.profile, now, offset)

    def changes(self, launch: Launch) -> tuple[str, ...]:
        """Return the dotted keys that the profile's text says differently from when the launch was prepared.

        :raises OrchError: when the text is wrong by now, or gone
        """
        before = launch.written
        after = self._profiles.load(launch.target.profile).for_engine(launch.rendered.engine)
        keys = before.settings.keys() | after.settings.keys()
        changed = sorted(key for key in keys if before.settings.get(key) != after.settings.get(key))
        heads = ("model", "aliases", "recovery", "extra_args")
        return (*(head for head in heads if getattr(before, head) != getattr(after, head)), *changed)

    def files_changed(self, target: Target) -> bool:
        """Return whether a file of the target is another one than when it was last prepared."""
        return self._files.changed(target)

    def _best_effort(self, work: Callable[[], T], what: str, lacking: list[str]) -> T | None:
        """Return what the work returns; None when it fails, which is then noted among what is lacking.

        :raises UsageError: when a newer orch wrote the file: that is a person's to decide
        """
        try:
            return work()
        except UsageError:
            raise
        except (OSError, OrchError) as error:
            lacking.append(f"{what} ({error})")
            return None

    def _find_engine(self, name: str) -> Engine:
        """Return the engine, unless a file of an installed build is not what was installed."""
        engine = EngineRegistry(self._paths).resolve(name)
        changed = verify(engine.path)
        if changed is not None:
            raise OrchError(
                f"the engine `{engine.id}` is not started: its build was changed",
                details=(changed,),
                hint=f"build it anew with `orch engines build {engine.id}`, or go back with `orch engines rollback`",
            )

        return engine

    def _check_model(
        self, profile: EngineProfile, engine: Engine, *, unverified: bool = True
    ) -> tuple[str, tuple[GgufHeader, ...]]:
        """Return the model's path and its headers, once they have what profile and engine need."""
        path = model_file(self._paths, profile.model).ensure()
        parts = read_model(profile, path)
        check_fit(profile, parts, engine.capabilities.kind)
        if not unverified:
            check_verified(profile, parts, engine, self._paths)

        header = parts[0]
        check_mtp(profile, parts)
        check_embeddings(profile, header)
        limit = refuse_model(engine.capabilities, header.architecture, header.nextn_predict_layers)
        if limit is not None:
            raise UsageError(
                f"profile `{profile.name}` cannot run on `{engine.id}`",
                details=(f"{path}: {limit}",),
                hint="`orch engines list` shows the others",
            )

        return path, parts


def _made(directory: str) -> str:
    make_private(directory)
    return directory
