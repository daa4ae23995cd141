"""The steps that install and remove the service. Pure: the machine as it is goes in, steps come out.

Each step knows how it is undone; `adapters/systemd/steps.py` performs them, and undoes all of them when one fails.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping
from dataclasses import dataclass

from orchestrator.core.setup.service_unit import SERVICE, SOCKET, TIMER, WATCH, Flavour

USER = "orch"
STARTED = (SOCKET, SERVICE, TIMER)
"""The units that are enabled and started, in this order; the timer starts the rest."""

GROUPS = ("video", "render")
"""The groups that may open /dev/dri/*, /dev/kfd and, on some distributions, /dev/nvidia*."""

HOME = "/var/lib/orch"
GECOS = "orch service"
NO_SHELL = "/usr/sbin/nologin"

PRIVATE_DIRECTORIES = ("/etc/orch", "/etc/orch/profiles", HOME, "/var/cache/orch", "/var/log/orch")
"""The system service's, all the service user's: `sudo -u orch orch profile new` writes there, the service may not."""


@dataclass(frozen=True, slots=True)
class MakeDirectory:
    """Make a directory, or take one over as it is: root has made it to put keys or profiles there."""

    path: str
    owner: str
    mode: int = 0o700

    def __str__(self) -> str:
        return f"make {self.path}, for {self.owner} alone"


@dataclass(frozen=True, slots=True)
class WriteFile:
    path: str
    text: str
    mode: int = 0o644

    def __str__(self) -> str:
        return f"write {self.path}"


@dataclass(frozen=True, slots=True)
class RemoveFile:
    path: str

    def __str__(self) -> str:
        return f"remove {self.path}"


@dataclass(frozen=True, slots=True)
class RemoveTree:
    """Cannot be undone: after it come only steps of its kind, and of commands that cannot either.

    Of a link only the link goes: what it leads to may be more than ours.
    """

    path: str

    def __str__(self) -> str:
        return f"remove {self.path} with all that is in it"


@dataclass(frozen=True, slots=True)
class Run:
    """A command.

    :param argv: empty for a step that has something to do only when the others are undone
    :param undo: run when a later step fails, and when this one does: it may have done a part
    """

    argv: tuple[str, ...]
    undo: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"run {shlex.join(self.argv)}"


Step = MakeDirectory | WriteFile | RemoveFile | RemoveTree | Run


@dataclass(frozen=True, slots=True)
class ServiceHost:
    """The machine as it was found.

    :param root: `/`, or the image that is installed into, which does not run
    :param units: absolute path to the text of each unit of ours that is there
    :param failed: the units that systemd remembers as failed
    :param existing: those of PRIVATE_DIRECTORIES that are there, and somebody else's than root's
    :param user: the service user is there; `group`: a group of that name is there
    :param member: the groups that it is in
    :param groups: those of GROUPS that this system has
    """

    flavour: Flavour
    unit_directory: str
    root: str = "/"
    units: Mapping[str, str] | None = None
    enabled: tuple[str, ...] = ()
    active: tuple[str, ...] = ()
    failed: tuple[str, ...] = ()
    existing: frozenset[str] = frozenset()
    user: bool = False
    group: bool = False
    member: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()

    @property
    def offline(self) -> bool:
        return self.root != "/"

    def below(self, path: str) -> str:
        """Return a path of that system as it is found from here: below `root`."""
        return path if not self.offline else os.path.join(self.root, path.lstrip("/"))

    def unit(self, name: str) -> str:
        """Return the path of a unit file."""
        return self.below(os.path.join(self.unit_directory, name))

    def text(self, name: str) -> str | None:
        """Return the text of a unit that is there; None when it is not."""
        return (self.units or {}).get(self.unit(name))

    def systemctl(self, *words: str) -> tuple[str, ...]:
        """Return the command that puts these words to the right systemd."""
        flavour = ("--user",) if self.flavour == "user" else ()
        return ("systemctl", *flavour, *((f"--root={self.root}",) if self.offline else ()), *words)


def install_steps(machine: ServiceHost, units: Mapping[str, str], orch: tuple[str, ...]) -> tuple[Step, ...]:
    """Return the steps from this machine to one with these units, enabled and started; none when it is that already.

    :param units: name to text, SERVICE and perhaps SOCKET, and TIMER with WATCH
    :param orch: the words that run this installation
    """
    written = {name: text for name, text in units.items() if machine.text(name) != text}
    optional = (TIMER, WATCH, SOCKET)
    dropped = tuple(name for name in optional if name not in units and machine.text(name) is not None)
    steps = [*_user_steps(machine, orch)] if machine.flavour == "system" else []
    wanted = tuple(name for name in STARTED if name in units)
    starts = not machine.offline and (written or dropped or any(name not in machine.active for name in wanted))
    if starts:
        # Earlier starts count against StartLimitBurst, also those of earlier installations: this one would be refused,
        # and so would be what undoes it.
        steps += _reset_failed(machine, machine.active + machine.failed)

    touched = {*written, *dropped, *(name for name in wanted if name not in machine.active)}
    serving = touched & {SOCKET, SERVICE}  # a socket unit cannot take the address while the service has it
    stopped = {*(dropped), *((SOCKET, SERVICE) if serving else ()), *({TIMER} & touched)}
    running = tuple(name for name in (TIMER, WATCH, SOCKET, SERVICE) if name in machine.active and name in stopped)
    if starts and running:
        steps.append(Run(machine.systemctl("stop", *running), machine.systemctl("start", *running)))

    if not machine.offline and (written or dropped):
        steps.append(Run((), machine.systemctl("daemon-reload")))  # when undone: once the files are as they were

    for name in dropped:
        if name in machine.enabled:
            steps.append(Run(machine.systemctl("disable", name), machine.systemctl("enable", name)))

        steps.append(RemoveFile(machine.unit(name)))

    steps += (WriteFile(machine.unit(name), text) for name, text in written.items())
    if not machine.offline and (written or dropped):
        steps.append(Run(machine.systemctl("daemon-reload")))

    fresh = tuple(name for name in units if name in STARTED and name not in machine.enabled)
    if fresh:
        steps.append(Run(machine.systemctl("enable", *fresh), machine.systemctl("disable", *fresh)))

    if starts:
        # A start that fails leaves a failed unit behind, even without its file. The brackets make a pattern of the
        # name: it meets what systemd has loaded, and is no error where that is nothing.
        patterns = tuple(name.replace("orch", "orc[h]") for name in wanted)
        steps.append(Run((), machine.systemctl("reset-failed", *patterns)))
        steps.append(Run(machine.systemctl("start", *wanted), machine.systemctl("stop", *wanted)))

    return tuple(steps)


def uninstall_steps(machine: ServiceHost, purge: tuple[str, ...] = ()) -> tuple[Step, ...]:
    """Return the steps from this machine to one without the service.

    :param purge: directories that go as well; then the service user goes, too
    """
    names = tuple(name for name in (TIMER, WATCH, SOCKET, SERVICE) if machine.text(name) is not None)
    steps: list[Step] = []
    if names:
        running = tuple(name for name in names if name in machine.active)
        if running:
            steps.append(Run(machine.systemctl("stop", *running), machine.systemctl("start", *running)))

        # A unit that failed is listed for ever, also when its file is gone.
        steps += _reset_failed(machine, machine.failed)
        enabled = tuple(name for name in names if name in machine.enabled)
        if enabled:
            steps.append(Run(machine.systemctl("disable", *enabled), machine.systemctl("enable", *enabled)))

        if not machine.offline:
            steps.append(Run((), machine.systemctl("daemon-reload")))

        steps += (RemoveFile(machine.unit(name)) for name in names)
        if not machine.offline:
            steps.append(Run(machine.systemctl("daemon-reload")))

    steps += map(RemoveTree, purge)
    if purge and machine.flavour == "system" and machine.user:
        steps.append(Run(("userdel", *_prefix_options(machine), USER)))

    return tuple(steps)


def _reset_failed(machine: ServiceHost, names: tuple[str, ...]) -> list[Step]:
    """Return the step that makes systemd forget that units failed, and how often they were started.

    :param names: of units that systemd has loaded; others are an error
    """
    return [Run(machine.systemctl("reset-failed", *names))] if names else []


def _user_steps(machine: ServiceHost, orch: tuple[str, ...]) -> list[Step]:
    steps: list[Step] = []
    if not machine.user:
        groups = ("--groups", ",".join(machine.groups)) if machine.groups else ()
        own = ("--gid", USER) if machine.group else ("--user-group",)
        options = ("--system", *own, "--home-dir", HOME, "--no-create-home", "--shell", NO_SHELL)
        add = ("useradd", *_prefix_options(machine), *options, "--comment", GECOS, *groups, USER)
        # Not the undo of a useradd that failed: there is nothing to remove, and userdel would fail, too.
        steps += [Run(add), Run((), ("userdel", *_prefix_options(machine), USER))]
    else:
        lacking = tuple(group for group in machine.groups if group not in machine.member)
        if lacking:
            before = ("usermod", *_prefix_options(machine), "--groups", ",".join(machine.member), USER)
            steps.append(
                Run(("usermod", *_prefix_options(machine), "--append", "--groups", ",".join(lacking), USER), before)
            )

    if not machine.offline and machine.text(SERVICE) is None:
        steps.append(Run(("runuser", "-u", USER, "--", *orch, "--version")))  # may it run this installation at all?

    steps += (MakeDirectory(machine.below(path), USER) for path in PRIVATE_DIRECTORIES if path not in machine.existing)
    return steps


def _prefix_options(machine: ServiceHost) -> tuple[str, ...]:
    return ("--prefix", machine.root) if machine.offline else ()
