"""The smoke test of a new build: the server is started with the known model, whose answer is computed beforehand."""

from __future__ import annotations

import asyncio
import os
import tempfile
import time
from typing import NamedTuple

from orchestrator.adapters.paths import Paths
from orchestrator.core.dialect.capabilities import Capabilities
from orchestrator.core.errors import OrchError
from orchestrator.engines.known.model import KnownModel, write_known_model
from orchestrator.engines.verify.trial import Subject, TrialError, trial

PROMPT = "Hello"
TOKENS = 24


class SmokeResult(NamedTuple):
    """A smoke test that passed: the prompt, and the answer, which is the one that was computed."""

    prompt: str
    text: str
    seconds: float


def smoke_test(server: str, capabilities: Capabilities, paths: Paths) -> SmokeResult:
    """Load the known model, on a device if there is one, and compare its answer with the computed one.

    :raises OrchError: when it does not start, does not answer, or says something else
    """
    with tempfile.TemporaryDirectory(prefix="orch-smoke-") as directory:
        path = os.path.join(directory, "known.gguf")
        # `llama` rather than the architecture with MTP: every build of both engines loads it.
        model = write_known_model(path, "llama")
        try:
            return asyncio.run(_smoke(Subject(server, capabilities, paths), path, model, directory))
        except TrialError as error:
            raise OrchError(
                f"the new build: {error.message}",
                details=error.details,
                hint="the builds installed before are as they were",
            ) from error


async def _smoke(subject: Subject, path: str, model: KnownModel, directory: str) -> SmokeResult:
    async with trial(subject.argv(path, "-np", "1"), directory, subject.paths) as engine:
        began = time.monotonic()
        body = {"prompt": PROMPT, "n_predict": TOKENS, "temperature": 0, "cache_prompt": False}
        answer = (await engine.ask("/completion", body)).get("content")

    expected = model.greedy_text(PROMPT, TOKENS)
    if answer != expected:
        raise OrchError(
            "the new build runs, and what it says is wrong",
            details=(f"it said:  {answer!r}", f"expected: {expected!r} (known model, temperature 0)"),
            hint="try another back end (`--backend cpu`) or commit; the builds installed before are as they were",
        )

    return SmokeResult(PROMPT, expected, time.monotonic() - began)
