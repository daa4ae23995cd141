"""Control groups: one for each engine, below the group that a service manager has given to the daemon.

A group of its own lets the kernel kill an engine with all that came of it, limit its memory, and count its deaths for
want of memory apart from everybody else's. Nothing here is needed: where no group was given (a terminal, a container,
hierarchies of version 1), engines stay in the daemon's own group.

`Documentation/admin-guide/cgroup-v2.rst` of the kernel; for whom a group belongs to, "Control Group APIs and
Delegation" of systemd (https://systemd.io/CGROUP_DELEGATION).
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from dataclasses import dataclass
from typing import NamedTuple

from orchestrator.adapters.process import linux

DAEMON_GROUP = "daemon"
"""The group of the daemon and its guard: a group that hands controllers on may hold no process itself."""

ENGINE_PREFIX = "engine-"

CONTROLLERS = ("memory", "pids")

REMOVE_S = 1.0
"""The dead leave their group a moment after they were reaped."""

SWEEP_S = 2.0
MANAGER_S = 3.0
POLL_S = 0.02


class Groups(NamedTuple):
    """The directories of a process's groups; None where it has none that can be seen.

    :ivar unified: in the hierarchy of version 2
    :ivar memory: in version 1's hierarchy of the memory controller
    """

    unified: str | None
    memory: str | None


def groups_of(memberships: str, mounts: str) -> Groups:
    """Return the directories of a process's groups.

    :param memberships: `/proc/PID/cgroup`, see cgroups(7)
    :param mounts: `/proc/PID/mountinfo`, see proc_pid_mountinfo(5)
    """
    unified = memory = None
    for line in memberships.splitlines():
        _, controllers, path = line.split(":", 2)
        if not controllers:
            unified = _group_directory(path, mounts, "cgroup2", None)
        elif "memory" in controllers.split(","):
            memory = _group_directory(path, mounts, "cgroup", "memory")

    return Groups(unified, memory)


def own_groups() -> Groups:
    """Return the directories of this process's groups, now: it can be moved at any time."""
    texts = (linux.read_proc(f"/proc/self/{name}") or b"" for name in ("cgroup", "mountinfo"))
    return groups_of(*(os.fsdecode(text) for text in texts))


def is_delegated(group: str) -> bool:
    """Return whether a group of version 2 is ours to divide. Root may write to any, so that alone says nothing.

    Ours is what systemd marked (`Delegate=`), or says that it delegates, or what we may write to although its parent is
    not ours. Never the root of the hierarchy, and never one with a process that is not this one: it might be somebody's
    login session. Blocks for as long as systemd takes to answer.
    """
    if not os.path.exists(os.path.join(group, "cgroup.events")):  # every group has it but the root
        return False

    places = (group, os.path.join(group, "cgroup.procs"), os.path.join(group, "cgroup.subtree_control"))
    if not all(os.access(place, os.W_OK) for place in places):
        return False

    strangers = {*_members(group), *_members(os.path.join(group, DAEMON_GROUP))} - {os.getpid()}
    if strangers:
        return False

    return _has_delegate_mark(group) or not os.access(os.path.dirname(group), os.W_OK) or _manager_delegates(group)


@dataclass(frozen=True, slots=True)
class Leaf:
    """The group of one engine."""

    path: str

    @property
    def procs_file(self) -> str:
        """The file by which a process enters the group, with all that it starts from then on."""
        return os.path.join(self.path, "cgroup.procs")

    def holds(self, pid: int) -> bool:
        """Return whether a process is in it."""
        return pid in _members(self.path)

    def populated(self) -> bool:
        """Return whether anything lives in it, groups below included; the dead that nobody has reaped do not count."""
        return "populated 1" in _read(os.path.join(self.path, "cgroup.events"))

    def kill(self) -> None:
        """Send SIGKILL to all of it, also to what forks meanwhile (cgroup.kill, Linux 5.14)."""
        try:
            _write(os.path.join(self.path, "cgroup.kill"), "1")
        except FileNotFoundError:  # an older kernel: what forks is met the next time
            for pid in _members(self.path):
                self._kill_member(pid)

    def _kill_member(self, pid: int) -> None:
        try:
            pidfd = os.pidfd_open(pid)
        except ProcessLookupError:
            return

        try:
            if self.holds(pid):  # looked at again under the pidfd: the number has no new owner
                linux.send(pidfd, signal.SIGKILL)
        finally:
            os.close(pidfd)

    def remove(self, timeout_s: float = REMOVE_S) -> bool:
        """Remove it and what was made below it; False while something lives there. Blocks, for `timeout_s` at most."""
        deadline = time.monotonic() + timeout_s
        while True:
            try:
                for directory, _, _ in os.walk(self.path, topdown=False):
                    os.rmdir(directory)
            except OSError:
                if time.monotonic() >= deadline:
                    return False

                time.sleep(POLL_S)
            else:
                return True


