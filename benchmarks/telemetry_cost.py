"""The cost of watching to the daemon: CPU time of its process with a dashboard asking each second, less without one.

Both in one run, in turns, so that a busy machine disturbs both alike; the engine is the demo's. The client takes the
frame in this process, so that only the daemon's part is counted.

python -m benchmarks.telemetry_cost
python -m benchmarks.telemetry_cost --seconds 20 --rounds 5 --stream
"""

from __future__ import annotations

import argparse
import os
import statistics
import threading
import time

from benchmarks.idle_cost import cpu_s
from orchestrator.api import client
from tests.support import Home, new_home, until

LIMIT = 0.01
EVERY_S = 1.0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=15.0, help="of each turn")
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--stream", action="store_true", help="with a stream running all the time")
    arguments = parser.parse_args()
    with new_home() as home:
        home.serve("demo")
        until(lambda: home.status()["state"] == "ready", "the demo is ready")
        stop = threading.Event()
        clients = [threading.Thread(target=stream, args=(home, home.url, stop))] if arguments.stream else []
        for each in clients:
            each.start()

        differences, bare = [], []
        try:
            for number in range(arguments.rounds):
                turns = {watched: turn(home, watched, arguments.seconds) for watched in order(number)}
                differences.append(turns[True] - turns[False])
                bare.append(turns[False])
        finally:
            stop.set()
            for each in clients:
                each.join()

    share = statistics.median(differences)
    spread = f"{min(differences):.3%} to {max(differences):.3%}"
    print(f"unwatched: {statistics.median(bare):.3%} of a core")
    print(f"watched at {1 / EVERY_S:g} Hz: {share:.3%} of a core more ({spread} in {len(differences)} rounds)")
    print(f"limit: {LIMIT:.0%}")
    return 0 if share < LIMIT else 1


def order(number: int) -> tuple[bool, bool]:
    """Which turn comes first takes turns, too."""
    return (True, False) if number % 2 else (False, True)


def turn(home: Home, watched: bool, seconds: float) -> float:
    """The daemon's share of a core over so many seconds."""
    assert home.daemon is not None
    path = os.path.join(home.root, "run", "control.sock")
    settle(path, watched)
    began, before = time.monotonic(), cpu_s(home.daemon.pid)
    while time.monotonic() - began < seconds:
        if watched:
            client.request(path, "/v1/frame?points=120&requests=20")

        time.sleep(EVERY_S)

    return (cpu_s(home.daemon.pid) - before) / (time.monotonic() - began)


def settle(path: str, watched: bool) -> None:
    """Wait: the cost of a first frame, and what a last one leaves running, belong to neither turn."""
    if watched:
        client.request(path, "/v1/frame")

    time.sleep(1.0 if watched else 6.0)


def stream(home: Home, url: str, stop: threading.Event) -> None:
    while not stop.is_set():
        body = {"prompt": "A supervisor", "n_predict": 400, "stream": True, "ignore_eos": True}
        home.request("POST", "/completion", body, url=url)


if __name__ == "__main__":
    raise SystemExit(main())
