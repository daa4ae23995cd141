"""The checks before a service is installed, and the units for it. Nothing is changed here."""

from __future__ import annotations

import os
from collections.abc import Sequence

from orchestrator.adapters.config.config_file import load_config
from orchestrator.adapters.config.profile_files import ProfileStore
from orchestrator.adapters.paths import Paths, find_paths
from orchestrator.adapters.process.ports import can_listen
from orchestrator.adapters.store.lock import read_holder
from orchestrator.adapters.systemd.machine import (
    LEAST_SYSTEMD,
    carried_environment,
    closed_to_others,
    installation_places,
    memlock_limit_mib,
    missing_groups,
    read_template,
    system_paths,
    systemd_version,
    this_orch,
    user_lingers,
    user_name,
)
from orchestrator.adapters.systemd.steps import Tools
from orchestrator.core.config import GatewayConfig
from orchestrator.core.errors import OrchError, UsageError
from orchestrator.core.profile.profile import is_name
from orchestrator.core.setup.service_plan import ServiceHost
from orchestrator.core.setup.service_unit import (
    CREDENTIAL,
    SERVICE,
    SOCKET,
    TIMER,
    WATCH,
    UnitFacts,
    is_program,
    render,
)
from orchestrator.engines.model_file import model_file

HOMES = ("/home/", "/root/", "/run/user/")
"""The directories that ProtectHome hides."""

TEMPORARY = ("/tmp/", "/var/tmp/")
"""The directories that PrivateTmp hides."""


def prepare_units(
    machine: ServiceHost, tools: Tools, profiles: Sequence[str], *, socket: bool, watch: bool = False
) -> tuple[dict[str, str], list[str], tuple[str, ...]]:
    """Return the units for this machine, by name; warnings for people; the words that run this installation.

    :param profiles: the one of the first start, and those that are loaded beside it at each start
    :raises OrchError: when the service could not start as things are
    """
    version = systemd_version(tools)
    paths = _below(system_paths(), machine) if machine.flavour == "system" else find_paths()
    environment = carried_environment(machine.flavour)
    has_keys = False
    if machine.flavour == "system":
        has_keys = os.path.exists(os.path.join(paths.config, CREDENTIAL))

    # Root's file, which systemd reads for the daemon: it need not be readable for the service.
    handed_over = {"CREDENTIALS_DIRECTORY": paths.config} if has_keys else {}
    config = load_config(paths, {**environment, **handed_over})
    profile, preload = "".join(profiles[:1]), tuple(profiles[1:])
    model = _first_model(paths, profile or config.daemon.default_profile)
    others = [_first_model(paths, name) for name in preload]
    orch = this_orch()
    if not is_program(orch[0]):
        raise OrchError(
            "systemd takes no program with a quote, a backslash or a control character in its path",
            details=(ascii(orch[0])[1:-1],),
            hint="install orch elsewhere",
        )

    if not machine.offline:
        tools.run((*orch, "--version"), 20)
        refuse_another_daemon(paths, machine)
        _refuse_taken_port(config.gateway, machine)

    if socket and config.gateway.port == 0:
        raise UsageError("a socket unit needs a port of its own", hint="set `gateway.port` in orch.toml")

    warnings = []
    if version < LEAST_SYSTEMD:
        warnings.append(f"systemd {version} is older than {LEAST_SYSTEMD}, the oldest that this was tried with")

    models = _model_paths(paths, model) | set(filter(None, others))
    facts = UnitFacts(
        flavour=machine.flavour,
        orch=orch,
        systemd=version,
        config=config,
        profile=profile,
        preload=preload,
        environment=environment,
        socket=socket,
        key_file=os.path.join(system_paths().config, CREDENTIAL) if has_keys else "",
        reads_homes=any(_within(place, HOMES) for place in (*installation_places(), *models)),
    )
    if machine.flavour == "user":
        warnings += _user_warnings(tools)
    elif not machine.offline:  # what an image holds when it runs cannot be seen from here
        warnings += _system_warnings(model)

    for name, path in zip((profile or config.daemon.default_profile, *preload), (model, *others), strict=True):
        if path and not machine.offline and not os.path.exists(path):
            warnings.append(f"the model of `{name}` is not there: {path}")

    names = (SERVICE, *((SOCKET,) if socket else ()), *((WATCH, TIMER) if watch else ()))
    return {name: render(read_template(machine.flavour, name), facts) for name in names}, warnings, orch


