"""A daemon that uses the process layer and waits to be killed: `little_daemon.py DAEMON_ID HOME_ID [--no-guard]`.

Starts an engine, one behind a wrapper, and two that leave a grandchild outside their session; prints the pids as JSON.
With `--no-guard` the guard is stopped, and the daemon leaves what it would leave without one.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from orchestrator.adapters.process import linux
from orchestrator.adapters.process.child import LaunchSpec, spawn
from orchestrator.adapters.process.guard import OrphanGuard

ESCAPES = str(Path(__file__).with_name("escapes.py"))


class Lines:
    def __init__(self) -> None:
        self.lines: list[str] = []

    def write(self, lines: Sequence[str]) -> None:
        self.lines += lines


async def main() -> None:
    linux.become_subreaper()
    guard = OrphanGuard(sys.argv[1], sys.argv[2])
    await guard.start()
    log = Lines()
    commands = (
        ("/bin/sleep", "1000"),
        ("/bin/sh", "-c", "sleep 1000 & wait"),
        (sys.executable, ESCAPES, "setsid"),
        (sys.executable, ESCAPES, "daemon"),
    )
    children = [
        await spawn(LaunchSpec(argv, {"PATH": os.environ["PATH"]}, "/", f"i{number}"), log, guard)
        for number, argv in enumerate(commands)
    ]
    while sum(line.startswith("escaped") for line in log.lines) < 2 or len(children[1].tree()) < 2:  # noqa: ASYNC110
        await asyncio.sleep(0.01)

    if "--no-guard" in sys.argv:
        os.kill(guard.pid, signal.SIGSTOP)

    engines = [child.pid for child in children]
    sys.stdout.write(json.dumps({"guard": guard.pid, "engines": engines}) + "\n")
    sys.stdout.flush()
    await asyncio.sleep(1000)


asyncio.run(main())
