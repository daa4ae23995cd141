"""A booted machine: systemd as its PID 1, a network of its own with loopback alone, and the root that it is given."""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

BOOT_S = 60.0
HALT_S = 30.0


class Machine:
    """What is done in there, as root or as one of its users.

    :ivar leader: PID 1 of the machine, as this machine counts
    """

    def __init__(self, leader: int) -> None:
        self.leader = leader

    def run(self, command: str, user: str = "root", *, timeout_s: float = 60.0) -> subprocess.CompletedProcess[str]:
        """Run a shell command there and return what came of it, whatever it was."""
        words = ["/bin/bash", "-c", command]
        if user != "root":
            words = ["/sbin/runuser", "-u", user, "--", *words]

        path = "PATH=/opt/orch/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        home = "/root" if user == "root" else f"/home/{user}"
        environment = ["/usr/bin/env", "-i", path, f"HOME={home}", "LANG=C.UTF-8", "SYSTEMD_PAGER="]
        if user != "root":
            uid = self._uid(user)
            environment += [
                f"XDG_RUNTIME_DIR=/run/user/{uid}",
                f"DBUS_SESSION_BUS_ADDRESS=unix:path=/run/user/{uid}/bus",
            ]

        enter = ["nsenter", f"--target={self.leader}", "--all", "--wdns=/"]
        return subprocess.run(
            [*enter, *environment, *words], capture_output=True, text=True, timeout=timeout_s, check=False
        )

    def do(self, command: str, user: str = "root", *, timeout_s: float = 60.0) -> str:
        """As `run`, and it must succeed. Returns its standard output."""
        done = self.run(command, user, timeout_s=timeout_s)
        journal = self.journal("orch", user) if done.returncode and "orch" in command else ""
        assert done.returncode == 0, f"{command}: exit {done.returncode}\n{done.stdout}\n{done.stderr}\n{journal}"
        return done.stdout

    def put(self, file: Path, directory: str) -> None:
        """Copy a file of this machine into a directory of that one."""
        shutil.copy(file, f"/proc/{self.leader}/root{directory}")

    def client(self, words: Sequence[str]) -> subprocess.Popen[str]:
        """A program of this machine in the network of that one."""
        enter = ["nsenter", f"--target={self.leader}", "--net", "--"]
        return subprocess.Popen([*enter, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def show(self, unit: str, *names: str, user: str = "root") -> dict[str, str]:
        """Properties of a unit."""
        flavour = "" if user == "root" else "--user "
        text = self.do(f"systemctl {flavour}show {shlex.quote(unit)} -p {','.join(names)}", user)
        return dict(line.split("=", 1) for line in text.splitlines() if "=" in line)

    def until(self, unit: str, name: str, value: str, *, timeout_s: float = 60.0, user: str = "root") -> None:
        """Wait until a property of a unit has a value."""
        deadline = time.monotonic() + timeout_s
        while (found := self.show(unit, name, user=user).get(name)) != value:
            assert time.monotonic() < deadline, f"{unit}: {name} is {found}, not {value}\n{self.journal(unit, user)}"
            time.sleep(0.2)

    def succeeds(self, command: str, user: str = "root", *, timeout_s: float = 60.0) -> str:
        """Repeat a command until it succeeds. Returns its standard output."""
        deadline = time.monotonic() + timeout_s
        while True:
            done = self.run(command, user)
            if done.returncode == 0:
                return done.stdout

            assert time.monotonic() < deadline, f"{command}: exit {done.returncode}\n{done.stdout}\n{done.stderr}"
            time.sleep(0.3)

    def journal(self, unit: str, user: str = "root") -> str:
        # `--user-unit` asks for the units of who asks, which is root.
        of = f"-u {shlex.quote(unit)}" if user == "root" else f"_SYSTEMD_USER_UNIT={shlex.quote(unit)}.service"
        return self.run(f"journalctl --no-pager -o cat {of} | tail -60").stdout

    def _uid(self, user: str) -> int:
        for line in self.run("cat /etc/passwd").stdout.splitlines():
            name, _, uid, *_ = line.split(":")
            if name == user:
                return int(uid)

        raise LookupError(user)


@contextlib.contextmanager
def copied(root: Path, directory: Path) -> Iterator[Path]:
    """A copy of a root, to be booted and thrown away."""
    target = directory / "root"
    subprocess.run(["cp", "--archive", "--reflink=auto", str(root), str(target)], check=True)
    try:
        yield target
    finally:
        shutil.rmtree(target)


@contextlib.contextmanager
def booted(root: Path, log: Path, *, unified: bool = False) -> Iterator[Machine]:
    """Boot a root until its systemd has nothing left to start; what its console says goes to `log`.

    :param unified: control groups of version 2 alone, without controllers where this machine has those in version 1
    """
    words = [
        "systemd-nspawn", "--quiet", "--directory", str(root), "--register=no", "--keep-unit", "--private-network",
        "--machine=orch-test", "--hostname=orch-test", "--console=pipe", "--boot",
    ]  # fmt: skip
    with log.open("wb") as console:
        environment = {**os.environ, **({"SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "1"} if unified else {})}
        nspawn = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=console, stderr=console, env=environment)
    try:
        machine = Machine(_leader(nspawn, log))
        machine.succeeds("systemctl is-system-running | grep -qE 'running|degraded'", timeout_s=BOOT_S)
        yield machine
    finally:
        _halt(nspawn)


def _leader(nspawn: subprocess.Popen[bytes], log: Path) -> int:
    """PID 1 of the machine: the child of nspawn that has become systemd."""
    deadline = time.monotonic() + BOOT_S
    while time.monotonic() < deadline:
        assert nspawn.poll() is None, f"systemd-nspawn ended: {log.read_text(errors='replace')}"
        children = Path(f"/proc/{nspawn.pid}/task/{nspawn.pid}/children").read_text().split()
        for child in children:
            if Path(f"/proc/{child}/comm").read_text().strip() == "systemd":
                return int(child)

        time.sleep(0.05)

    raise AssertionError(f"the machine did not boot: {log.read_text(errors='replace')}")


def _halt(nspawn: subprocess.Popen[bytes]) -> None:
    """Power off in order; nspawn passes the signal on (systemd-nspawn(1), --kill-signal)."""
    if nspawn.poll() is None:
        nspawn.send_signal(signal.SIGTERM)
        try:
            nspawn.wait(HALT_S)
        except subprocess.TimeoutExpired:
            nspawn.kill()

    nspawn.wait()