def _below(paths: Paths, machine: ServiceHost) -> Paths:
    return Paths(*(machine.below(path) for path in (*paths.directories, paths.logs)))


def _first_model(paths: Paths, profile: str) -> str | None:
    """Return the path of the model that will be started first; None for none, or for one that orch makes.

    :raises OrchError: when the profile cannot be started
    """
    if not profile:
        return None

    if not is_name(profile):
        raise UsageError(
            f"`{profile}` is not the name of a profile",
            hint=f"a service finds profiles by name: put the file into {paths.profiles}",
        )

    model = model_file(paths, ProfileStore(paths).load(profile).model)
    return None if model.generated else model.path


def _model_paths(paths: Paths, first: str | None) -> set[str]:
    """Return the paths of all models that may run: the first one's, and those of the user's own profiles."""
    profiles, _ = ProfileStore(paths).load_all()
    mine = [model_file(paths, each.model) for each in profiles if os.path.dirname(each.file) == paths.profiles]
    return {each.path for each in mine if not each.generated} | ({first} if first else set())


def refuse_another_daemon(paths: Paths, machine: ServiceHost) -> None:
    """:raises OrchError: when a daemon uses these directories, and it is not the service"""
    if SERVICE in machine.active:
        return

    running = read_holder(paths.lock_file)
    if running is not None:
        raise OrchError(
            f"a daemon that is no service runs already: pid {running.get('pid', 'unknown')}",
            details=(paths.lock_file,),
            hint="end it first: `orch down --all`",
        )


def _refuse_taken_port(gateway: GatewayConfig, machine: ServiceHost) -> None:
    """:raises OrchError: when the service could not listen; one that is there already is what listens"""
    if not machine.active and gateway.port and not can_listen(gateway.host, gateway.port):
        raise OrchError(
            f"the gateway could not listen on {gateway.host}:{gateway.port}: it is taken",
            hint="stop what listens there (`orch doctor` names it), or set `gateway.port` in orch.toml",
        )


def _user_warnings(tools: Tools) -> list[str]:
    warnings = []
    if os.geteuid() == 0:
        warnings.append("engines will run as root: `--system` gives them a user of their own")

    if user_lingers(tools) is False:
        warnings.append("the service ends when you log out, and starts when you log in: `loginctl enable-linger`")

    missing = missing_groups()
    if missing:
        warnings.append(
            f"you are not in {' and '.join(missing)}, which may own the GPU's device nodes: "
            f"`sudo usermod -aG {','.join(missing)} {user_name()}`, then log in anew"
        )

    limit = memlock_limit_mib()
    if limit is not None:
        warnings.append(f"you may lock {limit} MiB of memory: a profile with memory.mlock needs a higher hard limit")

    return warnings


def _system_warnings(model: str | None) -> list[str]:
    """:raises OrchError: when the service could not see this installation, or its user not read it"""
    for place in installation_places():
        if _within(place, TEMPORARY):
            raise OrchError(
                "a service does not see what lies in a temporary directory",
                details=(place,),
                hint=_INSTALL_FOR_ALL,
            )

        closed = closed_to_others(place)
        if closed is not None:
            raise OrchError(
                "the user `orch` may not read this installation",
                details=(f"{place}: {closed} is closed to other users",),
                hint=_INSTALL_FOR_ALL,
            )

    if model is None:
        return []

    if _within(model, TEMPORARY):
        raise OrchError("a service does not see what lies in a temporary directory", details=(model,))

    closed = closed_to_others(model) if os.path.exists(model) else None
    if closed is None:
        return []

    return [
        f"the user `orch` may not read {model}: {closed} is closed to other users; /srv or {_MODELS} are open to it"
    ]


_MODELS = "/var/lib/orch/models"
_INSTALL_FOR_ALL = (
    "install it for everybody: `sudo python3 -m venv /opt/orch && sudo /opt/orch/bin/pip install llama-orch`"
)


def _within(path: str, directories: tuple[str, ...]) -> bool:
    return os.path.realpath(path).startswith(directories) or path.startswith(directories)
