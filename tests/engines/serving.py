"""A real engine's server for a test: started with words, asked, and ended."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from orchestrator.adapters.process.ports import free_port
from orchestrator.core.dialect.environment import child_environment
from orchestrator.engines.registry import Engine
from tests.support import until

START_LIMIT_S = 60.0


class Server:
    """One running engine."""

    def __init__(self, process: subprocess.Popen[bytes], port: int, log: Path) -> None:
        self.process = process
        self.port = port
        self.log = log

    def text(self) -> str:
        return self.log.read_text(errors="replace")

    def request(self, method: str, path: str, body: object = None, *, key: str | None = None) -> tuple[int, Any]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        data = json.dumps(body) if body is not None else None
        try:
            known = {"authorization": f"Bearer {key}"} if key is not None else {}
            connection.request(method, path, data, {"content-type": "application/json", **known})
            response = connection.getresponse()
            text = response.read()
            return response.status, json.loads(text) if text[:1] in (b"{", b"[") else text
        finally:
            connection.close()

    def complete(self, prompt: str, count: int, *, key: str | None = None) -> Any:
        """A greedy completion."""
        body = {"prompt": prompt, "n_predict": count, "temperature": 0, "cache_prompt": False}
        status, answer = self.request("POST", "/completion", body, key=key)
        assert status == 200, answer
        return answer

    def is_ready(self) -> bool:
        assert self.process.poll() is None, f"ended with {self.process.returncode}:\n{self.text()[-3000:]}"
        try:
            return self.request("GET", "/health")[0] == 200
        except (OSError, http.client.HTTPException):
            return False


def environment(directory: Path) -> dict[str, str]:
    return child_environment(os.environ, state_dir=str(directory), extra={})


@contextlib.contextmanager
def serving(engine: Engine, directory: Path, *words: str) -> Iterator[Server]:
    """A server that is ready, on a port of its own."""
    with started(engine, directory, *words) as server:
        until(server.is_ready, "the engine is ready", START_LIMIT_S)
        yield server


@contextlib.contextmanager
def started(engine: Engine, directory: Path, *words: str) -> Iterator[Server]:
    port = free_port()
    log = directory / "engine.log"
    with log.open("wb") as file:
        process = subprocess.Popen(
            [engine.path, *words, "--host", "127.0.0.1", "--port", str(port)],
            env=environment(directory),
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            cwd=directory,
        )

    try:
        yield Server(process, port, log)
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)

        process.wait()
