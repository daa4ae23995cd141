"""The canary: the questions whose answers make a loaded engine ready, of the purpose that its profile has.

A generation is asked for twice, with a prompt of more than 64 tokens: read at once, and in small pieces, each on top
of what is cached of those before. Many rows at once and few go through other code of an engine, and one that computes
either of them wrongly contradicts itself: the fork 0.1.5 with AVX2 does so from batches of 32 on, while its answer
from a cache that was filled at once is as wrong as the first. It takes some seconds at most, on a slow machine with
fewer tokens. Embeddings and rankings are asked for with the longest input that a slot takes, as one batch has to hold
it. What was proven so a minute ago (the same profile, rung, model file and build) is asked one short thing: whoever
alternates between two models does not pay the proof each time.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from orchestrator.adapters.engine_probe import Canary, EngineProbe, Generation
from orchestrator.core.fleet.lifecycle_states import Failure
from orchestrator.core.fleet.readiness import refused_canary, unanswered_canary, wrong_answers
from orchestrator.core.health.canary import compare_answers
from orchestrator.core.health.outcomes import outcome_of_question

PROMPTS = (
    "one, two, three, four, five, six, seven, eight, nine, ten, " * 4 + "one, two, three,",
    "Monday, Tuesday, Wednesday, Thursday, Friday, Saturday, Sunday, " * 5 + "Monday, Tuesday,",
    "0, 1, 2, 3, 4, 5, 6, 7, 8, 9, " * 3 + "0, 1, 2,",
)
"""Repetitive on purpose: a model is sure of what follows, and so is a drafter, even with a high `draft_p_min`."""

PIECE_WORDS = 8
"""About 16 tokens."""

SHORT_PROMPTS = ("one two three one two", "0 1 2 3 0 1 2", "a b a b")
SHORT_CONTEXT = 512
"""Tokens; a model that takes each letter for a token reads 300 of the long prompts."""

TOKENS = 64
AGAIN_TOKENS = 16
MTP_TOKENS = 24
BUDGET_S = 3.0
"""For the tokens of one answer after its first: enough tokens on a fast machine, some on a slow one."""

LONGEST_INPUT = 8192
"""Tokens; a longer one takes minutes on a processor."""

DEFAULT_UBATCH = 512


@dataclass(frozen=True, slots=True)
class Purpose:
    """What an engine was started for.

    :param context_tokens: of one slot; None when the engine did not tell
    :param ubatch: tokens that one batch holds
    """

    embeddings: bool = False
    reranking: bool = False
    mtp: bool = False
    context_tokens: int | None = None
    ubatch: int = DEFAULT_UBATCH


async def send_canary(
    probe: EngineProbe,
    *,
    embeddings: bool,
    reranking: bool,
    mtp: bool,
    drafts_in_log: Callable[[], int],
    undrafted: Callable[[int], Failure],
    timeout_s: float,
    context_tokens: int | None = None,
    ubatch: int = DEFAULT_UBATCH,
    proven: bool = False,
) -> Failure | None:
    """Ask for real answers; with MTP, until drafts were really counted.

    :param drafts_in_log: drafts that the engine's log has counted so far (builds that do not say so in their answers)
    :param undrafted: returns the failure of so many answers without a draft
    :param timeout_s: of each question; a process that is stopped right here answers none
    :param context_tokens: of one slot; None when the engine did not tell
    :param ubatch: tokens that one batch holds
    :param proven: the same has answered all of it before: one short answer will do, and without it all is asked again
    :return: None when it answered
    """
    purpose = Purpose(embeddings, reranking, mtp, context_tokens, ubatch)
    if proven and await _answers_briefly(probe, purpose, timeout_s):
        return None

    if embeddings or reranking:
        return await _ask_about_inputs(probe, purpose, timeout_s)

    return await _ask_for_text(probe, purpose, drafts_in_log, timeout_s, undrafted)


async def _answers_briefly(probe: EngineProbe, purpose: Purpose, timeout_s: float) -> bool:
    if purpose.embeddings or purpose.reranking:
        return (await (probe.embed if purpose.embeddings else probe.rerank)(timeout_s)).ok

    brief = await probe.generate(SHORT_PROMPTS[0], 1, cached=False, timeout_s=timeout_s, budget_s=BUDGET_S)
    return brief.canary.ok and bool(brief.canary.predicted_tokens)


async def _ask_for_text(
    probe: EngineProbe,
    purpose: Purpose,
    drafts_in_log: Callable[[], int],
    timeout_s: float,
    undrafted_failure: Callable[[int], Failure],
) -> Failure | None:
    small = purpose.context_tokens is not None and purpose.context_tokens < SHORT_CONTEXT
    prompts = list(SHORT_PROMPTS if small else PROMPTS)
    tokens, budget_s = (MTP_TOKENS, timeout_s) if purpose.mtp else (TOKENS, BUDGET_S)
    if small:
        tokens = min(tokens, max((purpose.context_tokens or 0) // 4, 1))

    failure: Failure | None = None
    answers = undrafted = 0
    while prompts:
        prompt = prompts.pop(0)
        fresh = await probe.generate(prompt, tokens, cached=False, timeout_s=timeout_s, budget_s=budget_s)
        if not fresh.canary.ok:
            failure = failure_of(fresh.canary)
            if failure.failure_class == "bad_flag" and not small:  # a context that is smaller than it was said to be
                small, prompts, tokens = True, list(SHORT_PROMPTS), 1
            elif failure.permanent or fresh.canary.status is None:
                return failure
            elif drew_odd_text(fresh.canary):
                failure = None  # it computes

            continue

        answers += 1
        if purpose.mtp and not fresh.canary.draft_tokens and not drafts_in_log():
            undrafted += 1
            continue

        again = await _ask_in_pieces(probe, prompt, timeout_s, budget_s)
        failure = _disagreement(fresh, again) if again.canary.ok else failure_of(again.canary)
        if failure is None:
            return None

        if again.canary.ok and answers - undrafted > 1:
            return failure  # two prompts, and each had two answers

    return undrafted_failure(answers) if undrafted and undrafted == answers else failure


async def _ask_in_pieces(probe: EngineProbe, prompt: str, timeout_s: float, budget_s: float) -> Generation:
    """Ask for the same, having the prompt read piece by piece; the answer, or that of the piece which had none."""
    words = prompt.split(" ")
    for end in range(PIECE_WORDS, len(words), PIECE_WORDS):
        # The first one drops what was read at once.
        cached = end > PIECE_WORDS
        piece = await probe.generate(" ".join(words[:end]), 1, cached=cached, timeout_s=timeout_s, budget_s=budget_s)
        if not piece.canary.ok and not drew_odd_text(piece.canary):
            return piece

    return await probe.generate(prompt, AGAIN_TOKENS, cached=True, timeout_s=timeout_s, budget_s=budget_s)


def _disagreement(fresh: Generation, again: Generation) -> Failure | None:
    tokens = (fresh.canary.predicted_tokens or 0) + (again.canary.predicted_tokens or 0)
    match compare_answers(fresh.steps, again.steps, tokens):
        case "empty":
            return unanswered_canary("the answer has no token")
        case "differ":
            return wrong_answers(*("".join(step.text for step in each.steps) for each in (fresh, again)))
        case _:
            return None


async def _ask_about_inputs(probe: EngineProbe, purpose: Purpose, timeout_s: float) -> Failure | None:
    """Ask with a short input, then with the longest one, or with one that is longer than a batch where that is less."""
    ask = probe.embed if purpose.embeddings else probe.rerank
    answer = await ask(timeout_s)
    if not answer.ok:
        return failure_of(answer)

    text = await _long_text(probe, purpose, timeout_s)
    if text is None:
        return None

    answer = await ask(timeout_s, text)
    # One that only takes long has answered before: a limit on its speed is none of ours.
    slow = not answer.ok and answer.status is None and not answer.cut
    return None if answer.ok or slow else failure_of(answer)


async def _long_text(probe: EngineProbe, purpose: Purpose, timeout_s: float) -> str | None:
    """Return a text of about as many tokens as an input may have; None when that cannot be told."""
    room = (purpose.context_tokens or 0) - 32  # what begins and ends it, and a query
    wanted = min(room, purpose.ubatch + 32 if room > purpose.ubatch else room, LONGEST_INPUT)
    sample = await probe.count_tokens("word " * 64, timeout_s) if wanted > 0 else None
    if not sample:
        return None

    words = math.ceil(wanted * 64 / sample)
    counted = await probe.count_tokens("word " * words, timeout_s)
    while counted is not None and counted > room and words > 1:
        words = words * 9 // 10
        counted = await probe.count_tokens("word " * words, timeout_s)

    return "word " * words if counted else None


def drew_odd_text(answer: Canary) -> bool:
    """Return whether an error is about the text that was drawn, such as half a character."""
    return outcome_of_question(ok=False, status=500, cut=False, detail=answer.detail) == "answered"


def failure_of(answer: Canary) -> Failure:
    return refused_canary(answer.status, answer.detail) or unanswered_canary(answer.detail)
