"""`orch serve`: takes the lock, opens the sockets, starts the owner, and takes everything down again in order.

Who ends the daemon: TERM or INT (running requests may end first), a second one (at once), `orch down`.
"""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import signal
import socket
from dataclasses import dataclass

import anyio
import anyio.to_thread
import uvloop
from anyio.abc import TaskGroup

from orchestrator.adapters.cgroup import EngineGroups, take_over
from orchestrator.adapters.config_file import load_config
from orchestrator.adapters.gpu_sources import open_gpus
from orchestrator.adapters.guard import Guard, home_id, sweep_leftovers
from orchestrator.adapters.hardening import dump_no_core, raise_descriptor_limit
from orchestrator.adapters.http1 import HttpServer
from orchestrator.adapters.http1 import Limits as HttpLimits
from orchestrator.adapters.key_file import read_keys
from orchestrator.adapters.linux import become_subreaper, check_platform
from orchestrator.adapters.lock import DaemonLock
from orchestrator.adapters.log_file import LogFile
from orchestrator.adapters.log_store import InstanceLog
from orchestrator.adapters.paths import Paths, find_paths, make_directories
from orchestrator.adapters.reaper import reap_adopted
from orchestrator.adapters.state_file import load_state, save_state
from orchestrator.core.config import Config
from orchestrator.core.demand import DemandPolicy
from orchestrator.core.errors import OrchError
from orchestrator.core.liveness import LivenessPolicy
from orchestrator.core.states import Stopped, Target
from orchestrator.core.switching import DownRequested, UpRequested
from orchestrator.daemon import own_log
from orchestrator.daemon.control import Control
from orchestrator.daemon.demand import DemandScheduler
from orchestrator.daemon.frame import Frames
from orchestrator.daemon.history import History
from orchestrator.daemon.journal import Journal
from orchestrator.daemon.owner import Owner, fresh_slot
from orchestrator.daemon.performing import EnginePerformer, Limits
from orchestrator.daemon.preparing import Preparer
from orchestrator.daemon.service import Service
from orchestrator.daemon.sockets import bind_control, bind_gateway, url_of
from orchestrator.daemon.switcher import Switcher
from orchestrator.daemon.targets import list_targets
from orchestrator.daemon.telemetry import Telemetry
from orchestrator.daemon.watching import Watcher
from orchestrator.gateway.config import GatewayConfig
from orchestrator.gateway.server import Gateway

_log = logging.getLogger(__name__)

UNKILLABLE_ALLOWANCE_S = 10.0
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
    check_platform()
    dump_no_core()
    descriptors = raise_descriptor_limit()
    paths = find_paths()
    make_directories(paths)
    config = load_config(paths)
    lock = DaemonLock(paths.lock_file)
    lock.acquire()
    try:
        with contextlib.ExitStack() as stack:
            gateway_socket = stack.enter_context(bind_gateway(config.gateway.host, config.gateway.port))
            control_socket = stack.enter_context(bind_control(paths.control_socket))
            become_subreaper()
            leftovers = sweep_leftovers(home_id(paths.state))
            if leftovers:
                _log.warning("ended %d processes that an earlier daemon left", len(leftovers))

            groups = take_engine_groups(config.daemon.engine_memory_max_mib)
            daemon = Daemon(paths, config, options, descriptors, groups)
            uvloop.run(daemon.run(gateway_socket, control_socket))
            os.unlink(paths.control_socket)
    finally:
        lock.release()

    return 0


