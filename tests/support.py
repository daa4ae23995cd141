"""A home of its own for a test, and the daemon that runs in it. Real processes, on loopback."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from orchestrator.api import client
from orchestrator.core.errors import OrchError
from tests.busy import slowness

ROOT = Path(__file__).parents[1]
"""The repository."""

FIXTURES = ROOT / "tests" / "fixtures"
ORCH = [sys.executable, "-m", "orchestrator"]
PATIENCE_S = 120.0
"""Longer than anything here takes on a busy machine; waits end as soon as their condition holds."""


def until(condition: Callable[[], Any], what: str, timeout_s: float = PATIENCE_S) -> Any:
    """Wait for a condition, and return what it gave.

    :raises AssertionError: when it does not come true in time, which is longer on a busy machine
    """
    first = time.monotonic()
    deadline = first + timeout_s
    while True:
        began = time.monotonic()
        value = condition()
        if value:
            return value

        now = time.monotonic()
        if now >= deadline:
            deadline = first + timeout_s * slowness()
            assert now < deadline, f"not within {timeout_s:g} s: {what}"

        time.sleep(max(0.01, now - began))  # at most half a processor, though a condition starts a process


class Home:
    """One ORCH_HOME."""

    def __init__(self, root: str) -> None:
        self.root = root
        self.env = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("ORCH_", "LLAMA_"))},
            "ORCH_HOME": root,
            "ORCH_GATEWAY_PORT": "0",
            "ORCH_FIRST_READING_S": "0",  # some seconds of each first start, on a busy machine
        }
        self.daemon: subprocess.Popen[bytes] | None = None

    def write(self, path: str, text: str) -> str:
        full = os.path.join(self.root, path)
        os.makedirs(os.path.dirname(full), exist_ok=True)
        with open(full, "w", encoding="utf-8") as file:
            file.write(text)

        return full

    def read(self, path: str) -> str:
        with open(os.path.join(self.root, path), encoding="utf-8") as file:
            return file.read()

    def profile(self, name: str, text: str) -> str:
        return self.write(f"config/profiles/{name}.toml", text)

    def demo_on_one_thread(self) -> None:
        """Shadow the shipped demo by one whose engine computes on one thread.

        With as many threads as there are processors it is slower, and costs ten times as much on a busy machine: its
        layers are so small that the threads do nothing but wait for each other, in a loop.
        """
        shipped = (ROOT / "profiles" / "demo.toml").read_text(encoding="utf-8")
        self.profile("demo", f"{shipped}\n[cpu]\nthreads = 1\nthreads_batch = 1\n")

    def orch(self, *args: str, check: bool = True, timeout_s: float = PATIENCE_S) -> subprocess.CompletedProcess[str]:
        """Run a command to its end."""
        done = subprocess.run([*ORCH, *args], env=self.env, capture_output=True, text=True, timeout=timeout_s)
        assert not check or done.returncode == 0, (
            f"orch {' '.join(args)}: {done.returncode}\n{done.stdout}{done.stderr}"
        )
        return done

    def orch_json(self, *args: str, check: bool = True) -> Any:
        return json.loads(self.orch(*args, "--json", check=check).stdout)

    def begin(self, *args: str) -> subprocess.Popen[str]:
        """Start a command that runs beside the test."""
        return subprocess.Popen([*ORCH, *args], env=self.env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def serve(self, *args: str) -> None:
        """Start the daemon, and wait until it answers."""
        with open(os.path.join(self.root, "daemon.log"), "ab") as log:
            self.daemon = self.start_daemon(args, log.fileno())

        until(self.answers, "the daemon answers")

    def start_daemon(self, words: Sequence[str], log: int) -> subprocess.Popen[bytes]:
        return subprocess.Popen([*ORCH, "serve", *words], env=self.env, stdout=log, stderr=log)

    def answers(self) -> bool:
        assert self.daemon is None or self.daemon.poll() is None, f"the daemon ended:\n{self.daemon_log()}"
        with contextlib.suppress(OrchError):
            return bool(self.status()["gateway"]["url"])

        return False

    def daemon_log(self) -> str:
        with open(os.path.join(self.root, "daemon.log"), encoding="utf-8") as file:
            return file.read()

    @property
    def control_socket(self) -> str:
        return os.path.join(self.root, "run", "control.sock")

    def control(self, target: str, body: dict[str, object] | None = None) -> Any:
        """Ask the control API, without `orch`: a test that starts a process at each look slows what it waits for."""
        data = None if body is None else json.dumps(body).encode()
        return json.loads(client.request(self.control_socket, target, data))

    def status(self) -> Any:
        return self.control("/v1/status")

    def ready(self, profile: str, timeout_s: float = PATIENCE_S) -> Any:
        """Wait until a profile is ready, and return the status."""
        return self._reached(lambda status: (status["state"], status["profile"]) == ("ready", profile), timeout_s)

    def state(self, name: str, timeout_s: float = PATIENCE_S) -> Any:
        """Wait until the state is this one, and return the status."""
        return self._reached(lambda status: bool(status["state"] == name), timeout_s)

    def _reached(self, holds: Callable[[Any], bool], timeout_s: float) -> Any:
        """The first status that is as wanted, which is asked for as it changes."""
        deadline = time.monotonic() + timeout_s
        status = self.status()
        while not holds(status):
            assert time.monotonic() < deadline, f"not within {timeout_s:g} s; the state is {status}"
            status = self.control(f"/v1/status?after={status['generation']}&wait_s=0.5")

        return status

    @property
    def url(self) -> str:
        return str(self.status()["gateway"]["url"])

    def request(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        headers: dict[str, str] | None = None,
        url: str | None = None,
    ) -> tuple[int, dict[str, str], bytes]:
        """One request to the gateway: status, headers in lower case, body."""
        connection = http.client.HTTPConnection(urlsplit(url or self.url).netloc, timeout=PATIENCE_S)
        data = json.dumps(body).encode() if body is not None else None
        kind = {"content-type": "application/json"} if body is not None else {}
        try:
            connection.request(method, path, data, {**kind, **(headers or {})})
            response = connection.getresponse()
            return response.status, {k.lower(): v for k, v in response.getheaders()}, response.read()
        finally:
            connection.close()

    def complete(self, prompt: str, tokens: int, **more: object) -> Any:
        body = {"prompt": prompt, "n_predict": tokens, "temperature": 0, "cache_prompt": False, **more}
        status, _, answer = self.request("POST", "/completion", body)
        assert status == 200, answer
        return json.loads(answer)

    def tagged(self) -> list[int]:
        """Processes that carry this home's tag: everything that its daemons have started."""
        from orchestrator.adapters.process.guard import home_id

        tag = f"ORCH_HOME_ID={home_id(os.path.join(self.root, 'state'))}".encode()
        return [pid for pid in map(int, filter(str.isdigit, os.listdir("/proc"))) if has_variable(pid, tag)]

    def close(self) -> None:
        """End the daemon, whoever started it, and check that nothing is left."""
        if self.daemon is not None:
            if self.daemon.poll() is None:
                self.daemon.send_signal(signal.SIGTERM)

            self.daemon.wait(PATIENCE_S)
        else:
            self.orch("down", "--all", "--force", check=False)

        until(lambda: not self.tagged(), "no process is left")
        shutil.rmtree(self.root)


@contextlib.contextmanager
def new_home() -> Iterator[Home]:
    """A short path: the control socket's must fit into 107 bytes."""
    home = Home(tempfile.mkdtemp(prefix="orch-t-"))
    try:
        yield home
    finally:
        home.close()


def alive(pid: int) -> bool:
    """Whether a process runs; one that is dead and waits to be reaped does not."""
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            return bool(file.read())
    except OSError:
        return False


def has_variable(pid: int, beginning: bytes) -> bool:
    """Return whether a process was given a variable that begins so, `NAME=` or `NAME=VALUE`."""
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:
            return any(each.startswith(beginning) for each in file.read().split(b"\0"))
    except OSError:
        return False
