"""The daemon from its first task to its last: wires the parts together, starts them, and takes them down in order.

Whatever runs as long as the daemon is a core task (`heartbeat.py`): one that dies ends the daemon, and the watchdog
knows that it is there. Tasks with an end of their own belong to one effect, switch or announcement. Threads that write
(`history.py`, the engine's log) are no core tasks: a record that cannot be kept is no reason to end what serves.
"""

from __future__ import annotations

import logging
import os
import secrets
from functools import partial
from time import monotonic, time

import anyio
import anyio.to_thread
from anyio.abc import TaskGroup

from orchestrator.adapters.config.config_file import load_config
from orchestrator.adapters.config.trial_profiles import sweep_unused_trial_profiles
from orchestrator.adapters.hardware.gpu_sources import open_gpus
from orchestrator.adapters.hardware.vram_holders import read_vram
from orchestrator.adapters.http1 import HttpLimits, HttpServer
from orchestrator.adapters.log.file import LogFile
from orchestrator.adapters.log.store import InstanceLog
from orchestrator.adapters.paths import Paths
from orchestrator.adapters.process.cgroup import EngineGroups
from orchestrator.adapters.process.guard import OrphanGuard, home_id
from orchestrator.adapters.process.reaper import reap_adopted
from orchestrator.adapters.systemd.notify import Notifier
from orchestrator.api.top_frames import Point
from orchestrator.core.config import Config
from orchestrator.core.errors import OrchError
from orchestrator.core.fleet.fleet_states import DownRequested
from orchestrator.core.fleet.lifecycle_states import Stopped, describe
from orchestrator.core.fleet.resident_states import EndCause
from orchestrator.core.health.liveness import LivenessPolicy
from orchestrator.core.measure.samples import HistorySample
from orchestrator.daemon.control.actions import Actions
from orchestrator.daemon.control.client_logs import ClientLogs
from orchestrator.daemon.control.client_requests import ClientRequests
from orchestrator.daemon.control.clock import Clock
from orchestrator.daemon.control.event_log import EventLog
from orchestrator.daemon.control.loading import LoadingActions
from orchestrator.daemon.control.page_frames import PageFrames
from orchestrator.daemon.control.routes import Control
from orchestrator.daemon.control.status import StatusBuilder
from orchestrator.daemon.control.switch_worth import worth_of
from orchestrator.daemon.control.targets import list_targets
from orchestrator.daemon.control.top_frame import TopFrames
from orchestrator.daemon.fleet.device_memory import DeviceMemory
from orchestrator.daemon.fleet.effect_runner import EffectRunner, InstanceTimeouts
from orchestrator.daemon.fleet.engine_run import EngineRuns
from orchestrator.daemon.fleet.log_marks import StartMarks
from orchestrator.daemon.fleet.model_list import ModelList
from orchestrator.daemon.fleet.owner import Owner
from orchestrator.daemon.fleet.preparing import Preparer
from orchestrator.daemon.fleet.router import Router
from orchestrator.daemon.fleet.second_look import SecondLook
from orchestrator.daemon.fleet.switcher import Switcher
from orchestrator.daemon.fleet.watching import LivenessWatcher
from orchestrator.daemon.process.desired_target import DesiredTarget, StartOptions
from orchestrator.daemon.process.heartbeat import END_WITHIN_S, CoreTasks, Heartbeat, end_within
from orchestrator.daemon.process.manager_link import ManagerLink
from orchestrator.daemon.process.signals import Signals
from orchestrator.daemon.process.sockets import Listeners, url_of
from orchestrator.daemon.residency.demand import DemandScheduler
from orchestrator.daemon.residency.leases import Leases
from orchestrator.daemon.residency.memory_looks import MemoryLooks
from orchestrator.daemon.residency.residency import ResidencyKeeper
from orchestrator.daemon.residency.usage import UsageBook
from orchestrator.daemon.telemetry.cold_read_watch import ColdReadWatch
from orchestrator.daemon.telemetry.draft_watch import DraftWatch
from orchestrator.daemon.telemetry.energy import EnergyBook
from orchestrator.daemon.telemetry.exporter import Exporter
from orchestrator.daemon.telemetry.history import HistoryWriter
from orchestrator.daemon.telemetry.ledger import RequestLedger
from orchestrator.daemon.telemetry.pace import sleep_until_tick
from orchestrator.daemon.telemetry.request_slots import abandoned_slots, progress_of
from orchestrator.daemon.telemetry.slowdown_watch import LOOK_S, SlowdownWatch
from orchestrator.daemon.telemetry.speed_book import SpeedBook
from orchestrator.daemon.telemetry.speed_mark_book import SpeedMarkBook
from orchestrator.daemon.telemetry.telemetry import Telemetry
from orchestrator.daemon.telemetry.totals import Totals
from orchestrator.gateway.config import GatewayOptions
from orchestrator.gateway.contract import Finished, Traffic
from orchestrator.gateway.dispatch import Dispatcher
from orchestrator.gateway.server import Gateway