class Daemon:
    """Wires the parts together and owns their lifetimes."""

    def __init__(self, paths: Paths, config: Config, options: Options, descriptors: int, groups: EngineGroups) -> None:
        self._groups = groups
        self._paths = paths
        self._descriptors = descriptors
        self._config = config
        self._options = options
        self._remembered, notice = load_state(paths.state_file)
        if notice:
            _log.warning("%s", notice)

        self._journal = Journal(os.path.join(paths.state, "events.jsonl"))
        self._gpus = open_gpus(os.environ)
        self._preparer = Preparer(paths, self._gpus)
        self._owner = Owner(self._journal, lambda finished: self._switcher.finished(finished), config.restart)
        self._gateway: Gateway | None = None
        self._switcher = Switcher(self._owner, self._preparer, self._gpus, self._held)
        self._log = InstanceLog(
            LogFile(os.path.join(paths.logs, "engine.log"), max_bytes=config.daemon.log_max_mib << 20)
        )
        self._history = History(paths.history_file)
        self._ending = anyio.Event()
        self._forced = anyio.Event()

    async def run(self, gateway_socket: socket.socket, control_socket: socket.socket) -> None:
        guard = Guard(secrets.token_hex(16), home_id(self._paths.state), on_death=self._guard_died)
        await guard.start()
        try:
            async with anyio.create_task_group() as tasks:
                service = self._build(tasks, guard)
                gateway = Gateway(gateway_config(self._config, self._descriptors), service)
                self._gateway = service.gateway = gateway
                service.gateway_url = url_of(gateway_socket)
                self._serve_on_request(tasks, service, gateway)
                tasks.start_soon(self._watcher(service, gateway).run)
                limits = HttpLimits(idle_timeout_s=600.0, connections=CONTROL_CONNECTIONS)
                control = HttpServer(self._control(tasks, service).handle, limits, uids={0, os.geteuid()})
                await service.refresh_models()
                tasks.start_soon(self._save_wanted)
                tasks.start_soon(self._heed_signals)
                tasks.start_soon(reap_regularly)
                tasks.start_soon(service.watch_profiles)
                await gateway.start([gateway_socket])
                await control.serve(control_socket)
                _log.info("the gateway listens on %s", service.gateway_url)
                self._journal.add("started", f"daemon {os.getpid()}, gateway {service.gateway_url}")
                await self._start_first()
                await self._ending.wait()
                await self._take_down(service, gateway)
                await control.shutdown(1.0)
                tasks.cancel_scope.cancel()
        finally:
            with anyio.CancelScope(shield=True):
                await guard.close()
                await self._log.aclose()
                await anyio.to_thread.run_sync(self._history.close)

        self._journal.add("ended", f"daemon {os.getpid()}")

    def _build(self, tasks: TaskGroup, guard: Guard) -> Service:
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
        service = Service(self._paths, self._owner, self._preparer, performer, self._gpus, self._history)
        tasks.start_soon(self._owner.run, performer)
        return service

    def _guard_died(self) -> None:
        _log.error("the guard process died and is started again")
        self._journal.add("guard_died", "the guard process died and is started again")

    def _serve_on_request(self, tasks: TaskGroup, service: Service, gateway: Gateway) -> None:
        settings = self._config.gateway
        policy = DemandPolicy(settings.switch_min_stay_s, settings.switch_patience_s)
        scheduler = DemandScheduler(self._owner, service, self._switcher, self._preparer, gateway, policy)
        service.on_request = settings.switch_on_request
        service.on_demand = scheduler.ask
        tasks.start_soon(scheduler.run)

    def _watcher(self, service: Service, gateway: Gateway) -> Watcher:
        every_s = self._config.daemon.probe_s
        policy = LivenessPolicy(every_s, min(max(every_s / 2, 1.0), 5.0), self._config.daemon.stall_s)
        return Watcher(self._owner, service.performer, gateway, policy, service.unroute, self._journal.add)

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
            end=self._ending.set,
            ends_with_engine=self._options.started_by_up,
        )

    def _frames(self, tasks: TaskGroup, service: Service) -> Frames:
        assert service.gateway is not None
        telemetry = Telemetry(self._paths, self._owner, service.performer, service.gateway, self._gpus)
        tasks.start_soon(telemetry.run)
        return Frames(self._owner, service, telemetry, self._journal)

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
            return

        self._owner.post(UpRequested(resolved.target, fresh_slot()))

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
        with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
            async for number in signals:
                if self._ending.is_set():
                    _log.warning("%s again: ending at once", signal.Signals(number).name)
                    self._forced.set()
                else:
                    _log.info("%s: running requests may end; once more ends at once", signal.Signals(number).name)
                    self._ending.set()

    async def _take_down(self, service: Service, gateway: Gateway) -> None:
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


def gateway_config(config: Config, descriptors: int) -> GatewayConfig:
    """:param descriptors: that this process may have; each client takes one, and one for its engine"""
    gateway = config.gateway
    connections = min(HttpLimits().connections, max((descriptors - RESERVED_DESCRIPTORS) // 2, 1))
    return GatewayConfig(
        host=gateway.host,
        port=gateway.port,
        api_keys=read_keys(gateway.api_key_file),
        allowed_hosts=gateway.allowed_hosts,
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