@dataclass(frozen=True, slots=True)
class EngineGroups:
    """The place where engines get groups of their own.

    :ivar root: the group that was given to the daemon; None where engines stay with it
    :ivar memory_max_mib: limit for each engine with all that it starts, page cache included; 0 for none
    """

    root: str | None = None
    memory_max_mib: int = 0

    @property
    def can_limit(self) -> bool:
        """True when a limit on memory can be set."""
        return self.root is not None and "memory" in _read(os.path.join(self.root, "cgroup.subtree_control")).split()

    def make(self, instance: str) -> Leaf | None:
        """Make the group of one instance.

        :return: None where there are none
        :raises OSError: when it could not be made, or not be limited
        """
        if self.root is None:
            return None

        leaf = Leaf(os.path.join(self.root, ENGINE_PREFIX + instance))
        os.makedirs(leaf.path, exist_ok=True)
        with contextlib.suppress(FileNotFoundError):  # no memory controller here
            # An engine without its leader, or without a worker, is of no use: the kernel takes all of it or none.
            _write(os.path.join(leaf.path, "memory.oom.group"), "1")

        if self.memory_max_mib and self.can_limit:
            try:
                _write(os.path.join(leaf.path, "memory.max"), str(self.memory_max_mib << 20))
            except OSError:
                leaf.remove(0.0)
                raise

        return leaf


def claim_engine_groups(memory_max_mib: int = 0) -> EngineGroups:
    """Prepare the group that was given to us, if one was; end what an earlier daemon left in it.

    To be called before anything is started: what starts later is in the daemon's group with it.
    """
    group = own_groups().unified
    if group is None:
        return EngineGroups(None, memory_max_mib)

    # Where systemd has put us into a group below the one it gives (DelegateSubgroup=), that one is meant.
    above = os.path.dirname(group)
    root = above if os.path.basename(group) == DAEMON_GROUP and is_delegated(above) else group
    if root == group and not is_delegated(group):
        return EngineGroups(None, memory_max_mib)

    try:
        os.makedirs(os.path.join(root, DAEMON_GROUP), exist_ok=True)
        _write(os.path.join(root, DAEMON_GROUP, "cgroup.procs"), str(os.getpid()))
        sweep_groups(root)
    except OSError:
        return EngineGroups(None, memory_max_mib)

    for name in set(CONTROLLERS) & set(_read(os.path.join(root, "cgroup.controllers")).split()):
        with contextlib.suppress(OSError):  # the engines go without it
            _write(os.path.join(root, "cgroup.subtree_control"), f"+{name}")

    return EngineGroups(root, memory_max_mib)


def sweep_groups(root: str) -> None:
    """Kill and remove the groups of engines below `root`. Blocks, for two seconds at most."""
    left = [Leaf(entry.path) for entry in os.scandir(root) if entry.name.startswith(ENGINE_PREFIX) and entry.is_dir()]
    deadline = time.monotonic() + SWEEP_S
    for leaf in left:
        with contextlib.suppress(OSError):
            leaf.kill()

    for leaf in left:
        leaf.remove(max(deadline - time.monotonic(), 0.0))


def _group_directory(path: str, mounts: str, kind: str, controller: str | None) -> str | None:
    """Return the directory of a group of the hierarchy; None when no mount shows it."""
    for line in mounts.splitlines():
        left, _, right = line.partition(" - ")
        root, mount_point = left.split()[3:5]
        found_kind, _, options = right.split()[:3]
        if found_kind != kind or (controller is not None and controller not in options.split(",")):
            continue

        # A group outside this process's namespace begins with `/..`.
        below = os.path.relpath(path, root)
        if ".." not in (*path.split("/"), *root.split("/"), *below.split("/")):
            return os.path.normpath(os.path.join(_unescaped(mount_point), below))

    return None


def _unescaped(path: str) -> str:
    for code, character in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        path = path.replace(code, character)

    return path


def _has_delegate_mark(group: str) -> bool:
    """Return whether systemd marked a group as left alone; the `user.` mark since 251, the other for root's eyes."""
    for name in ("user.delegate", "trusted.delegate"):
        with contextlib.suppress(OSError):
            if os.getxattr(group, name) == b"1":
                return True

    return False


def _manager_delegates(group: str) -> bool:
    """Return whether a user's systemd says that it delegates: it leaves no marks (seen with 252)."""
    unit = os.path.basename(group)
    if "/user@" not in group or not unit.endswith((".service", ".scope")):
        return False

    words = ["systemctl", "--user", "show", "--property=Delegate", "--property=ControlGroup", "--", unit]
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=MANAGER_S, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return False

    shown = dict(line.split("=", 1) for line in done.stdout.splitlines() if "=" in line)
    path = shown.get("ControlGroup", "")  # empty for a unit that does not run: then another has this name
    return shown.get("Delegate") == "yes" and bool(path) and group.endswith(path)


def _members(group: str) -> list[int]:
    return [int(word) for word in _read(os.path.join(group, "cgroup.procs")).split()]


def _read(path: str) -> str:
    """Return a file of a group; empty when it is not there, or no longer."""
    try:
        with open(path, encoding="ascii") as file:
            return file.read()
    except OSError:
        return ""


def _write(path: str, text: str) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, text.encode())
    finally:
        os.close(fd)
