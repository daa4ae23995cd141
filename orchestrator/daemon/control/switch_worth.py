"""Whether a switch would pay: what is forecast of the target that runs, and of the one asked for. Blocking."""

from __future__ import annotations

from orchestrator.adapters.file_stamps import file_identity
from orchestrator.adapters.hardware.gpu import GpuProvider
from orchestrator.adapters.paths import Paths
from orchestrator.core.plan.plan import DeviceRoom
from orchestrator.core.plan.speed.outlook import SpeedOutlook, switch_worth
from orchestrator.core.plan.speed.samples import placed
from orchestrator.daemon.fleet.preparing import ResolvedTarget
from orchestrator.engines.plan import speed_outlook
from orchestrator.engines.registry import EngineRegistry
from orchestrator.engines.start_plan import known_starts


def worth_of(paths: Paths, gpus: GpuProvider, before: ResolvedTarget, after: ResolvedTarget) -> str | None:
    """Return what a switch would bring, for people; None where that is not known.

    :raises OrchError: when an engine is gone
    """
    now, then = (_outlook(paths, gpus, each) for each in (before, after))
    return switch_worth(now, then) if now is not None and then is not None else None


def _outlook(paths: Paths, gpus: GpuProvider, resolved: ResolvedTarget) -> SpeedOutlook | None:
    plan = resolved.plan
    if plan is None:
        return None

    engine = EngineRegistry(paths).resolve(resolved.target.engine)
    shape = plan.shape
    if plan.fitted:  # where the layers were put at the last start
        model = file_identity(resolved.model_path)
        starts = [each for each in known_starts(paths, engine) if each.fitted and each.model == model]
        if not starts:
            return None

        shape = placed(plan.geometry, starts[-1].shape, starts[-1].host.get("weights", 0))

    rooms = [DeviceRoom(each.name, each.total_mib, None) for each in gpus.read()[: shape.devices]]
    return speed_outlook(paths, plan.geometry, shape, plan.build, engine.build, rooms)
