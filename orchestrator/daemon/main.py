"""`orch serve`: takes the lock, opens the sockets, starts the owner, and takes everything down again in order.

Who ends the daemon: TERM or INT (running requests may end first), a second one (at once), `orch down`. HUP reads the
profiles anew and checks `orch.toml`, as `orch reload` does; where the daemon has a terminal, it says that the terminal
is gone, and ends the daemon.

Exit codes (`cli/diagnostics.py`), for a unit's `RestartPreventExitStatus=2 5`:

    0  ended as it was told
    1  it could not start or go on: a port that is taken, a core task that died. Starting again may help
    2  the configuration, the command line, the key file or a socket that was handed over is wrong
    5  another daemon has the lock of this state directory
"""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import signal
from dataclasses import dataclass

import anyio
import anyio.to_thread
import uvloop
from anyio.abc import TaskGroup

from orchestrator.adapters.cgroup import EngineGroups, take_over
from orchestrator.adapters.config_file import load_config
from orchestrator.adapters.gpu_sources import open_gpus
from orchestrator.adapters.guard import Guard, home_id, sweep_leftovers
from orchestrator.adapters.hardening import check_privilege, dump_no_core, raise_descriptor_limit
from orchestrator.adapters.http1 import HttpServer
from orchestrator.adapters.http1 import Limits as HttpLimits
from orchestrator.adapters.key_file import read_keys
from orchestrator.adapters.linux import become_subreaper, check_platform
from orchestrator.adapters.listen_fds import Passed, adopt_sockets
from orchestrator.adapters.lock import DaemonLock
from orchestrator.adapters.log_file import LogFile
from orchestrator.adapters.log_store import InstanceLog
from orchestrator.adapters.paths import Paths, find_paths, make_directories
from orchestrator.adapters.reaper import reap_adopted
from orchestrator.adapters.state_file import load_state, save_state, sweep_temporaries
from orchestrator.adapters.systemd_notify import Notifier, take_variables
from orchestrator.api.frames import Point
from orchestrator.core.config import Config, is_loopback
from orchestrator.core.demand import DemandPolicy
from orchestrator.core.errors import OrchError, UsageError
from orchestrator.core.liveness import LivenessPolicy
from orchestrator.core.samples import Sample
from orchestrator.core.states import Stopped, Target, describe
from orchestrator.core.switching import DownRequested, SwitchFinished, UpRequested
from orchestrator.daemon import own_log
from orchestrator.daemon.control import Control
from orchestrator.daemon.demand import DemandScheduler
from orchestrator.daemon.exporter import Exporter
from orchestrator.daemon.frame import Frames
from orchestrator.daemon.heartbeat import END_WITHIN_S, CoreTaskDied, CoreTasks, Heartbeat, end_within
from orchestrator.daemon.history import History
from orchestrator.daemon.journal import Journal
from orchestrator.daemon.manager_link import ManagerLink
from orchestrator.daemon.owner import Owner, fresh_slot
from orchestrator.daemon.performing import EnginePerformer, Limits
from orchestrator.daemon.preparing import Preparer
from orchestrator.daemon.service import Service
from orchestrator.daemon.slowdown import LOOK_S, SlowdownWatch
from orchestrator.daemon.sockets import Listeners, open_listeners, url_of
from orchestrator.daemon.switcher import Switcher
from orchestrator.daemon.targets import list_targets
from orchestrator.daemon.telemetry import Telemetry
from orchestrator.daemon.totals import Totals
from orchestrator.daemon.watching import Watcher
from orchestrator.engines import probe_cache
from orchestrator.gateway.config import GatewayConfig
from orchestrator.gateway.server import Gateway

_log = logging.getLogger(__name__)

UNKILLABLE_ALLOWANCE_S = 10.0
HEARD_S = 0.25
"""For clients that were let in just before the daemon was told to end, to say what they want."""

REAP_EVERY_S = 1.0
CONTROL_CONNECTIONS = 64
RESERVED_DESCRIPTORS = CONTROL_CONNECTIONS + 96
"""Not for clients of the gateway: the control API's, and for files, pipes, probes and /proc."""


@dataclass(frozen=True, slots=True)
class Options:
    """How the daemon was started.

    :param profile: start this at once instead of what ran before
    :param started_by_up: it ends with the engine
    """

    profile: str | None = None
    engine: str | None = None
    started_by_up: bool = False


