"""The quick verification of a model on a build that was never verified together: at its first start, before it serves.

The engine reads the beginnings of a fixed text, once in pieces on top of its cache and once at once, and tells the
likeliest tokens that follow. Some seconds at most; `orch verify` reads more of it, and beside others.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from time import monotonic

import anyio.to_thread

from orchestrator.adapters.engine_probe import EngineProbe
from orchestrator.core.fleet.lifecycle_states import Failure
from orchestrator.core.fleet.readiness import contradicts_itself
from orchestrator.core.health.canary import DrawnToken
from orchestrator.core.verify.agreement import CLOSE, Bounds, bounds_of, compare_readings, describe
from orchestrator.core.verify.checks import Verdict
from orchestrator.core.verify.relevance import kv_types_of
from orchestrator.daemon.fleet.preparing import Launch, Preparer
from orchestrator.daemon.questions.canary import drew_odd_text, failure_of
from orchestrator.engines.verify.text import prefixes

LEAST_WAIT_S = 1.0
"""For an answer, so late as it may be: one that is given up is computed in vain."""

DRAWN = 4
ROUNDS = ((0, 5), (5, 9))
"""Beginnings of the text that are read in pieces and then at once, as far as the time goes: 100 tokens, 450 tokens."""

LEAST_POSITIONS = 8
"""Fewer tell too little: an engine that is so slow is verified by `orch verify` alone. One with drafts tells nine."""


@dataclass(frozen=True, slots=True)
class QuickResult:
    """:param failure: why it must not serve; None when it may, be it only because nothing was found out"""

    verdict: Verdict
    summary: str
    failure: Failure | None = None


async def verify_first(
    launch: Launch, preparer: Preparer, probe: EngineProbe, limit_s: float, record: Callable[[str, str], None]
) -> Failure | None:
    """Verify a launch, unless that was done, or it writes no text; what comes out is kept.

    :param record: notes an event for people: its kind, and a sentence
    :return: why it must not serve
    """
    settings = launch.profile.settings
    if (
        launch.verify_as is None
        or settings.get("server.embeddings") is True
        or settings.get("server.reranking") is True
    ):
        return None

    result = await read_first(probe, limit_s, bounds_of(kv_types_of(settings)))
    if result is None:
        return None

    record("first_reading", f"{launch.target}: {result.verdict}; {result.summary}")
    keep = partial(preparer.keep_verification, launch, result.verdict, "quick", result.summary)
    try:
        await anyio.to_thread.run_sync(keep)
    except OSError as error:
        record("first_reading", f"{launch.target}: the result could not be kept: {error}")

    return result.failure


async def read_first(probe: EngineProbe, limit_s: float, bounds: Bounds = CLOSE) -> QuickResult | None:
    """Have a loaded engine read, and compare what it has read when the time is over.

    :return: None when the engine went away meanwhile: its end is told elsewhere
    """
    until = monotonic() + limit_s
    at_once: list[Sequence[DrawnToken]] = []
    in_pieces: list[Sequence[DrawnToken]] = []
    texts = prefixes()
    for begin, end in ROUNDS:
        for into, cached in ((in_pieces, True), (at_once, False)):
            failure = await _read(probe, texts[begin:end], into, cached, until)
            if failure is not None:
                return None if failure.failure_class == "engine_bug" else QuickResult("unverified", failure.message)

            if any(in_pieces) and not any(step.likely for steps in in_pieces for step in steps):
                return QuickResult("unverified", "the engine tells no likelihoods")

        if monotonic() > until - limit_s / 2:
            break

    told = sum(1 for one in at_once for step in one if step.likely)
    if told < LEAST_POSITIONS:
        return QuickResult("unverified", f"{told} places of the text were told within {limit_s:g} s: too few")

    agreement, _ = compare_readings(at_once, in_pieces)
    likeness = agreement.likeness(bounds)
    summary = f"read at once and in pieces: {likeness}, {describe(agreement)}"
    if likeness == "different":
        return QuickResult("wrong", summary, contradicts_itself(describe(agreement)))

    return QuickResult("right", summary)


async def _read(
    probe: EngineProbe, texts: Sequence[str], into: list[Sequence[DrawnToken]], cached: bool, until: float
) -> Failure | None:
    """Read until all is read or the time is over."""
    for text in texts:
        left_s = until - monotonic()
        if left_s <= 0:
            return None

        answer = await probe.generate(text, DRAWN, cached=cached, timeout_s=max(left_s, LEAST_WAIT_S), budget_s=1.0)
        if not answer.canary.ok and answer.canary.status is None and not answer.canary.cut:
            return None  # it has no answer yet, and the time is over

        if not answer.canary.ok and not drew_odd_text(answer.canary):
            # A context that is full is no failure: what was read before is compared.
            return failure_of(answer.canary) if answer.canary.status is None or not into else None

        into.append(answer.steps)
        if answer.steps and not any(step.likely for step in answer.steps):
            return None  # nothing to compare: no more questions

    return None
