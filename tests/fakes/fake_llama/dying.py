"""Ends of a fake engine."""

from __future__ import annotations

import os
import signal
import time
from typing import NoReturn

from tests.fakes.fake_llama.faults import Faults
from tests.fakes.fake_llama.texts import Log


def die(faults: Faults, log: Log, *, signal_name: str = "") -> NoReturn:
    """End as the faults say: by a signal, or with an exit code."""
    for line in faults.say:
        log.bare(line)

    name = signal_name or faults.signal
    if name:
        number = signal.Signals[f"SIG{name}"]
        if number != signal.SIGKILL:
            signal.signal(number, signal.SIG_DFL) if _on_main_thread() else None

        os.kill(os.getpid(), number)
        time.sleep(10)  # the signal ends the process from another thread

    os._exit(faults.exit)


def _on_main_thread() -> bool:
    import threading

    return threading.current_thread() is threading.main_thread()


def leave_grandchild(how: str) -> None:
    """A process that outlives this one, ignores SIGTERM, and holds the log's pipe."""
    if os.fork() == 0:
        if how == "setsid":
            os.setsid()

        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        while True:
            time.sleep(1000)
