"""The smoke test of a new build: the server is started with the known model, whose answer is computed beforehand."""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import tempfile
from collections.abc import Sequence
from typing import NamedTuple

from orchestrator.adapters.engine_probe import EngineProbe
from orchestrator.adapters.paths import Paths
from orchestrator.adapters.process.child import Child, LaunchSpec, SpawnError, spawn
from orchestrator.adapters.process.ports import free_port
from orchestrator.core.dialect.environment import child_environment
from orchestrator.core.errors import OrchError
from orchestrator.engines.known.model import KnownModel, write_known_model

PROMPT = "Hello"
TOKENS = 24
START_LIMIT_S = 120.0
"""A CUDA build without code for the card compiles its kernels at the first start."""

ANSWER_LIMIT_S = 60.0
_POLL_S = 0.05
_GRACE_S = 5.0
_SHOWN_LINES = 6
_HOST = "127.0.0.1"


class SmokeResult(NamedTuple):
    """A smoke test that passed: the prompt, and the answer, which is the one that was computed."""

    prompt: str
    text: str
    seconds: float


class _LogTail:
    def __init__(self) -> None:
        self.lines: list[str] = []

    def write(self, lines: Sequence[str]) -> None:
        self.lines = [*self.lines, *lines][-200:]


def smoke_test(server: str, paths: Paths) -> SmokeResult:
    """Load the known model, on a device if there is one, and compare its answer with the computed one.

    :raises OrchError: when it does not start, does not answer, or says something else
    """
    with tempfile.TemporaryDirectory(prefix="orch-smoke-") as directory:
        model_path = os.path.join(directory, "known.gguf")
        # `llama` rather than the architecture with MTP: every build of both engines loads it.
        model = write_known_model(model_path, "llama")
        return asyncio.run(_smoke(server, model_path, model, directory, paths))


async def _smoke(server: str, model_path: str, model: KnownModel, directory: str, paths: Paths) -> SmokeResult:
    port = free_port()
    argv = (server, "-m", model_path, "-c", "512", "-np", "1", "-ngl", "99", "--host", _HOST, "--port", str(port))
    env = child_environment(os.environ, state_dir=paths.state, extra={})
    log = _LogTail()
    try:
        child = await spawn(LaunchSpec(argv, env, directory, "smoke"), log)
    except SpawnError as error:
        raise OrchError(f"the new build cannot be started: {error}") from error

    began = asyncio.get_running_loop().time()
    try:
        await _ready(child, port, log)
        answer = await asyncio.to_thread(_complete, port)
    finally:
        await child.stop(_GRACE_S)

    expected = model.greedy_text(PROMPT, TOKENS)
    if answer != expected:
        raise OrchError(
            "the new build runs, and what it says is wrong",
            details=(f"it said:  {answer!r}", f"expected: {expected!r} (known model, temperature 0)"),
            hint="try another back end (`--backend cpu`) or commit; the builds installed before are as they were",
        )

    return SmokeResult(PROMPT, answer, asyncio.get_running_loop().time() - began)


async def _ready(child: Child, port: int, log: _LogTail) -> None:
    probe = EngineProbe(_HOST, port, None)
    try:
        async with asyncio.timeout(START_LIMIT_S):
            while child.exit is None:
                if await probe.health(2.0) == "ok":
                    return

                await asyncio.sleep(_POLL_S)
    except TimeoutError:
        raise _failed(f"it was not ready within {START_LIMIT_S:g} s", log) from None
    finally:
        await probe.aclose()

    raise _failed(f"it ended while loading (exit status {child.exit.returncode})", log)


def _failed(reason: str, log: _LogTail) -> OrchError:
    return OrchError(
        f"the new build does not serve: {reason}",
        details=tuple(log.lines[-_SHOWN_LINES:]),
        hint="the builds installed before are as they were",
    )


def _complete(port: int) -> str:
    body = {"prompt": PROMPT, "n_predict": TOKENS, "temperature": 0, "cache_prompt": False}
    connection = http.client.HTTPConnection(_HOST, port, timeout=ANSWER_LIMIT_S)
    try:
        connection.request("POST", "/completion", json.dumps(body), {"content-type": "application/json"})
        response = connection.getresponse()
        text = response.read()
        if response.status != 200:
            raise OrchError(f"the new build answered {response.status}", details=(repr(text[:300]),))

        return str(json.loads(text)["content"])
    except (OSError, http.client.HTTPException, ValueError, KeyError, TypeError) as error:
        raise OrchError("the new build does not answer a completion", details=(repr(error),)) from error
    finally:
        connection.close()
