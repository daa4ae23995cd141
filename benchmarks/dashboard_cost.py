"""The cost of the dashboard: time to the first frame, CPU at 1 Hz, and memory over many refreshes. In a real pty.

python -m benchmarks.dashboard_cost
python -m benchmarks.dashboard_cost --seconds 60 --refreshes 10000
"""

from __future__ import annotations

import argparse
import copy
import fcntl
import json
import os
import pty
import struct
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Callable
from typing import Any

from benchmarks.idle_cost import cpu_s
from tests.support import ORCH, Home, new_home, until

CELLS = (140, 40)
PROFILE = """\
schema = 1
model = "orch:demo"
engine = "embedded"
[cpu]
threads = 1
threads_batch = 1
"""
WARM_REFRESHES = 2000
"""By then the log is as long as it gets."""


class Screen:
    """A program in a terminal of its own, whose output is read as it comes."""

    def __init__(self, command: list[str], env: dict[str, str]) -> None:
        master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", CELLS[1], CELLS[0], 0, 0))
        self.started = time.monotonic()
        self.process = subprocess.Popen(
            command,
            env={**env, "TERM": "xterm-256color"},
            stdin=slave,
            stdout=slave,
            stderr=slave,
            start_new_session=True,
        )
        os.close(slave)
        self._master = master
        self.seen: dict[bytes, float] = {}
        self._wanted: list[bytes] = []
        self._text = b""
        threading.Thread(target=self._read, daemon=True).start()

    def when(self, text: bytes) -> float:
        """Seconds from the start until this was on the screen."""
        self._wanted.append(text)
        until(lambda: text in self.seen, f"{text!r} is shown")
        return self.seen[text] - self.started

    def press(self, keys: bytes) -> None:
        os.write(self._master, keys)

    def _read(self) -> None:
        while True:
            try:
                data = os.read(self._master, 65536)
            except OSError:  # the program has ended
                return

            self._text = (self._text + data)[-200_000:]
            for text in self._wanted:
                if text in self._text:
                    self.seen.setdefault(text, time.monotonic())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=30.0, help="how long the CPU is counted")
    parser.add_argument("--refreshes", type=int, default=10_000, help="frames of the memory run")
    parser.add_argument("--feed", type=int, default=0, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.feed:
        _fed(args.feed)
        return 0

    with new_home() as home:
        home.profile("one", PROFILE)
        home.serve("one")
        until(lambda: home.status()["state"] == "ready", "the profile is ready")
        firsts = [first_frame_s(home) for _ in range(5)]
        wall_s, used_s = (sorted(each)[2] for each in zip(*firsts, strict=True))
        load = os.getloadavg()[0]
        print(
            f"first frame: {used_s:.2f} s of CPU (limit 1 s), {wall_s:.2f} s by the clock, load {load:.1f}; median of 5"
        )
        idle = share(home, args.seconds, lambda: None)
        busy = share(home, args.seconds, lambda: streaming(home, args.seconds))

    size = f"{CELLS[0]} x {CELLS[1]} cells"
    print(f"at 1 Hz, {size}, nothing to do: {idle:.2%} of a core over {args.seconds:g} s (limit 3 %)")
    print(f"at 1 Hz, {size}, requests without a pause: {busy:.2%} of a core (limit 3 %)")
    grown_mib, rate = growth(args.refreshes)
    print(
        f"memory: {grown_mib:+.1f} MiB from refresh {WARM_REFRESHES} to {args.refreshes} (limit 4 MiB), "
        f"{rate * 1000:.1f} ms of CPU a refresh in which every panel changes"
    )
    return 0 if used_s < 1 and max(idle, busy) < 0.03 and grown_mib < 4 else 1


def first_frame_s(home: Home) -> tuple[float, float]:
    """By the clock, and of CPU: what else runs on the machine changes the first alone."""
    screen = Screen([*ORCH, "top"], home.env)
    seconds = screen.when("● ready".encode())
    used = cpu_s(screen.process.pid)
    _quit(screen)
    return seconds, used


def share(home: Home, seconds: float, work: Callable[[], None]) -> float:
    """Of a core, while something happens in the daemon."""
    screen = Screen([*ORCH, "top"], home.env)
    screen.when("● ready".encode())
    time.sleep(3)  # start-up is not what is measured here
    thread = threading.Thread(target=work)
    thread.start()
    before, began = cpu_s(screen.process.pid), time.monotonic()
    time.sleep(seconds)
    used = (cpu_s(screen.process.pid) - before) / (time.monotonic() - began)
    thread.join()
    _quit(screen)
    return used


def streaming(home: Home, seconds: float) -> None:
    """Requests one after the other, so that every figure moves."""
    url, end = home.url, time.monotonic() + seconds
    while time.monotonic() < end:
        home.request("POST", "/completion", {"prompt": "A supervisor", "n_predict": 100, "ignore_eos": True}, url=url)
        time.sleep(0.2)


def growth(refreshes: int) -> tuple[float, float]:
    """MiB of growth, and CPU seconds a refresh, on frames of which each differs from the one before."""
    screen = Screen([sys.executable, "-m", "benchmarks.dashboard_cost", "--feed", str(refreshes)], dict(os.environ))
    samples: list[tuple[int, float, float]] = []
    report = f"/tmp/orch-dashboard-{screen.process.pid}.json"
    screen.process.wait()
    with open(report, encoding="utf-8") as file:
        samples = json.load(file)

    os.unlink(report)
    warm = next(each for each in samples if each[0] >= WARM_REFRESHES)
    last = samples[-1]
    return last[1] - warm[1], (last[2] - warm[2]) / (last[0] - warm[0])


def _fed(refreshes: int) -> None:
    """The dashboard on a feed that changes with every look, as fast as it can draw."""
    from tests.tui.recorded import frame
    from tui.app import Dashboard

    recorded = frame("serving")
    samples: list[tuple[int, float, float]] = []

    class Feed:
        looks = 0

        def get(self, target: str) -> Any:
            if target.startswith("/v1/logs"):
                return [{"seq": self.looks * 5 + n, "text": f"0.{self.looks} I slot {n}: {'x' * 60}"} for n in range(5)]

            self.looks += 1
            if self.looks % 500 == 0:
                samples.append((self.looks, _rss_mib(), time.process_time()))

            if self.looks >= refreshes:
                app.call_from_thread(app.exit)

            return self.changed()

        def changed(self) -> Any:
            news = copy.copy(recorded)
            shift = self.looks % 240
            news["points"] = recorded["points"][shift:] + recorded["points"][:shift]
            news["rates"] = {**recorded["rates"], "decode_tok_s": 40 + self.looks % 100 / 10}
            news["requests"] = [
                {**each, "id": each["id"] + self.looks, "total_s": self.looks / 10} for each in recorded["requests"]
            ]
            news["events"] = [{**recorded["events"][-1], "id": 1000 + self.looks}]
            news["gpus"] = [{**recorded["gpus"][0], "used_mib": 9000 + self.looks % 2000}]
            return news

        def post(self, target: str, body: dict[str, object]) -> Any:
            raise AssertionError(f"nothing is to be changed here: {target}")

    app = Dashboard(Feed(), interval_s=0.001)
    app.call_later(app.action_next_tab)
    app.run()
    with open(f"/tmp/orch-dashboard-{os.getpid()}.json", "w", encoding="utf-8") as file:
        json.dump(samples, file)


def _rss_mib() -> float:
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def _quit(screen: Screen) -> None:
    screen.press(b"q")
    screen.process.wait(20)


if __name__ == "__main__":
    raise SystemExit(main())
