"""The machine as a service meets it: systemd and its version, our units, users, limits, directories."""

from __future__ import annotations

import os
import pwd
import re
import resource
import stat
import sys

from orchestrator.adapters.paths import PACKAGE, SERVICE_DIRECTORIES, Paths, find_paths, packaged_directory
from orchestrator.adapters.systemd.steps import Tools
from orchestrator.adapters.systemd.user_database import groups_of, has_group, user_home
from orchestrator.core.errors import OrchError
from orchestrator.core.setup.service_plan import GROUPS, HOME, PRIVATE_DIRECTORIES, USER, ServiceHost
from orchestrator.core.setup.service_unit import SERVICE, SOCKET, TIMER, WATCH, Flavour

UNITS: tuple[str, ...] = (SERVICE, SOCKET, WATCH, TIMER)
SYSTEM_DIRECTORY = "/etc/systemd/system"
LEAST_SYSTEMD = 252
"""Debian 12. Older ones may work; nobody has tried."""

CARRIED = re.compile(r"ORCH_(HOME|GATEWAY_HOST|GATEWAY_PORT|ENGINE_\w+)|XDG_(CONFIG|STATE|DATA|CACHE)_HOME")
"""Variables that say where orch finds things: the service has to see what this user's commands see."""


def read_template(flavour: Flavour, name: str) -> str:
    """Return the template of a unit."""
    with open(os.path.join(packaged_directory("systemd"), flavour, name), encoding="utf-8") as file:
        return file.read()


def this_orch() -> tuple[str, ...]:
    """Return the words that run this installation from anywhere."""
    # Not the real path of the interpreter: beside a virtual environment's are that environment's programs.
    script = os.path.join(os.path.dirname(sys.executable), "orch")
    return (script,) if os.access(script, os.X_OK) else (sys.executable, "-m", "orchestrator")


def installation_places() -> tuple[str, ...]:
    """Return the directories and programs that a service needs to see to run this installation."""
    return tuple(dict.fromkeys((this_orch()[0], os.path.realpath(sys.executable), sys.prefix, PACKAGE)))


def system_paths() -> Paths:
    """Return the directories of the system service; `find_paths` finds them for the service user."""
    return find_paths(dict(SERVICE_DIRECTORIES))


def check_systemd(flavour: Flavour, tools: Tools) -> None:
    """Check that a systemd answers that could run the service.

    :raises OrchError: when none does
    """
    try:
        system = tools.attempt(("systemctl", "is-system-running")).stdout.strip()
    except OrchError:  # there is no systemctl
        system = "offline"

    if system in ("offline", ""):
        raise OrchError(
            "systemd does not run here",
            hint="in a container, run `orch serve` itself and let the container's manager restart it",
        )

    if flavour == "user":
        done = tools.attempt(("systemctl", "--user", "is-system-running"))
        if done.stdout.strip() in ("offline", ""):
            raise OrchError(
                "this shell has no user session: the user's systemd does not answer",
                details=(*done.stderr.splitlines()[:3], "`su` and `sudo -u` begin no session"),
                hint=f"log in as that user, or `export XDG_RUNTIME_DIR=/run/user/{os.geteuid()}` if it lingers",
            )


def systemd_version(tools: Tools) -> int:
    """Return the version of systemd.

    :raises OrchError: when there is none
    """
    match = re.match(r"systemd (\d+)", tools.run(("systemctl", "--version"), 10))
    if match is None:
        raise OrchError("`systemctl --version` gave an answer that is not one")

    return int(match[1])


