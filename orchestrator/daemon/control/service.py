"""The daemon's face: what the gateway sees of it, and what the control API asks of it."""

from __future__ import annotations

import asyncio
import math
import os
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from time import monotonic, time

import anyio.to_thread

from orchestrator.adapters.config.profile_files import ProfileStore
from orchestrator.adapters.hardware.gpu import GpuProvider
from orchestrator.adapters.paths import Paths
from orchestrator.api.types import GatewayStatus as GatewayStatus
from orchestrator.api.types import GpuStatus, Status
from orchestrator.core.errors import OrchError
from orchestrator.core.fleet.fleet_states import Fleet, SideBySide, StartingNew
from orchestrator.core.fleet.lifecycle_states import Draining, Ready, State, Stopped, Stopping, describe, instance_of
from orchestrator.daemon.control.snapshot import (
    Clock,
    attempts_of,
    failure_of,
    name_of,
    pid_of,
    progress_of,
    refusal_of,
    start_record_of,
)
from orchestrator.daemon.fleet.effect_runner import EffectRunner
from orchestrator.daemon.fleet.owner import Owner
from orchestrator.daemon.fleet.preparing import Preparer
from orchestrator.daemon.fleet.publisher import Publisher
from orchestrator.daemon.telemetry.history import HistoryWriter, record_of
from orchestrator.daemon.telemetry.pace import sleep_until_tick
from orchestrator.daemon.telemetry.speed import SpeedMeter
from orchestrator.daemon.telemetry.totals import Totals
from orchestrator.engines.model_file import model_file
from orchestrator.gateway.contract import Finished, Model, Refusal, View
from orchestrator.gateway.server import Gateway

CREATED = int(time())
LOOK_FOR_PROFILES_S = 2.0
KEPT_FALLEN = 16
KEPT_REQUESTS = 64


