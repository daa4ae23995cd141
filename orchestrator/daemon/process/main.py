"""`orch serve` as a process: takes the lock, opens the sockets, runs the daemon, and leaves nothing behind.

It ends with 0 when it was told to, and else with the exit code of an error (`core/exit_codes.py`).
"""

from __future__ import annotations

import contextlib
import logging
import os
from dataclasses import asdict

import uvloop

from orchestrator.adapters.config.config_file import load_config
from orchestrator.adapters.config.key_file import read_keys
from orchestrator.adapters.http1 import HttpLimits as HttpLimits
from orchestrator.adapters.paths import find_paths, make_directories
from orchestrator.adapters.process.cgroup import EngineGroups, claim_engine_groups
from orchestrator.adapters.process.guard import home_id, sweep_leftovers
from orchestrator.adapters.process.hardening import check_privilege, dump_no_core, raise_descriptor_limit
from orchestrator.adapters.process.key_handover import sweep_keys
from orchestrator.adapters.process.linux import become_subreaper, check_platform, use_one_heap
from orchestrator.adapters.store.lock import DaemonLock
from orchestrator.adapters.store.state_file import sweep_temporaries
from orchestrator.adapters.systemd.listen_fds import Passed, adopt_sockets
from orchestrator.adapters.systemd.notify import Notifier, take_variables
from orchestrator.core import exit_codes
from orchestrator.core.addresses import is_loopback
from orchestrator.core.config import Config
from orchestrator.core.errors import OrchError, UsageError
from orchestrator.daemon.process import own_log
from orchestrator.daemon.process.daemon import CONTROL_CONNECTIONS, Daemon
from orchestrator.daemon.process.desired_target import StartOptions
from orchestrator.daemon.process.heartbeat import CoreTaskDied
from orchestrator.daemon.process.sockets import Listeners, open_listeners
from orchestrator.engines import probe_cache
from orchestrator.gateway.config import GatewayOptions

_log = logging.getLogger(__name__)

RESERVED_DESCRIPTORS = CONTROL_CONNECTIONS + 96
"""Not for clients of the gateway: the control API's, and for files, pipes, probes and /proc."""


def serve(options: StartOptions) -> int:
    """Run the daemon until it is told to end.

    :raises OrchError: when it cannot start; nothing is left behind then
    """
    own_log.configure()
    handed = take_variables(os.environ, os.getpid())
    check_platform()
    use_one_heap()
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
            settings = gateway_options(config, descriptors, listeners.hosts)
            sweep_temporaries(paths.config, paths.profiles, paths.state, paths.data, probe_cache.directory(paths))
            become_subreaper()
            leftovers = sweep_leftovers(home_id(paths.state))
            if leftovers:
                _log.warning("ended %d processes that an earlier daemon left", len(leftovers))

            keys = sweep_keys(paths.keys)
            if keys:
                _log.info("deleted %d key files that an earlier daemon left", keys)

            groups = take_engine_groups(config.daemon.engine_memory_max_mib)
            daemon = Daemon(paths, config, options, settings, groups, notifier, handed.watchdog_s)
            run_to_end(daemon, listeners)
    finally:
        lock.release()

    return exit_codes.OK


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


def take_engine_groups(memory_max_mib: int) -> EngineGroups:
    groups = claim_engine_groups(memory_max_mib)
    if groups.root is not None:
        _log.info("engines get control groups of their own, below %s", groups.root)

    if memory_max_mib and not groups.can_limit:
        _log.warning(
            "daemon.engine_memory_max_mib is not in force: no control group with a memory controller was given to this "
            "daemon; run it as a systemd service with Delegate=yes (`orch service install`)"
        )

    return groups


def gateway_options(config: Config, descriptors: int, hosts: tuple[str, ...]) -> GatewayOptions:
    """Return the options of the gateway.

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
    options = asdict(gateway) | {"host": hosts[0], "allowed_hosts": (*gateway.allowed_hosts, *hosts[1:])}
    return GatewayOptions(
        **options,
        api_keys=read_keys(gateway.api_key_file, os.environ.get("CREDENTIALS_DIRECTORY")),
        limits=HttpLimits(
            header_timeout_s=gateway.header_timeout_s,
            body_bytes=gateway.max_body_mib << 20,
            bodies_bytes=gateway.max_bodies_mib << 20,
            connections=connections,
        ),
    )