def inspect_host(flavour: Flavour, tools: Tools, root: str = "/") -> ServiceHost:
    """Return the machine as it is.

    :raises OrchError: when systemd does not answer
    """
    directory = SYSTEM_DIRECTORY if flavour == "system" else user_unit_directory()
    bare = ServiceHost(flavour, directory, root)
    units: dict[str, str] = {}
    for name in UNITS:
        try:
            with open(bare.unit(name), encoding="utf-8", errors="replace") as file:
                units[bare.unit(name)] = file.read()
        except FileNotFoundError:
            continue

    installed = [name for name in UNITS if bare.unit(name) in units]
    enabled = tuple(name for name in installed if _answers(tools, bare, "is-enabled", name, "enabled"))
    active = tuple(
        name
        for name in installed
        if root == "/" and _answers(tools, bare, "is-active", name, "active", "activating", "reloading")
    )
    failed = tuple(name for name in installed if root == "/" and _answers(tools, bare, "is-active", name, "failed"))
    if flavour == "user":
        return ServiceHost(flavour, directory, root, units, enabled, active, failed)

    home = user_home(USER, root)
    if home not in (None, HOME):
        raise OrchError(
            f"there is a user `{USER}` who is not the service's",
            details=(f"home directory {home}, expected {HOME}",),
            hint="rename that user, or use `orch service install --user`",
        )

    return ServiceHost(
        flavour,
        directory,
        root,
        units,
        enabled,
        active,
        failed,
        existing=frozenset(path for path in PRIVATE_DIRECTORIES if _has_own_owner(bare.below(path))),
        user=home is not None,
        group=has_group(USER, root),
        member=groups_of(USER, root),
        groups=tuple(group for group in GROUPS if has_group(group, root)),
    )


def user_unit_directory() -> str:
    """Return the directory of a user's own units (systemd.unit(5))."""
    base = os.environ.get("XDG_CONFIG_HOME", "")
    return os.path.join(base if os.path.isabs(base) else os.path.expanduser("~/.config"), "systemd", "user")


def carried_environment(flavour: Flavour) -> dict[str, str]:
    """Return the variables that a unit sets. The system's directories are its own, wherever root's commands look."""
    names = [name for name in sorted(os.environ) if CARRIED.fullmatch(name) and os.environ[name]]
    return {name: os.environ[name] for name in names if flavour == "user" or name.startswith(("ORCH_G", "ORCH_E"))}


def manager_environment(flavour: Flavour, tools: Tools) -> dict[str, str]:
    """Return the service manager's variables that say where programs and files are."""
    user = ("--user",) if flavour == "user" else ()
    lines = tools.attempt(("systemctl", *user, "show-environment")).stdout.splitlines()
    found = dict(line.split("=", 1) for line in lines if "=" in line)
    names = ("PATH", "HOME", "XDG_RUNTIME_DIR", "LD_LIBRARY_PATH")
    return {name: found[name] for name in names if name in found and not found[name].startswith("$'")}


def user_name() -> str:
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return str(os.geteuid())


def user_lingers(tools: Tools) -> bool | None:
    """Return whether this user's services run while nobody is logged in; None when logind does not say."""
    try:
        done = tools.attempt(("loginctl", "show-user", user_name(), "--property=Linger", "--value"))
    except OrchError:
        return None

    if done.returncode != 0:
        # logind knows a user without a session only if it lingers.
        return os.path.exists(f"/var/lib/systemd/linger/{user_name()}")

    return done.stdout.strip() == "yes"


def missing_groups() -> tuple[str, ...]:
    """Return the groups of this system's device nodes that this user is not in; none for root."""
    if os.geteuid() == 0:
        return ()

    mine = set(groups_of(user_name()))
    return tuple(group for group in GROUPS if has_group(group) and group not in mine)


def memlock_limit_mib() -> int | None:
    """Return the most memory that this user may lock, MiB; None for as much as there is."""
    hard = resource.getrlimit(resource.RLIMIT_MEMLOCK)[1]
    return None if hard == resource.RLIM_INFINITY else hard >> 20


def closed_to_others(path: str) -> str | None:
    """Return the first directory on the way to a file, or the file itself, that others may not enter or read."""
    place = os.path.sep
    for part in os.path.abspath(path).split(os.path.sep)[1:]:
        place = os.path.join(place, part)
        try:
            mode = os.stat(place).st_mode
        except OSError:
            return place

        if not mode & (0o001 if os.path.isdir(place) else 0o004):
            return place

    return None


def _has_own_owner(path: str) -> bool:
    """Return whether a directory is there that is not simply root's."""
    try:
        status = os.stat(path)
    except OSError:
        return False

    return stat.S_ISDIR(status.st_mode) and (status.st_uid, status.st_gid) != (0, 0)


def _answers(tools: Tools, machine: ServiceHost, question: str, name: str, *answers: str) -> bool:
    return tools.attempt(machine.systemctl(question, name)).stdout.strip() in answers