_log = logging.getLogger(__name__)

UNKILLABLE_ALLOWANCE_S = 10.0
HEARD_S = 0.25
"""For clients that were let in just before the daemon was told to end, to say what they want."""

REAP_EVERY_S = 1.0
CONTROL_CONNECTIONS = 64


class Daemon:
    """Owns the parts and their lifetimes.

    :param watchdog_s: the service manager wants to hear from it so often; None when it does not
    :ivar start_failure: why it ended before it was ready, where ready means that a model is
    """

    def __init__(
        self,
        paths: Paths,
        config: Config,
        options: StartOptions,
        settings: GatewayOptions,
        groups: EngineGroups,
        notifier: Notifier,
        watchdog_s: float | None,
    ) -> None:
        self._groups = groups
        self._paths = paths
        self._settings = settings
        self._notifier = notifier
        self._watchdog_s = watchdog_s
        self._config = config
        self._options = options
        self._event_log = EventLog(os.path.join(paths.state, "events.jsonl"))
        self._gpus = open_gpus(os.environ)
        self._preparer = Preparer(paths, self._gpus)
        self._owner = Owner(self._event_log, config.restart)
        self._desired = DesiredTarget(
            paths.state_file, config.daemon.default_profile, options, self._owner, self._preparer, self._event_log
        )
        self._log = InstanceLog(
            LogFile(os.path.join(paths.logs, "engine.log"), max_bytes=config.daemon.log_max_mib << 20)
        )
        self._history = HistoryWriter(paths.history_file)
        self._energy = EnergyBook(self._history.add_idle, time)
        self._totals = Totals()
        self._signals = Signals()
        self.start_failure: OrchError | None = None

    async def run(self, listeners: Listeners) -> None:
        """Run until it is told to end.

        :raises BaseExceptionGroup: of `CoreTaskDied`, when a task died that it cannot do without
        """
        guard = OrphanGuard(secrets.token_hex(16), home_id(self._paths.state), on_death=self._guard_died)
        await guard.start()
        try:
            async with anyio.create_task_group() as tasks:
                try:
                    await self._serve(listeners, tasks, guard)
                except anyio.get_cancelled_exc_class():  # something in the group died
                    end_within(END_WITHIN_S)
                    raise

                tasks.cancel_scope.cancel()
        finally:
            with anyio.CancelScope(shield=True):
                await guard.close()
                await self._log.aclose()
                self._energy.close()
                await anyio.to_thread.run_sync(self._history.close)

        self._event_log.add("ended", f"daemon {os.getpid()}")

    async def _serve(self, listeners: Listeners, tasks: TaskGroup, guard: OrphanGuard) -> None:
        core = CoreTasks(tasks, self._event_log.add)
        owner, config, gateway_url = self._owner, self._config, url_of(listeners.gateway[0])
        runs = EngineRuns()
        router = Router(owner, runs, on_request=config.gateway.switch_on_request)
        owner.observe(lambda: self._totals.looked(owner.fleet.slots, monotonic()))
        marks = StartMarks(self._log, runs.build)
        owner.observe(lambda: marks.looked(owner.fleet.slots))
        ledger = RequestLedger(self._totals, self._history, self._energy)
        residency = ResidencyKeeper(config, lambda: load_config(self._paths), owner.post)
        models = ModelList(self._paths, router.list_models, residency.profiles_read)
        dispatcher = Dispatcher(self._settings, router, ledger, models.look_again)
        memory = DeviceMemory(self._gpus)
        effect_runner = self._effect_runner(tasks, guard, runs, memory, dispatcher, router)
        core.start("owner", lambda: owner.run(effect_runner), again=False)
        looks = MemoryLooks(self._paths, self._gpus, runs)
        switcher = Switcher(
            owner, self._preparer, self._gpus, lambda: dispatcher.hold.entered, router.reads_ahead,
            looks.free_host_mib,
        )  # fmt: skip
        owner.observe_switches(self._totals.switched)
        owner.observe_switches(switcher.finished)
        usage = UsageBook(owner, dispatcher)
        ledger.subscribe(usage.request_ended)
        self._desired.order = usage.order
        demand = DemandScheduler(tasks, owner, router, switcher, self._preparer, dispatcher, usage, looks.look)
        owner.refuse = demand.refuse
        core.start("demand", demand.run)
        watcher = self._watcher(runs, router, dispatcher)
        ledger.subscribe(watcher.finished)
        dispatcher.given_up = watcher.given_up
        owner.waited_s = dispatcher.hold.waited_s
        core.start("watcher", watcher.run)
        slowdown = self._slowdown_watch(runs, router, dispatcher, effect_runner)
        ledger.subscribe(slowdown.finished)
        ledger.subscribe(self._tell_cancelled)
        core.start("slowdown watch", slowdown.run)
        drafts = DraftWatch(owner, runs, self._paths.bench_file, self._event_log.add, router.refresh)
        ledger.subscribe(drafts.finished)
        core.start("draft watch", drafts.run)
        telemetry = Telemetry(
            owner, runs, dispatcher, self._gpus, memory, self._energy, dispatcher.underway, self._keep
        )
        ledger.subscribe(telemetry.finished)
        core.start("telemetry", telemetry.run)
        cold_reads = ColdReadWatch(
            self._paths, owner, runs, dispatcher, self._event_log.add, router.refresh, telemetry.family
        )
        ledger.subscribe(cold_reads.finished)
        core.start("cold read watch", cold_reads.run)

        def notice_of(instance: str | None) -> str | None:
            notices = (watch.notice(instance) for watch in (runs, slowdown, drafts, cold_reads))
            return "; ".join(filter(None, notices)) or None

        def abandoned() -> int:
            underway = dispatcher.underway()
            return sum(abandoned_slots(underway, ledger.recent, work) for work in telemetry.works)

        ends_alone = self._signals.ending.set if self._options.started_by_up else None
        clock = Clock(time() - monotonic())
        self._leases = Leases(
            tasks, owner, switcher, self._desired, self._event_log,
            now=lambda: clock.rfc3339(monotonic()),
            sweep=partial(sweep_unused_trial_profiles, self._paths),
            end=ends_alone,
        )  # fmt: skip
        self._leases.recall(self._desired.lease)
        status = StatusBuilder(
            owner, runs, router, dispatcher, ledger, self._preparer, self._gpus, notice_of, gateway_url,
            clock, abandoned, dispatcher.hold.waiting,
            lambda profile: usage.idle_s(profile, monotonic()), self._leases.status,
            cold_reads.page_cache,
        )  # fmt: skip
        exporter = Exporter(owner, runs, dispatcher, telemetry, self._totals, self._history, status.residents)
        actions = Actions(
            tasks, owner, router, models, status, switcher, self._preparer,
            fallback=self._desired.fallback, check_config=residency.read_config,
            worth=partial(worth_of, self._paths, self._gpus),
        )  # fmt: skip
        dispatcher.progress = lambda: progress_of(dispatcher.underway(), *telemetry.works)
        frames = TopFrames(
            owner, runs, status, ledger, dispatcher.underway, telemetry, self._event_log, cold_reads.page_cache
        )
        loading = LoadingActions(owner, router, models, self._preparer, switcher)
        allowed = config.gateway.switch_on_request
        gateway = Gateway(
            self._settings, dispatcher, exporter.page,
            ClientRequests(owner, loading, ledger, ClientLogs(self._log, self._event_log, runs), allowed=allowed),
            PageFrames(
                frames, lambda: router.view().models, telemetry.points, self._log, actions, allowed=allowed
            ),
        )  # fmt: skip
        api = self._control(runs, router, status, switcher, actions, loading, frames, dispatcher)
        limits = HttpLimits(idle_timeout_s=600.0, connections=CONTROL_CONNECTIONS)
        control = HttpServer(api.handle, limits, uids={0, os.geteuid()}, make_room="any")
        link = ManagerLink(self._notifier, owner, router, gateway_url)
        await anyio.to_thread.run_sync(sweep_unused_trial_profiles, self._paths)
        await models.try_read()
        await anyio.to_thread.run_sync(self._history.open)
        core.start("signals", self._signals.heed)
        core.start("reaper", reap_regularly)
        core.start("profiles", models.watch)
        core.start("second look", SecondLook(owner, self._preparer, self._event_log.add).run)
        core.start("reload", lambda: self._signals.reload_when_told(actions.reload, link, self._event_log))
        await control.serve(listeners.control)
        _log.info("the gateway listens on %s", gateway_url)
        self._event_log.add("started", f"daemon {os.getpid()}, gateway {gateway_url}")
        # Before the first client: one that waited for this daemon to come up shall wait for the model too.
        await self._desired.start_first()
        core.start("state file", self._desired.follow)  # what it remembers is read by now
        if self._options.started_by_up:
            tasks.start_soon(self._desired.load_after_up)

        await gateway.start(listeners.gateway)
        core.start("gateway", gateway.run)
        if link.connected:
            core.start("status line", link.follow)
            tasks.start_soon(self._announce, link)
            if self._watchdog_s is not None:
                core.start("heartbeat", Heartbeat(owner.prove, core, link.ping, self._watchdog_s).run)

        await self._signals.ending.wait()
        link.stopping()
        async with link.more_time():
            await self._take_down(router, switcher, gateway)
            await control.shutdown(1.0)

    def _effect_runner(
        self,
        tasks: TaskGroup,
        guard: OrphanGuard,
        runs: EngineRuns,
        memory: DeviceMemory,
        dispatcher: Dispatcher,
        router: Router,
    ) -> EffectRunner:
        times = self._config.daemon
        return EffectRunner(
            tasks,
            self._owner.post,
            self._owner.ask,
            runs,
            self._preparer,
            self._log,
            guard,
            InstanceTimeouts(
                times.stop_grace_s, times.drain_s, times.load_stall_s, times.stall_s, times.first_reading_s
            ),
            dispatcher.wait_idle,
            memory,
            self._groups,
            self._event_log.add,
            router.refresh,
        )

    def _guard_died(self) -> None:
        _log.error("the guard process died and is started again")
        self._event_log.add("guard_died", "the guard process died and is started again")

    def _watcher(self, runs: EngineRuns, router: Router, traffic: Traffic) -> LivenessWatcher:
        every_s = self._config.daemon.probe_s
        policy = LivenessPolicy(every_s, min(max(every_s / 2, 1.0), 5.0), self._config.daemon.stall_s)
        return LivenessWatcher(self._owner, runs, traffic, policy, router.unroute, self._event_log.add)

    def _slowdown_watch(
        self, runs: EngineRuns, router: Router, traffic: Traffic, effect_runner: EffectRunner
    ) -> SlowdownWatch:
        look_s = min(LOOK_S, self._config.daemon.probe_s)
        return SlowdownWatch(
            self._owner,
            runs,
            traffic,
            self._gpus.read,
            self._event_log.add,
            router.refresh,
            effect_runner.learn,
            SpeedBook(self._paths.speeds_file),
            SpeedMarkBook(self._paths.speed_marks_file, self._event_log.add, router.refresh, self._is_lent, time),
            look_s,
        )

    def _is_lent(self) -> bool:
        """Return whether a client tries other targets right now."""
        lease = self._leases.status()
        return lease is not None and lease["state"] == "held"

    def _control(
        self,
        runs: EngineRuns,
        router: Router,
        status: StatusBuilder,
        switcher: Switcher,
        actions: Actions,
        loading: LoadingActions,
        frames: TopFrames,
        dispatcher: Dispatcher,
    ) -> Control:
        return Control(
            self._owner,
            runs,
            router,
            status,
            switcher,
            actions,
            loading,
            self._leases,
            self._event_log,
            self._log,
            targets=lambda running: list_targets(self._paths, running),
            drain_s=self._config.daemon.drain_s,
            frame=frames.frame,
            vram=partial(read_vram, self._gpus),
            requests=dispatcher,
            end=self._signals.ending.set,
            ends_with_engine=self._options.started_by_up,
        )

    def _tell_cancelled(self, record: Finished) -> None:
        if record.outcome == "cancelled":
            whose = f" of {record.client}" if record.client else ""
            text = f"request {record.request_id}{whose} ({record.route}) was cancelled after {record.total_s:.1f} s"
            self._event_log.add("request_cancelled", text)

    def _keep(self, point: Point) -> None:
        used = tuple(point["used_mib"])
        self._history.add_sample(HistorySample(int(point["at_s"]), point["decode_tok_s"], point["prompt_tok_s"], used))

    async def _announce(self, link: ManagerLink) -> None:
        """Tell the service manager that the daemon is ready, as `daemon.ready_when` has it."""
        failed = self._desired.refused
        if self._config.daemon.ready_when == "model":
            if failed is None and (failure := await link.until_loaded()) is not None:
                failed = OrchError(describe(failure), hint=failure.hint)

            if failed is not None:
                text = f'{failed.message} (`daemon.ready_when` is "model")'
                self.start_failure = OrchError(text, details=failed.details, hint=failed.hint)
                self._signals.ending.set()
                return

        link.ready()
        if failed is not None:
            link.remark(failed.message)

    async def _take_down(self, router: Router, switcher: Switcher, gateway: Gateway) -> None:
        await gateway.stop_listening(HEARD_S)
        router.close()
        gateway.stop_accepting()
        switcher.interrupt(EndCause("interrupted", "the daemon ends"))
        self._leases.close()
        # Asked for by the service manager, not by a person: what is wanted stays wanted for the next start.
        desired, loaded = self._owner.fleet.desired, self._desired.loaded()
        await self._owner.ask(DownRequested())
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._force_when_asked)
            limit_s = self._config.daemon.drain_s + self._config.daemon.stop_grace_s + UNKILLABLE_ALLOWANCE_S
            with anyio.move_on_after(limit_s):
                await self._until_stopped()

            tasks.cancel_scope.cancel()

        await gateway.stop(0.5)
        self._desired.keep(desired, loaded)

    async def _until_stopped(self) -> None:
        generation = 0
        while any(not isinstance(state, Stopped) for state in self._owner.fleet.slots.values()):
            await self._owner.published.changed(generation)
            generation = self._owner.published.generation

    async def _force_when_asked(self) -> None:
        await self._signals.forced.wait()
        await self._owner.ask(DownRequested(force=True))


async def reap_regularly() -> None:
    """Reap dead grandchildren that were re-parented to us, for ever: uvloop keeps SIGCHLD to itself."""
    while True:
        await sleep_until_tick(REAP_EVERY_S)
        try:
            reap_adopted()
        except OSError as error:  # no descriptor left to read /proc with, say; they can wait for the next time
            _log.warning("dead grandchildren are not reaped: %s", error)
