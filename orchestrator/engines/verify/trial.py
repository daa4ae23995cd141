"""An engine that is started for a trial: on a port of its own, asked, and ended."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import os
import re
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass

from orchestrator.adapters.engine_probe import EngineProbe
from orchestrator.adapters.paths import Paths
from orchestrator.adapters.process.child import Child, LaunchSpec, SpawnError, spawn
from orchestrator.adapters.process.ports import free_port
from orchestrator.core.dialect.capabilities import Capabilities
from orchestrator.core.dialect.environment import child_environment
from orchestrator.core.errors import OrchError
from orchestrator.core.verify.checks import Check

START_LIMIT_S = 120.0
"""A CUDA build without code for the card compiles its kernels at the first start."""

ANSWER_LIMIT_S = 300.0
CONTEXT_TOKENS = 2048
_HOST = "127.0.0.1"
_POLL_S = 0.05
_GRACE_S = 5.0
_SHOWN_LINES = 3
_KEPT_LINES = 400
_FATAL = re.compile(r"GGML_ASSERT|GGML_ABORT|terminate called|what\(\):")


class TrialError(OrchError):
    """The engine did not start, or gave no answer."""


class Trial:
    """A running engine.

    :ivar argv: its command line, without the port
    """

    def __init__(self, argv: tuple[str, ...], port: int, child: Child, log: _LogTail, key: str | None) -> None:
        self.argv = argv
        self._headers = {"content-type": "application/json", **({"authorization": f"Bearer {key}"} if key else {})}
        self._port = port
        self._child = child
        self._log = log

    async def ask(self, path: str, body: Mapping[str, object]) -> dict[str, object]:
        """Return the answer to a POST.

        :raises TrialError: when there is none, or it is an error
        """
        try:
            status, text = await asyncio.to_thread(self._post, path, json.dumps(body))
            answer = json.loads(text)
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise await self._failed(f"no answer to POST {path}: {error!r}") from error

        if status != 200 or not isinstance(answer, dict):
            raise TrialError(f"POST {path} was answered {status}", details=(repr(text[:300]),))

        return answer

    async def _failed(self, reason: str) -> TrialError:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(1.0):  # a connection breaks before its process is seen to have ended
                await self._child.wait()

        if self._child.exit is not None:
            reason = f"the engine ended (exit status {self._child.exit.returncode})"

        return TrialError(reason, details=self._log.last_words())

    def _post(self, path: str, body: str) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection(_HOST, self._port, timeout=ANSWER_LIMIT_S)
        try:
            connection.request("POST", path, body, self._headers)
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()


Question = Callable[[str, Trial], Awaitable[list[Check]]]


@dataclass(frozen=True, slots=True)
class Subject:
    """What is tried: a program, with what its help says it accepts."""

    program: str
    capabilities: Capabilities
    paths: Paths

    def argv(self, model: str, *words: str) -> tuple[str, ...]:
        """Return the command line for a small model, on a device if there is one."""
        found = (self.program, "-m", model, "-c", str(CONTEXT_TOKENS), "-ngl", "99", *words)
        if "-t" not in words:
            # A second one makes so small a model no faster, and many times slower beside other work.
            found = (*found, "-t", "1")

        # What a trial asks is never asked again, and the fork's cache in host memory can end it (0.1.5).
        return (*found, "-cram", "0") if self.capabilities.find("--cache-ram") else found

    def flash_attention(self) -> tuple[str, ...]:
        flag = self.capabilities.find("--flash-attn")
        if flag is None:
            return ()

        return ("-fa", "on") if flag.value else ("-fa",)


async def tried(subject: Subject, directory: str, name: str, words: Sequence[str], ask: Question) -> list[Check]:
    """Start the engine and ask; one that does not start or answer is a check that failed.

    :param words: the model's file, and flags
    """
    argv = subject.argv(*words)
    try:
        async with trial(argv, directory, subject.paths) as engine:
            return await ask(name, engine)
    except TrialError as error:
        shown = " | ".join(error.details)
        return [Check(name, False, error.message, "an answer", detail=shown)]


@contextlib.asynccontextmanager
async def trial(
    argv: Sequence[str], directory: str, paths: Paths, *, environment: Mapping[str, str] | None = None,
    start_limit_s: float = START_LIMIT_S, key: str | None = None,
) -> AsyncIterator[Trial]:  # fmt: skip
    """Start an engine and wait until it is healthy; it is ended at the end.

    :param argv: the program and its flags, without host and port
    :param directory: where it runs
    :param environment: the whole of it; None for what an engine gets by itself
    :param key: that the engine asks for
    :raises TrialError: when it does not start
    """
    port = free_port()
    env = child_environment(os.environ, state_dir=paths.state, extra={}) if environment is None else dict(environment)
    log = _LogTail()
    words = (*argv, "--host", _HOST, "--port", str(port))
    try:
        child = await spawn(LaunchSpec(words, env, directory, "trial"), log)
    except SpawnError as error:
        raise TrialError(f"it cannot be started: {error}") from error

    try:
        await _ready(child, port, log, start_limit_s)
        yield Trial(tuple(argv), port, child, log, key)
    finally:
        await child.stop(_GRACE_S)


class _LogTail:
    def __init__(self) -> None:
        self._lines: deque[str] = deque(maxlen=_KEPT_LINES)

    def write(self, lines: Sequence[str]) -> None:
        self._lines.extend(lines)

    def last_words(self) -> tuple[str, ...]:
        """Return the line that says why it ended, else what it said last: a debugger may have the very last word."""
        said = [line for line in self._lines if line.strip()]
        fatal = [line for line in said if _FATAL.search(line)]
        return tuple(fatal[-1:] or said[-_SHOWN_LINES:])


async def _ready(child: Child, port: int, log: _LogTail, limit_s: float) -> None:
    probe = EngineProbe(_HOST, port, None)
    try:
        async with asyncio.timeout(limit_s):
            while child.exit is None:
                if await probe.health(2.0) == "ok":
                    return

                await asyncio.sleep(_POLL_S)
    except TimeoutError:
        raise _unready(f"it was not ready within {limit_s:g} s", log) from None
    finally:
        await probe.aclose()

    raise _unready(f"it ended while loading (exit status {child.exit.returncode})", log)


def _unready(reason: str, log: _LogTail) -> TrialError:
    return TrialError(f"the engine does not serve: {reason}", details=log.last_words())
