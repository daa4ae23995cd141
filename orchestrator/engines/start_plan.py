"""The plan of a start on this machine: from headers, profile and build, and from what earlier starts took."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from dataclasses import replace

from orchestrator.adapters.file_stamps import file_identity
from orchestrator.adapters.gguf.reader import GgufHeader
from orchestrator.adapters.gguf.splits import read_splits
from orchestrator.adapters.hardware.gpu import GpuReading
from orchestrator.adapters.hardware.host import total_memory_mib
from orchestrator.adapters.paths import Paths
from orchestrator.adapters.store.starts import StartStore
from orchestrator.core.errors import OrchError
from orchestrator.core.fleet.ladder import Rung, apply_rung
from orchestrator.core.fleet.readiness import requires_device
from orchestrator.core.plan.need import COLD_OVERHEAD_MIB
from orchestrator.core.plan.plan import PlanSubject
from orchestrator.core.plan.verdict import judge
from orchestrator.core.profile.profile import EngineProfile, Profile
from orchestrator.core.quantities import MIB
from orchestrator.core.starts.margins import MarginOffset, margin_offset
from orchestrator.core.starts.readback import MeasuredStart, learned_beside_mib, learned_needs
from orchestrator.core.starts.start import StartPlan, plan_start, refuse_start
from orchestrator.engines.model_file import model_file
from orchestrator.engines.plan import gather
from orchestrator.engines.registry import Engine, engine_key

_log = logging.getLogger(__name__)

_SHARED_MEMORY_MIB = 8192
"""AMD devices with less may be parts of a processor, whose driver lends them the host's memory, too."""

_ADVICE = 3

_SURPRISES = (ArithmeticError, LookupError, TypeError, ValueError)
"""What a header with keys that nobody thought of may lead to: no reason not to start."""


def known_starts(paths: Paths, engine: Engine) -> list[MeasuredStart]:
    """Return the starts on a build, the newest last; none where they cannot be read."""
    try:
        return StartStore(paths.starts_file).find(engine_key(engine))
    except OSError:
        return []