class Service:
    """Answers for the daemon. Reads the owner's world, never changes it.

    :ivar recent: the requests that ended last
    :ivar clock: the dates of what is told; one for all, so that they fit together
    """

    def __init__(
        self,
        paths: Paths,
        owner: Owner,
        preparer: Preparer,
        effect_runner: EffectRunner,
        gpus: GpuProvider,
        history: HistoryWriter,
        totals: Totals,
    ) -> None:
        self._owner = owner
        self._preparer = preparer
        self.effect_runner = effect_runner
        self._profiles = ProfileStore(paths)
        self._paths = paths
        self._gpus = gpus
        self._speed = SpeedMeter()
        self.recent: deque[Finished] = deque(maxlen=KEPT_REQUESTS)
        self._history = history
        self._totals = totals
        self._models: tuple[Model, ...] = ()
        self._closing = False
        self._unavailable: dict[str, Refusal] = {}
        self._unrouted: set[str] = set()
        self._before: Mapping[str, State] = {}
        self._fallen: tuple[str, ...] = ()
        self.on_request = False
        self.on_demand: Callable[[], None] = lambda: None
        self.on_finished: Callable[[Finished], None] = lambda record: None
        self.metrics_page: Callable[[], Awaitable[bytes]] | None = None
        self.notice_of: Callable[[str | None], str | None] = lambda instance: None
        self.clock = Clock(time() - monotonic())
        self.gateway: Gateway | None = None
        self.gateway_url = ""
        owner.observe(self.refresh)
        self.views: Publisher[View] = Publisher(View(1, None, Refusal("starting", "starting", 1), "starting", ()))

    # What the gateway asks (gateway/contract.py).

    def view(self) -> View:
        return self.views.value

    async def changed(self, generation: int) -> View:
        return await self.views.changed(generation)

    def demanded(self) -> None:
        self.on_demand()

    def finished(self, record: Finished) -> None:
        self._totals.finished(record)
        self._speed.add(record)
        self.recent.append(record)
        self.on_finished(record)
        self._history.add_request(record_of(record, time(), monotonic()))

    async def metrics(self) -> bytes:
        return await self.metrics_page() if self.metrics_page is not None else b""

    # What happens inside the daemon.

    def refresh(self) -> None:
        """Publish the view anew: the world, the models or the progress changed."""
        slots = self._owner.fleet.slots
        if slots is not self._before:
            fallen = (fallen_between(each, slots.get(slot)) for slot, each in self._before.items())
            self._fallen = (*self._fallen, *filter(None, fallen))[-KEPT_FALLEN:]
            self._unrouted.intersection_update(filter(None, map(instance_of, slots.values())))
            self._before = slots
            self._totals.looked(slots, monotonic())

        self.views.publish(self._view())

    async def watch_profiles(self) -> None:
        """List new and changed profiles within seconds, for ever. What runs is not touched: that is `orch reload`."""
        seen = self._profiles_stamp()
        while True:
            await sleep_until_tick(LOOK_FOR_PROFILES_S)
            stamp = self._profiles_stamp()
            if stamp != seen:
                seen = stamp
                await self.refresh_models()

    def _profiles_stamp(self) -> list[tuple[str, int]]:
        try:
            with os.scandir(self._paths.profiles) as entries:
                return sorted((entry.name, entry.stat().st_mtime_ns) for entry in entries)
        except OSError:  # no directory yet, or an editor replacing a file right now
            return []

    async def refresh_models(self) -> None:
        self._models = await anyio.to_thread.run_sync(self._read_models)
        self.refresh()

    def mark_unavailable(self, profile: str, cause: str, for_s: float) -> None:
        """Refuse requests for a profile that did not start, for a while; nobody waits for it in vain."""
        self._unavailable[profile] = Refusal(cause, "load_failed", math.ceil(for_s), profile)
        self.refresh()

        def available_again() -> None:
            self._unavailable.pop(profile, None)
            self.refresh()

        asyncio.get_running_loop().call_later(for_s, available_again)

    def unroute(self, instance: str, unrouted: bool) -> None:
        """Hold new requests for an instance that does not answer, or let them go there again."""
        if unrouted:
            self._unrouted.add(instance)
        else:
            self._unrouted.discard(instance)

        self.refresh()

    def close(self) -> None:
        """From now on nothing is on its way: the daemon stops."""
        self._closing = True
        self.refresh()

    def status(self) -> Status:
        """The answer of `orch status`, without the devices (`add_gpus`)."""
        published = self._owner.published.value
        fleet = published.fleet
        state = fleet.state
        start_record = start_record_of(state)
        shown = start_record if not isinstance(state, Stopped) else None
        instance = instance_of(state)
        failure = failure_of(state)
        last = start_record.attempts[-1].failure if start_record and start_record.attempts else None
        gateway = self.gateway
        return Status(
            version=1,
            state=name_of(state),
            profile=shown.target.profile if shown else None,
            engine=shown.target.engine if shown else None,
            build=self.effect_runner.build(instance),
            pid=pid_of(state),
            margin_mib=shown.rung.margin_mib if shown and shown.rung else None,
            attempts=attempts_of(start_record, self.clock),
            gateway=GatewayStatus(
                url=self.gateway_url,
                queued=gateway.queued if gateway else 0,
                in_flight=gateway.active - gateway.queued if gateway else 0,
            ),
            speed=self._speed.read(instance),
            gpus=[],
            since=self.clock.rfc3339(published.since),
            cause=describe(failure) if failure else None,
            hint=failure.hint if failure else (last.hint if last else None),
            stale=[],
            switching=fleet.switch is not None,
            progress=self._progress(fleet),
            daemon_pid=os.getpid(),
            generation=self.views.generation,
            notice=self.notice_of(instance),
        )

    async def full_status(self) -> Status:
        """As `status`, with the devices and with what has changed in the profile's text."""
        status = self.status()
        status["stale"] = list(await self.stale())
        readings = await anyio.to_thread.run_sync(self._gpus.read)
        status["gpus"] = [
            GpuStatus(index=each.index, name=each.name, used_mib=each.used_mib, total_mib=each.total_mib)
            for each in readings
        ]
        return status

    async def stale(self) -> tuple[str, ...]:
        """What the running instance's profile says differently by now; a text that is wrong counts as unchanged."""
        launch = self.effect_runner.launch(instance_of(self._owner.fleet.state))
        if launch is None:
            return ()

        try:
            return await anyio.to_thread.run_sync(self._preparer.changes, launch)
        except OrchError:
            return ()

    def _view(self) -> View:
        fleet = self._owner.fleet
        state = fleet.state
        view = View(
            generation=self.views.generation + 1,
            serving=None,
            refusal=None,
            progress=self._progress(fleet),
            models=self._with_status(fleet),
            on_request=self.on_request,
            unavailable=dict(self._unavailable),
            fallen=self._fallen,
        )
        if self._closing:
            return replace(view, refusal=Refusal("orch is stopping", "stopping", 5))

        if fleet.holding or (isinstance(state, Ready) and state.instance in self._unrouted):
            return view

        if isinstance(state, Ready):
            return replace(view, serving=self.effect_runner.endpoint(state.instance))

        return replace(view, refusal=refusal_of(state, monotonic()))

    def _progress(self, fleet: Fleet) -> str:
        state = fleet.state
        text = progress_of(state, self.effect_runner.loading(instance_of(state)))
        if isinstance(state, Ready) and state.instance in self._unrouted:
            text = f"{state.start_record.target} does not answer at the moment"

        switch = fleet.switch
        if switch is None:
            return text

        if isinstance(switch, SideBySide) and switch.new in fleet.slots:  # what serves meanwhile is no news
            beside = fleet.slots[switch.new]
            text = progress_of(beside, self.effect_runner.loading(instance_of(beside)))

        if isinstance(switch, StartingNew) and switch.operation.origin is None:  # a start that somebody waits for
            return text

        return f"switching to {switch.operation.target}: {text}"

    def _with_status(self, fleet: Fleet) -> tuple[Model, ...]:
        state = fleet.state
        start_record = start_record_of(state)
        if start_record is None or isinstance(state, Stopped):
            return self._models

        status = "loaded" if isinstance(state, Ready) else "unloaded" if failure_of(state) else "loading"
        return tuple(
            replace(model, status=status) if model.name == start_record.target.profile else model
            for model in self._models
        )

    def _read_models(self) -> tuple[Model, ...]:
        """The profiles that could be started: a shipped profile without its model file is nothing to offer."""
        profiles, _ = self._profiles.load_all()
        return tuple(
            Model(profile.name, profile.aliases, profile.description, "unloaded", CREATED)
            for profile in sorted(profiles, key=lambda each: each.name)
            if model_file(self._paths, profile.model).is_available()
        )


def fallen_between(before: State, state: State | None) -> str | None:
    """The instance that served and does so no more by a failure of its own; None when somebody wanted its end."""
    if not isinstance(before, Ready) or isinstance(state, Ready | Draining | None):
        return None

    asked = isinstance(state, Stopping) and state.failure is None
    return None if asked else before.instance