def serve(options: Options) -> int:
    """Run the daemon until it is told to end.

    :raises OrchError: when it cannot start; nothing is left behind then
    """
    own_log.configure()
    handed = take_variables(os.environ, os.getpid())
    check_platform()
    dump_no_core()
    descriptors = raise_descriptor_limit()
    paths = find_paths()
    make_directories(paths)
    config = load_config(paths)
    check_privilege(handed.unit, allow_root=config.daemon.allow_root)
    passed = adopt_sockets(*handed.sockets) if handed.sockets is not None else Passed()
    lock = DaemonLock(paths.lock_file)
    lock.acquire(unit=handed.unit)
    try:
        listeners = open_listeners(config.gateway.host, config.gateway.port, paths.control_socket, passed)
        with contextlib.closing(listeners), contextlib.closing(Notifier(handed.notify_socket)) as notifier:
            settings = gateway_config(config, descriptors, listeners.hosts)
            sweep_temporaries(paths.config, paths.profiles, paths.state, paths.data, probe_cache.directory(paths))
            become_subreaper()
            leftovers = sweep_leftovers(home_id(paths.state))
            if leftovers:
                _log.warning("ended %d processes that an earlier daemon left", len(leftovers))

            groups = take_engine_groups(config.daemon.engine_memory_max_mib)
            daemon = Daemon(paths, config, options, settings, groups, notifier, handed.watchdog_s)
            run_to_end(daemon, listeners)
    finally:
        lock.release()

    return 0


def run_to_end(daemon: Daemon, listeners: Listeners) -> None:
    """
    :raises OrchError: when it did not start as it was asked to, or a task that it cannot do without has died
    """
    try:
        uvloop.run(daemon.run(listeners))
    except BaseExceptionGroup as group:
        if group.subgroup(CoreTaskDied) is None:
            raise

        raise OrchError("a part of the daemon died; its traceback is above", hint="please report it") from None

    if daemon.start_failure is not None:
        raise daemon.start_failure


