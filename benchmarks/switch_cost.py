"""The time that orch adds to a switch, and to the relaunch after an out-of-memory failure.

Engine starts are measured alone and within orch in turn, in one run: the same program with the same arguments, started
directly (time until it answers /health and a one-token request) and by `orch switch --strategy replace` (the gap: from
the moment requests wait to the moment the new engine serves). Likewise an engine that dies out of memory: alone, and as
a step of the ladder.

    python -m benchmarks.switch_cost
    python -m benchmarks.switch_cost --rounds 10
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from datetime import datetime

from orchestrator.adapters.process.ports import free_port
from orchestrator.engines.known.model import write_known_model
from tests.faults.lab import Lab

LOAD_S = 1.0
KEY = "benchmark"
MARGINS = [1000, 1200, 1400, 1600]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    with tempfile.TemporaryDirectory(prefix="orch-b-") as workshop:
        write_known_model(os.path.join(workshop, "small.gguf"), "llama")
        lab = Lab(tempfile.mkdtemp(prefix="orch-b-"), workshop)
        try:
            added_s = switches(lab, rounds)
            relaunch_s = relaunches(lab)
        finally:
            lab.close()

    return 0 if added_s <= 0.5 and relaunch_s <= 0.5 else 1


def switches(lab: Lab, rounds: int) -> float:
    lab.fake("fake-upstream", "upstream")
    for name in ("one", "two"):
        lab.model(name, {"load_s": LOAD_S})

    lab.serve("one")
    lab.ready("one")
    alone, within = [], []
    for number in range(rounds):
        target = ("two", "one")[number % 2]
        alone.append(start_alone(lab, target))
        result = lab.orch_json("switch", target, "--strategy", "replace")
        assert result["ok"], result
        within.append(float(result["gap_s"]))

    own_s, gap_s = statistics.median(alone), statistics.median(within)
    print(f"engine alone, start to first token   {own_s:6.3f} s (median of {rounds})")
    print(f"orch switch, gap for new requests    {gap_s:6.3f} s")
    print(f"added by the switch                  {gap_s - own_s:6.3f} s, ratio {gap_s / own_s:.2f} (limit 0.5 s)")
    return gap_s - own_s


def relaunches(lab: Lab) -> float:
    """The ladder's steps: from the end of an engine that ran out of memory to the start of the next one."""
    margins = ", ".join(map(str, MARGINS))
    more = f"[memory]\nfit = true\nfit_margin = {MARGINS[0]}\n[recovery]\nmargins = [{margins}]\nmax_attempts = 9\n"
    lab.model("oom", {"oom_below_mib": MARGINS[-1], "oom_mib": 1}, more=more)
    alone_s = statistics.median(die_alone(lab) for _ in range(3))
    lab.orch("down")
    lab.up("oom")
    lab.ready("oom")
    attempts = lab.status()["attempts"]
    assert [attempt["margin_mib"] for attempt in attempts] == MARGINS, attempts
    starts = [datetime.fromisoformat(attempt["started"]).timestamp() for attempt in attempts]
    steps = [later - earlier - alone_s for earlier, later in zip(starts, starts[1:], strict=False)]
    relaunch_s = statistics.median(steps)
    print(f"engine alone, start to its OOM       {alone_s:6.3f} s")
    print(f"ladder, OOM to relaunch              {relaunch_s:6.3f} s (median of {len(steps)}, limit 0.5 s)")
    return relaunch_s


def start_alone(lab: Lab, profile: str) -> float:
    """Seconds from the start of the program to its first token."""
    argv, port = command(lab, profile)
    began = time.monotonic()
    with subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            while not answers(port, "/health", None):
                assert process.poll() is None, f"the engine ended: {argv}"
                time.sleep(0.005)

            assert answers(port, "/completion", b'{"prompt":"x","n_predict":1}')
            return time.monotonic() - began
        finally:
            process.kill()


def die_alone(lab: Lab) -> float:
    argv, _ = command(lab, "oom")
    began = time.monotonic()
    subprocess.run(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)
    return time.monotonic() - began


def command(lab: Lab, profile: str) -> tuple[list[str], int]:
    """The argv that orch would run, with a port and a key file filled in."""
    argv = lab.orch_json("profile", "render", profile)["argv"]
    port = free_port()
    filled = {"PORT": str(port), "KEY_FILE": lab.write("key", KEY)}
    return [filled.get(word, word) for word in argv], port


def answers(port: int, path: str, body: bytes | None) -> bool:
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}{path}", body, {"Content-Type": "application/json", "Authorization": f"Bearer {KEY}"}
    )
    try:
        with urllib.request.urlopen(request, timeout=5) as response:
            return response.status == 200 and bool(json.loads(response.read()))
    except (urllib.error.URLError, ConnectionError):
        return False


if __name__ == "__main__":
    raise SystemExit(main())
