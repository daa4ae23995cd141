"""From a spawned process to one that really answers: whose port it is, /health, then a canary.

A process that makes progress is never given up: the limit is on time without any (bytes read, log lines, CPU time).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic
from typing import Protocol

import anyio

from orchestrator.adapters.engine_probe import Canary, EngineProbe
from orchestrator.core.dialect.capabilities import Kind
from orchestrator.core.fleet.lifecycle_states import Failure

POLL_FIRST_S = 0.02
POLL_SLOWEST_S = 0.25
HEALTH_TIMEOUT_S = 2.0
MTP_PROMPTS = (
    "one two three one two three one two three one two",
    "0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3",
    "the cat sat on the mat, the cat sat on the mat, the cat",
)
"""Repetitive on purpose: even with a high `draft_p_min` a working drafter is sure of itself here."""

MTP_TOKENS = 24


class Process(Protocol):
    """What is asked of the engine's process."""

    def owns(self, port: int) -> bool | None:
        """Whether it listens there: True, False when somebody else does, None when nobody does."""
        ...

    def work_done(self) -> int:
        """A number that grows while the process makes progress."""
        ...


_SERVERS: dict[Kind, str] = {"upstream": "llama.cpp", "ik": "ik_llama.cpp"}
"""What each engine puts into its `Server` header."""

_BUILD_INFO = re.compile(r"b(\d+)-")


@dataclass(frozen=True, slots=True)
class Ended:
    """Loading went wrong while the process lives on."""

    failure: Failure


async def watch_loading(
    process: Process, probe: EngineProbe, port: int, stall_s: float, on_progress: Callable[[], None]
) -> Ended | None:
    """Wait until /health is good on a port that is ours.

    :param stall_s: give up after this long without any progress
    :return: None when loaded
    """
    pause_s = POLL_FIRST_S
    work = -1
    moved_at = monotonic()
    foreign = False
    while True:
        owner = process.owns(port)
        if owner is False and foreign:
            message = f"another process listens on port {port}; the engine that was started does not"
            return Ended(Failure("port_in_use", message, action="restart"))

        # Once may be the moment in which our own process dies: its files are gone then, and its listener is not yet.
        foreign = owner is False
        if owner and await probe.health(HEALTH_TIMEOUT_S) == "ok" and process.owns(port):
            return None

        done = process.work_done()
        if done != work:
            work = done
            moved_at = monotonic()
            on_progress()
        elif monotonic() - moved_at > stall_s:
            message = f"loading made no progress for {stall_s:g} s"
            return Ended(Failure("engine_bug", message, action="restart", phase="load"))

        await anyio.sleep(pause_s)
        pause_s = min(pause_s * 1.5, POLL_SLOWEST_S)


async def check_identity(probe: EngineProbe, kind: Kind, build_number: int | None) -> Ended | None:
    """Whether the engine that answers is the build that was started, as far as it says who it is.

    :param kind: the dialect that the build was started in
    :param build_number: None when the build does not know
    :return: None when nothing speaks against it
    """
    said = await probe.identity(HEALTH_TIMEOUT_S)
    expected = _SERVERS.get(kind)
    if said.server is not None and said.server in _SERVERS.values() and expected not in (None, said.server):
        message = f"the engine that answers says that it is `{said.server}`; `{expected}` was started"
    else:
        found = _BUILD_INFO.match(said.build_info or "")
        number = int(found.group(1)) if found else 0
        # 0 and 1 are what builds say that do not know their number.
        if number <= 1 or build_number is None or number == build_number:
            return None

        message = f"the engine that answers says that it is build {number}; build {build_number} was started"

    return Ended(Failure("engine_bug", message, action="give_up", hint="run `orch engines probe ID` for what it is"))


async def send_canary(
    probe: EngineProbe,
    *,
    embeddings: bool,
    reranking: bool,
    mtp: bool,
    drafts_in_log: Callable[[], int],
    timeout_s: float,
) -> Ended | None:
    """Ask for a real answer; with MTP, until drafts were really counted.

    :param drafts_in_log: drafts that the engine's log has counted so far (builds that do not say so in their answers)
    :param timeout_s: of each question; a process that is stopped right here answers none
    :return: None when it answered
    """
    if embeddings or reranking:
        answer = await (probe.embed(timeout_s) if embeddings else probe.rerank(timeout_s))
        return None if answer.ok else _unanswered(answer)

    prompts = MTP_PROMPTS if mtp else MTP_PROMPTS[:1]
    for prompt in prompts:
        answer = await probe.complete(prompt, MTP_TOKENS if mtp else 1, timeout_s)
        if not answer.ok:
            return _unanswered(answer)

        if not mtp or answer.draft_tokens or drafts_in_log():
            return None

    message = f"speculation with MTP was asked for, and {len(prompts)} answers were made without a single draft"
    return Ended(
        Failure(
            "engine_bug",
            message,
            action="give_up",
            phase="none",
            hint='set speculative.type = "none", or take a file with its MTP head and a build that loads it',
        )
    )


def _unanswered(answer: Canary) -> Ended:
    message = f"/health is good, but the canary was not answered: {answer.detail}"
    return Ended(Failure("engine_bug", message, action="restart", phase="runtime"))