class Daemon:
    """Wires the parts together and owns their lifetimes.

    :param watchdog_s: the service manager wants to hear from it so often; None when it does not
    :ivar start_failure: why it ended before it was ready, where ready means that a model is
    """

    def __init__(
        self,
        paths: Paths,
        config: Config,
        options: Options,
        settings: GatewayConfig,
        groups: EngineGroups,
        notifier: Notifier,
        watchdog_s: float | None,
    ) -> None:
        self._groups = groups
        self._paths = paths
        self._settings = settings
        self._notifier = notifier
        self._watchdog_s = watchdog_s
        self._in_terminal = has_terminal()
        self._config = config
        self._options = options
        self._remembered, notice = load_state(paths.state_file)
        if notice:
            _log.warning("%s", notice)

        self._journal = Journal(os.path.join(paths.state, "events.jsonl"))
        self._gpus = open_gpus(os.environ)
        self._preparer = Preparer(paths, self._gpus)
        self._owner = Owner(self._journal, self._switched, config.restart)
        self._gateway: Gateway | None = None
        self._switcher = Switcher(self._owner, self._preparer, self._gpus, self._held)
        self._log = InstanceLog(
            LogFile(os.path.join(paths.logs, "engine.log"), max_bytes=config.daemon.log_max_mib << 20)
        )
        self._history = History(paths.history_file)
        self._totals = Totals()
        self._ending = anyio.Event()
        self._forced = anyio.Event()
        self._hung_up = anyio.Event()
        self._refused: OrchError | None = None
        self.start_failure: OrchError | None = None

    async def run(self, listeners: Listeners) -> None:
        guard = Guard(secrets.token_hex(16), home_id(self._paths.state), on_death=self._guard_died)
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
                await anyio.to_thread.run_sync(self._history.close)

        self._journal.add("ended", f"daemon {os.getpid()}")

    async def _serve(self, listeners: Listeners, tasks: TaskGroup, guard: Guard) -> None:
        core = CoreTasks(tasks)
        service = self._build(tasks, core, guard)
        gateway = Gateway(self._settings, service)
        self._gateway = service.gateway = gateway
        service.gateway_url = url_of(listeners.gateway[0])
        link = ManagerLink(self._notifier, self._owner, service)
        self._serve_on_request(core, service, gateway)
        core.start("watcher", self._watcher(service, gateway).run)
        core.start("slowdown watch", self._slowdown(service, gateway).run)
        limits = HttpLimits(idle_timeout_s=600.0, connections=CONTROL_CONNECTIONS)
        api = self._control(tasks, service)
        control = HttpServer(api.handle, limits, uids={0, os.geteuid()})
        await service.refresh_models()
        await anyio.to_thread.run_sync(self._history.open)
        core.start("state file", self._save_wanted)
        core.start("signals", self._heed_signals)
        core.start("reaper", reap_regularly)
        core.start("profiles", service.watch_profiles)
        core.start("reload", lambda: self._reload_when_told(api, link))
        await control.serve(listeners.control)
        _log.info("the gateway listens on %s", service.gateway_url)
        self._journal.add("started", f"daemon {os.getpid()}, gateway {service.gateway_url}")
        # Before the first client: one that waited for this daemon to come up shall wait for the model too.
        await self._start_first()
        await gateway.start(listeners.gateway)
        core.start("gateway", gateway.run)
        if link.connected:
            core.start("status line", link.follow)
            tasks.start_soon(self._announce, link)
            if self._watchdog_s is not None:
                prove = self._owner.prove
                core.start("heartbeat", Heartbeat(prove, core, link.ping, self._watchdog_s).run)

        await self._ending.wait()
        link.stopping()
        async with link.more_time():
            await self._take_down(service, gateway)
            await control.shutdown(1.0)

    def _build(self, tasks: TaskGroup, core: CoreTasks, guard: Guard) -> Service:
        config = self._config
        times = config.daemon
        limits = Limits(times.stop_grace_s, times.drain_s, times.load_stall_s, times.stall_s)

        async def drain(instance: str, timeout_s: float) -> bool:
            return self._gateway is None or await self._gateway.wait_idle(instance, timeout_s)

        performer = EnginePerformer(
            tasks,
            self._owner.post,
            self._owner.ask,
            self._preparer,
            self._log,
            guard,
            limits,
            drain,
            self._gpus,
            self._groups,
            self._journal.add,
            lambda: service.refresh(),
        )
        service = Service(self._paths, self._owner, self._preparer, performer, self._gpus, self._history, self._totals)
        core.start("owner", lambda: self._owner.run(performer))
        return service

    def _guard_died(self) -> None:
        _log.error("the guard process died and is started again")
        self._journal.add("guard_died", "the guard process died and is started again")

    def _serve_on_request(self, core: CoreTasks, service: Service, gateway: Gateway) -> None:
        settings = self._config.gateway
        policy = DemandPolicy(settings.switch_min_stay_s, settings.switch_patience_s)
        scheduler = DemandScheduler(self._owner, service, self._switcher, self._preparer, gateway, policy)
        service.on_request = settings.switch_on_request
        service.on_demand = scheduler.ask
        core.start("demand", scheduler.run)

    def _watcher(self, service: Service, gateway: Gateway) -> Watcher:
        every_s = self._config.daemon.probe_s
        policy = LivenessPolicy(every_s, min(max(every_s / 2, 1.0), 5.0), self._config.daemon.stall_s)
        return Watcher(self._owner, service.performer, gateway, policy, service.unroute, self._journal.add)

    def _slowdown(self, service: Service, gateway: Gateway) -> SlowdownWatch:
        look_s = min(LOOK_S, self._config.daemon.probe_s)
        record, refresh = self._journal.add, service.refresh
        watch = SlowdownWatch(self._owner, service.performer, gateway, self._gpus.read, record, refresh, look_s)
        service.on_finished, service.notice_of = watch.finished, watch.notice
        return watch

    def _held(self) -> int:
        return self._gateway.held_total if self._gateway is not None else 0

    def _control(self, tasks: TaskGroup, service: Service) -> Control:
        return Control(
            tasks,
            self._owner,
            service,
            self._switcher,
            self._preparer,
            self._journal,
            self._log,
            fallback=self._fallback,
            targets=lambda running: list_targets(self._paths, running),
            drain_s=self._config.daemon.drain_s,
            frame=self._frames(tasks, service).frame,
            check_config=lambda: load_config(self._paths),
            end=self._ending.set,
            ends_with_engine=self._options.started_by_up,
        )

    def _frames(self, tasks: TaskGroup, service: Service) -> Frames:
        assert service.gateway is not None
        telemetry = Telemetry(self._paths, self._owner, service.performer, service.gateway, self._gpus, self._keep)
        service.metrics_page = Exporter(self._owner, service, telemetry, self._totals, self._history).page
        tasks.start_soon(telemetry.run)
        return Frames(self._owner, service, telemetry, self._journal)

    def _keep(self, point: Point) -> None:
        used = tuple(point["used_mib"])
        self._history.add_sample(Sample(int(point["at_s"]), point["decode_tok_s"], point["prompt_tok_s"], used))

    def _switched(self, event: SwitchFinished) -> None:
        self._totals.switched(event)
        self._switcher.finished(event)

    def _fallback(self) -> Target | None:
        """What to run when nobody says: what ran last, else the configured default."""
        last = remembered_target(self._remembered.get("last"))
        if last is not None:
            return last

        name = self._config.daemon.default_profile
        return self._preparer.resolve(name, None).target if name else None

    async def _start_first(self) -> None:
        """What was asked for on the command line, else what ran when the daemon died, else the configured default."""
        options = self._options
        wanted = remembered_target(self._remembered.get("wanted"))
        name, engine = options.profile, options.engine
        if name is None:
            if options.started_by_up:
                return  # the request follows

            if wanted is not None:
                name, engine = wanted.profile, wanted.engine
            else:
                name = self._config.daemon.default_profile or None

        if name is None:
            return

        try:
            resolved = await anyio.to_thread.run_sync(self._preparer.resolve, name, engine)
        except OrchError as error:
            # The gateway stays up and says so: a service that exits here would only be restarted into the same wall.
            _log.error("%s: %s", error.message, "; ".join(error.details))
            self._journal.add("refused", error.message)
            self._refused = error
            return

        await self._owner.ask(UpRequested(resolved.target, fresh_slot()))

    async def _announce(self, link: ManagerLink) -> None:
        """Tell the service manager that the daemon is ready, as `daemon.ready_when` has it."""
        failed = self._refused
        if self._config.daemon.ready_when == "model":
            if failed is None and (failure := await link.until_loaded()) is not None:
                failed = OrchError(describe(failure), hint=failure.hint)

            if failed is not None:
                text = f'{failed.message} (`daemon.ready_when` is "model")'
                self.start_failure = OrchError(text, details=failed.details, hint=failed.hint)
                self._ending.set()
                return

        link.ready()
        if failed is not None:
            link.remark(failed.message)

    async def _reload_when_told(self, api: Control, link: ManagerLink) -> None:
        """What HUP asks for; many of them while one is under way are one more."""
        while True:
            await self._hung_up.wait()
            self._hung_up = anyio.Event()
            link.reloading()
            remark = ""
            try:
                await api.reload()
            except (OrchError, OSError) as error:
                text = "; ".join((error.message, *error.details)) if isinstance(error, OrchError) else str(error)
                remark = f"reload failed, what was read before stays: {text}"
                _log.error("%s", remark)

            self._journal.add("reload_failed" if remark else "reloaded", remark or "the profiles were read anew")
            link.reloaded(remark)

    async def _save_wanted(self) -> None:
        """Remember what is to run, each time that changes."""
        generation = 0
        saved: Target | None = None
        first = True
        while True:
            published = await self._owner.published.changed(generation)
            generation = self._owner.published.generation
            wanted = published.world.wanted
            if wanted == saved and not first:
                continue

            saved, first = wanted, False
            if wanted is not None:
                self._remembered["last"] = {"profile": wanted.profile, "engine": wanted.engine}

            self._remembered["wanted"] = self._remembered.get("last") if wanted is not None else None
            try:
                await anyio.to_thread.run_sync(save_state, self._paths.state_file, dict(self._remembered))
            except OSError as error:
                _log.warning("state not saved: %s", error)

    async def _heed_signals(self) -> None:
        with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT, signal.SIGHUP) as signals:
            async for number in signals:
                if number == signal.SIGHUP and not self._in_terminal:
                    self._hung_up.set()
                elif self._ending.is_set():
                    _log.warning("%s again: ending at once", signal.Signals(number).name)
                    self._forced.set()
                else:
                    _log.info("%s: running requests may end; once more ends at once", signal.Signals(number).name)
                    self._ending.set()

    async def _take_down(self, service: Service, gateway: Gateway) -> None:
        await gateway.stop_listening(HEARD_S)
        service.close()
        gateway.stop_accepting()
        self._switcher.abandon()
        # Asked for by the service manager, not by a person: what is wanted stays wanted for the next start.
        wanted = self._owner.world.wanted
        await self._owner.ask(DownRequested())
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._force_when_asked)
            limit_s = self._config.daemon.drain_s + self._config.daemon.stop_grace_s + UNKILLABLE_ALLOWANCE_S
            with anyio.move_on_after(limit_s):
                await self._until_stopped()

            tasks.cancel_scope.cancel()

        await gateway.stop(0.5)
        if wanted is not None and not self._options.started_by_up:
            self._remembered["wanted"] = {"profile": wanted.profile, "engine": wanted.engine}
            save_state(self._paths.state_file, dict(self._remembered))

    async def _until_stopped(self) -> None:
        generation = 0
        while any(not isinstance(state, Stopped) for state in self._owner.world.slots.values()):
            await self._owner.published.changed(generation)
            generation = self._owner.published.generation

    async def _force_when_asked(self) -> None:
        await self._forced.wait()
        await self._owner.ask(DownRequested(force=True))