class StartPlanner:
    """Plans starts of one model on one build and these devices.

    :param engine: None where it is not here: it is planned as the newest build of its kind
    :param path: the model's file
    :param starts: on this build, the newest last
    """

    def __init__(
        self,
        profile: EngineProfile,
        engine: Engine | None,
        path: str,
        parts: Sequence[GgufHeader],
        gpus: Sequence[GpuReading],
        starts: Sequence[MeasuredStart] = (),
    ) -> None:
        self._gpus = gpus
        model = file_identity(path)
        self._starts = [start for start in starts if start.model == model]
        self._on_build = starts
        self._beside_mib = learned_beside_mib(starts)
        self._subject: PlanSubject | None = None
        if engine is not None and engine.capabilities.kind == "unknown":
            return

        try:
            self._subject = gather(profile, engine, parts)
        except OrchError as error:
            _log.info("%s is not planned: %s", parts[0].path, error.message)
        except _SURPRISES:
            _log.warning("%s is not planned", parts[0].path, exc_info=True)

    def plan(self, profile: EngineProfile, devices: int | None = None, *, by_formula: bool = False) -> StartPlan | None:
        """Return the plan of a start; None for a build that is not known, or a header that does not say enough.

        :param devices: that the engine has, where it has said so
        :param by_formula: without what earlier starts of this shape took
        """
        subject = self._subject
        if subject is None:
            return None

        count = _devices(profile, self._gpus) if devices is None else devices
        beside = COLD_OVERHEAD_MIB if self._beside_mib is None else self._beside_mib
        need = subject.needs(overhead_mib=beside)
        if not by_formula:
            need = learned_needs(need, self._starts)

        try:
            return plan_start(subject.geometry, profile, subject.build, devices=count, need=need)
        except _SURPRISES:
            _log.warning("%s is not planned", profile.name, exc_info=True)
            return None

    def used_devices(self, profile: EngineProfile) -> tuple[str, ...] | None:
        """Return the devices that the last start with these settings used, as its engine calls them.

        None where none has become ready.
        """
        plan = self.plan(profile)
        if plan is None:
            return None

        for start in reversed(self._starts):
            if replace(start.shape, devices=plan.shape.devices) == plan.shape:
                return tuple(device.name for device in start.devices)

        return None

    def margin_offset(self, profile: EngineProfile) -> MarginOffset | None:
        """Return how far the margin of the build's fit is moved, so that as much stays free as the profile says."""
        plan = self.plan(profile, _devices(profile, self._gpus) or 1)
        return None if plan is None else margin_offset(plan, profile.extra_args, self._on_build)

    def possible_rung(self, profile: EngineProfile, rung: Rung) -> Rung | None:
        """Return the first rung, from this one on, that is not certain to fail; None when each is.

        Margins change nothing that is certain: of the ladder only the steps that the profile allows do.
        """
        steps = [step for step in profile.recovery.then if step not in rung.steps]
        for count in range(len(steps) + 1):
            tried = replace(rung, steps=(*rung.steps, *steps[:count]))
            if self._impossible(apply_rung(profile, tried)) is None:
                return tried

        return None

    def misfit(self, profile: EngineProfile) -> str | None:
        """Return why a start cannot be on these devices, however far the ladder goes; None where it might."""
        reason = self._impossible(profile)
        return reason if reason is not None and self.possible_rung(profile, Rung()) is None else None

    def refuse_impossible(self, profile: EngineProfile) -> None:
        """Refuse a start that cannot be on these devices, whatever else is on them and however far the ladder goes.

        :raises OrchError: in the plan's words, with what would make it fit
        """
        reason = self.misfit(profile)
        if reason is None:
            return

        raise OrchError(
            f"profile `{profile.name}` does not fit here: {reason}",
            details=self._advice(profile),
            hint=f"`orch plan {profile.name}` shows what takes how much; `--force` tries it all the same",
        )

    def _impossible(self, profile: EngineProfile) -> str | None:
        plan = self.plan(profile)
        if plan is None or _pages_device_memory():
            return None

        if any(replace(start.shape, devices=plan.shape.devices) == plan.shape for start in self._starts):
            return None  # it has become ready before

        needs_device = requires_device(profile.settings, fits=plan.build.kind == "upstream", has_backend=False)
        return refuse_start(plan, profile, self._totals_mib(), total_memory_mib(), needs_device=needs_device)

    def _advice(self, profile: EngineProfile) -> tuple[str, ...]:
        plan = self.plan(profile)
        free = [total * MIB for total in self._totals_mib()]
        if plan is None or not free:
            return ()

        changes = judge(plan.geometry, plan.shape, plan.build, free, may_offload=False).changes
        return tuple(f"it fits with {each.text} ({each.setting} = {_toml(each.value)})" for each in changes[:_ADVICE])

    def _totals_mib(self) -> list[int]:
        bound = all(each.vendor == "nvidia" or each.total_mib >= _SHARED_MEMORY_MIB for each in self._gpus)
        return [each.total_mib for each in self._gpus] if bound else []


def offset_of(paths: Paths, profile: Profile, engine: Engine) -> MarginOffset | None:
    """Return how far the margin of a start would be moved; None where its model cannot be read."""
    chosen = profile.for_engine(engine.id)
    if "memory.fit_margin" not in chosen.settings:
        return None

    try:
        path = model_file(paths, chosen.model).path
        planner = StartPlanner(chosen, engine, path, read_splits(path), (), known_starts(paths, engine))
    except (OrchError, OSError):
        return None

    return planner.margin_offset(chosen)


def _devices(profile: EngineProfile, gpus: Sequence[GpuReading]) -> int | None:
    """Return how many devices the engine will find; None where the profile names them."""
    named = profile.settings.get("memory.devices")
    if isinstance(named, tuple) and named:
        return sum(str(name) not in ("CPU", "none") for name in named)

    remote = profile.settings.get("memory.rpc")
    count = len(gpus) + (len(remote) if isinstance(remote, tuple) else 0)
    if count:
        return 1 if profile.settings.get("memory.split") == "none" else count

    return int(requires_device(profile.settings, fits=False, has_backend=False))


def _pages_device_memory() -> bool:
    """Return whether the driver moves device memory to the host's when it is full: Windows' does, and so WSL's."""
    return "microsoft" in os.uname().release.lower()


def _toml(value: int | str) -> str:
    return str(value) if isinstance(value, int) else f'"{value}"'
