"""What telemetry stands on, in small: devices and clients that a test names, and a run without a process."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from orchestrator.adapters.hardware.gpu import GpuReading
from orchestrator.adapters.process.key_handover import EngineKey
from orchestrator.adapters.store.margins import MarginKey
from orchestrator.core.profile.profile import EngineProfile, Recovery
from orchestrator.daemon.fleet.engine_run import EngineRun
from orchestrator.daemon.fleet.preparing import Launch
from orchestrator.daemon.telemetry.energy import EnergyBook
from orchestrator.engines.render import RenderedLaunch
from tests.unit.core.dialect.fixture_builds import UPSTREAM, build
from tests.unit.core.fleet.lifecycle_machine import FIRST, A


@dataclass
class Clients:
    """Requests as the gateway counts them."""

    active: int = 0
    queued: int = 0

    def in_flight(self, instance: str) -> int:
        return self.active - self.queued

    def relayed(self, instance: str) -> int:
        return 0

    def stalled(self, instance: str, stall_s: float) -> dict[int, float]:
        return {}


class Devices:
    """A driver with these devices."""

    def __init__(self, *readings: GpuReading) -> None:
        self.readings = readings
        self.watched: list[frozenset[int]] = []
        self.age_s: float | None = 0.0

    def read(self) -> tuple[GpuReading, ...]:
        return self.readings

    def read_now(self) -> tuple[GpuReading, ...]:
        return self.readings

    def watch(self, pids: Collection[int]) -> None:
        self.watched.append(frozenset(pids))


def no_energy() -> EnergyBook:
    """A book that keeps nothing."""
    return EnergyBook(lambda record: None, lambda: 0.0)


def run_on(port: int, instance: str) -> EngineRun:
    """A run of target A that is to be asked on this port; there is no process."""
    profile = EngineProfile(A.profile, A.engine, "/models/a.gguf", (), {}, Recovery(), ())
    rendered = RenderedLaunch(A.engine, "b11434", "/bin/false", ("/bin/false",), {}, (), profile)
    key = MarginKey("b11434", "a.gguf:1:1", {}, ())
    return EngineRun(
        Launch(
            instance, A, profile, profile, rendered, FIRST, port, EngineKey("key", "/nonexistent/key"), "/", 1,
            key, build(UPSTREAM),
        )
    )  # fmt: skip