def take_engine_groups(memory_max_mib: int) -> EngineGroups:
    groups = take_over(memory_max_mib)
    if groups.root is not None:
        _log.info("engines get control groups of their own, below %s", groups.root)

    if memory_max_mib and not groups.can_limit:
        _log.warning(
            "daemon.engine_memory_max_mib is not in force: no control group with a memory controller was given to this "
            "daemon; run it as a systemd service with Delegate=yes (`orch service install`)"
        )

    return groups


async def reap_regularly() -> None:
    """Take leave of dead grandchildren that became ours: uvloop keeps SIGCHLD to itself."""
    while True:
        await anyio.sleep(REAP_EVERY_S)
        try:
            reap_adopted()
        except OSError as error:  # no descriptor left to read /proc with, say; they can wait for the next time
            _log.warning("dead grandchildren are not reaped: %s", error)


def remembered_target(value: object) -> Target | None:
    """A target as the state file keeps it; None for anything else, since anyone may have written there."""
    match value:
        case {"profile": str(profile), "engine": str(engine)}:
            return Target(profile, engine)
        case _:
            return None


def has_terminal() -> bool:
    """Whether this process has a terminal that could hang up."""
    try:
        os.close(os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY | os.O_CLOEXEC))
    except OSError:
        return False

    return True


