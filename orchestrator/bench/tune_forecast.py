"""What the planner says of settings before they are started: whether they fit, and how long a turn would take."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from math import log

from orchestrator.adapters.config.profile_editing import parse_value
from orchestrator.adapters.paths import Paths
from orchestrator.core.errors import OrchError
from orchestrator.core.plan.geometry import Geometry
from orchestrator.core.plan.plan import DeviceRoom, HostRoom
from orchestrator.core.plan.shape import PlanShape, shape_of
from orchestrator.core.plan.speed.forecast import SpeedForecast
from orchestrator.core.plan.verdict import Judgement, judge
from orchestrator.core.profile.profile import EngineProfile
from orchestrator.core.profile.settings import Value
from orchestrator.core.quantities import MIB
from orchestrator.core.starts.cpu_pinning import LogicalCpu
from orchestrator.core.starts.start import engine_places
from orchestrator.core.tune.use import TuneUse
from orchestrator.engines.plan import devices_used, gather, speed_outlook
from orchestrator.engines.plan_target import PlanTarget
from orchestrator.engines.registry import Engine
from orchestrator.engines.render import RenderedLaunch, render_profile


def laid_over(settings: Mapping[str, Value], changed: Mapping[str, str]) -> dict[str, Value]:
    """Return a profile's settings with others laid over them, which are TOML."""
    found: dict[str, Value] = dict(settings)
    for key, text in changed.items():
        value = parse_value(text)
        found[key] = tuple(value) if isinstance(value, list) else value  # type: ignore[assignment]

    return found


class TunePlanner:
    """Forecasts for one profile on one engine.

    :param rooms: this machine's devices, with what is free where nothing of ours runs
    :param topology: the CPUs that may be used
    """

    def __init__(
        self,
        paths: Paths,
        target: PlanTarget,
        engine: Engine,
        rooms: tuple[DeviceRoom, ...],
        host: HostRoom,
        topology: tuple[LogicalCpu, ...],
    ) -> None:
        self._paths = paths
        self._target = target
        self._engine = engine
        self._host = host
        self._topology = topology
        self._subject = gather(target.profile, engine, target.parts)
        self._rooms = devices_used(target.profile.settings, rooms)
        self._as_it_is: RenderedLaunch | None = None
        self._judged: dict[tuple[PlanShape, int], Judgement] = {}
        self._speeds: dict[PlanShape, tuple[float | None, float | None]] = {}

    @property
    def geometry(self) -> Geometry:
        return self._subject.geometry

    def settings(self, changed: Mapping[str, str]) -> Mapping[str, Value]:
        """Return the profile's settings on the engine with others laid over them."""
        return laid_over(self._target.profile.settings, changed)

    def says(self, changed: Mapping[str, str]) -> bool:
        """Whether the build has words for these settings, and they change its command line or its CPUs."""
        source = self._target.source
        if source is None:
            return False

        def adjust(profile: EngineProfile) -> EngineProfile:
            return replace(profile, settings=laid_over(profile.settings, changed))

        try:
            launch = render_profile(self._paths, source, self._engine, adjust=adjust, topology=self._topology)
        except OrchError:
            return False

        if self._as_it_is is None:
            self._as_it_is = render_profile(self._paths, source, self._engine, topology=self._topology)

        return (launch.argv, launch.cpus) != (self._as_it_is.argv, self._as_it_is.cpus)

    def log_rate(self, changed: Mapping[str, str], use: TuneUse) -> float | None:
        """Return the logarithm of turns a second; None where it cannot fit, 0 where no speed is known."""
        settings = laid_over(self._target.profile.settings, changed)
        shape = replace(shape_of(settings, self._subject.build.kind, self._subject.geometry), devices=len(self._rooms))
        margin = settings.get("memory.fit_margin", 1024)
        places = engine_places(replace(self._target.profile, settings=settings), self._subject.build.kind)
        judgement = self._judge(shape, margin * MIB if places and isinstance(margin, int) else 0, places=places)
        if judgement is not None and judgement.verdict == "does_not_fit":
            return None

        decode, prompt = self._speed(judgement.shape if judgement is not None else shape)
        if decode is None or prompt is None:
            return 0.0

        return -log(use.new_tokens / prompt + use.answer_tokens / decode)

    def _judge(self, shape: PlanShape, margin_bytes: int, *, places: bool) -> Judgement | None:
        free = [room.free_mib * MIB for room in self._rooms if room.free_mib is not None]
        if len(free) != len(self._rooms):
            return None

        key = (shape, margin_bytes)
        if key not in self._judged:
            host = None if self._host.free_mib is None else self._host.free_mib * MIB
            need = self._subject.needs(free=free)
            self._judged[key] = judge(
                self._subject.geometry, shape, self._subject.build, free, host,
                margin_bytes=margin_bytes, may_offload=places, need=need, advise=False,
            )  # fmt: skip

        return self._judged[key]

    def _speed(self, shape: PlanShape) -> tuple[float | None, float | None]:
        """Return the tokens a second of generating and of prompts, None where unknown."""
        if shape not in self._speeds:
            speed = speed_outlook(
                self._paths, self._subject.geometry, shape, self._subject.build, self._engine.build, self._rooms
            )
            self._speeds[shape] = _middle(speed.generation) or _middle(speed.decode), _middle(speed.prompt)

        return self._speeds[shape]


def _middle(speed: SpeedForecast) -> float | None:
    """Return the geometric middle of a forecast with both bounds."""
    if speed.low is None or speed.high is None or speed.low <= 0:
        return None

    return float((speed.low * speed.high) ** 0.5)
