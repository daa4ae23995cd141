"""The file system of the home is full: engines start, switches happen, and what cannot be recorded is said."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys

import pytest

from tests.faults.lab import Lab
from tests.faults.test_host import serve_as
from tests.support import ORCH, until

FULL = ("state", "cache", "run/keys")


def can_mount() -> bool:
    """Return whether a file system can be mounted in a mount namespace of one's own."""
    if shutil.which("unshare") is None:
        return False

    tried = ["unshare", "-m", "sh", "-c", "mount -t tmpfs none /mnt"]
    return subprocess.run(tried, check=False, capture_output=True).returncode == 0


def fill(directory: str) -> None:
    with open(os.path.join(directory, "filler"), "wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(b"x" * 4096)


@pytest.mark.skipif(not can_mount(), reason="no small file system can be mounted here (root, unshare)")
def test_a_full_disk_costs_records_and_no_engine(lab: Lab) -> None:
    lab.model("a")
    lab.model("b")
    places = [os.path.join(lab.root, name) for name in FULL]
    for place in places:
        os.makedirs(place, mode=0o700, exist_ok=True)

    mounts = " && ".join(f"mount -t tmpfs -o size=512k,mode=700 none {place}" for place in places)
    daemon = serve_as(lab, "unshare", "-m", "sh", "-c", f'{mounts} && exec "$@"', "sh", *ORCH, "serve")
    lab.up("a")
    first = int(lab.ready("a")["pid"])
    inside = [f"/proc/{daemon.pid}/root{place}" for place in places]
    for place in inside:
        fill(place)

    os.kill(first, signal.SIGKILL)
    until(lambda: lab.status()["pid"] not in (first, None) and lab.status()["state"] == "ready", "it is started again")
    assert lab.ask("a1", 3).status == 200
    assert lab.orch("switch", "b").returncode == 0
    assert lab.ask("b1", 3).status == 200
    assert daemon.poll() is None
    said = lab.events("record_lost")
    assert any("key file" in text for text in said), said
    for place in inside:
        os.unlink(os.path.join(place, "filler"))

    lab.orch("switch", "a")
    assert lab.ask("a2", 3).status == 200
    until(lambda: '"profile": "a"' in read(os.path.join(inside[0], "state.json")), "what is to run is remembered again")


def read(path: str) -> str:
    with contextlib.suppress(OSError), open(path, encoding="utf-8") as file:
        return file.read()

    return ""


def test_a_home_that_is_no_place_to_write_to_is_survived(lab: Lab) -> None:
    """Where nothing can be mounted: somebody else's things lie where the records go."""
    lab.model("a")
    for name in ("state/margins.json", "state/history.sqlite3", "state/events.jsonl", "state/state.json"):
        os.makedirs(os.path.join(lab.root, name))

    lab.write("state/engine", "")
    lab.write("run/keys", "")
    serve_as(lab, sys.executable, *ORCH[1:], "serve")
    lab.up("a")
    lab.ready("a")
    assert lab.ask("a1", 3).status == 200
    said = lab.events("record_lost")
    assert any("key file" in text for text in said) and any("directory" in text for text in said), said
    for name in ("state/state.json", "state/events.jsonl"):
        os.rmdir(os.path.join(lab.root, name))