def gateway_config(config: Config, descriptors: int, hosts: tuple[str, ...]) -> GatewayConfig:
    """
    :param descriptors: that this process may have; each client takes one, and one for its engine
    :param hosts: that it listens on, the one that can be reached from farthest first
    :raises UsageError: when there is no key where one is needed, or the key file is wrong
    """
    if not config.gateway.api_key_file and not is_loopback(hosts[0]):
        raise UsageError(
            f"the gateway was handed a socket on {hosts[0]}, which other machines can reach, and has no key",
            details=("needed: `gateway.api_key_file`, or the credential `orch-api-keys`",),
            hint="in the socket unit, `ListenStream=127.0.0.1:8080` is for this machine alone",
        )

    gateway = config.gateway
    connections = min(HttpLimits().connections, max((descriptors - RESERVED_DESCRIPTORS) // 2, 1))
    return GatewayConfig(
        host=hosts[0],
        port=gateway.port,
        api_keys=read_keys(gateway.api_key_file, os.environ.get("CREDENTIALS_DIRECTORY")),
        allowed_hosts=(*gateway.allowed_hosts, *hosts[1:]),
        max_queued=gateway.max_queued,
        replay_bytes=gateway.replay_max_mib << 20,
        quarantine_s=gateway.quarantine_s,
        hold_timeout_s=gateway.hold_timeout_s,
        limits=HttpLimits(
            header_timeout_s=gateway.header_timeout_s,
            body_bytes=gateway.max_body_mib << 20,
            connections=connections,
        ),
    )
