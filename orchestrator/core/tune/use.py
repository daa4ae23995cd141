"""What a profile is tuned for: the shape of a turn, and the prompts that have it. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from orchestrator.core.bench.estimator import median
from orchestrator.core.bench.workloads import CHAT, CODE, LONG, MTP, BenchPrompt, Workload, filling
from orchestrator.core.measure.request_stats import RequestRecord

LEAST_REQUESTS = 30
"""Answered requests of the history from which a shape is taken; of fewer it is chance."""

TOKENS_PER_WORD = 2.2
"""Of our filling, which is full of numbers: more than tokenizers make of it, so that a prompt is not too long."""

SPARE_TOKENS = 128
"""Of a context: the template's own, and the question's."""

LEAST_MEASURED = 24
"""Tokens of an answer: the first are unlike the others."""

LEAST_SHARE = 0.1

TRIAL_SHARE = 0.035
"""Of the budget that one start may take, with its prompts: so a dozen of them and the confirmation fit."""

SHORTEST = 256
"""Tokens of new prompt and answer in a turn that is worth measuring."""


@dataclass(frozen=True, slots=True)
class TuneUse:
    """The shape of a turn.

    :param shared_tokens: of the prompt that the engine has in its cache: the conversation so far
    :param new_tokens: of the prompt that are computed
    :param answer_tokens: that are generated
    :param source: where the figures come from
    :param measured_share: of new prompt and answer that is measured, where whole turns would take too long
    """

    name: str
    shared_tokens: int
    new_tokens: int
    answer_tokens: int
    source: str = "usual for it"
    measured_share: float = 1.0

    @property
    def measured_tokens(self) -> int:
        """Tokens of the answers that are measured."""
        return max(LEAST_MEASURED, round(self.answer_tokens * self.measured_share))


PROMPTS = 6

USES: Mapping[str, TuneUse] = {
    "chat": TuneUse("chat", 1200, 150, 250),
    "agent": TuneUse("agent", 10000, 1500, 300),
    "batch": TuneUse("batch", 100, 2000, 200),
}

_QUESTIONS: Mapping[str, tuple[Sequence[BenchPrompt], Sequence[BenchPrompt]]] = {
    "chat": (CHAT.prompts, MTP.prompts[2:8]),
    "agent": (CODE.prompts, (*MTP.prompts[:2], *CHAT.prompts[:4])),
    "batch": (LONG.prompts, tuple(reversed(CHAT.prompts))),
}
"""By use: what is asked in the search, and what is asked to confirm."""


def use_of(name: str, requests: Iterable[RequestRecord], context_tokens: int) -> TuneUse:
    """Return the use of this name as this user's own requests have it, cut to the context of a slot.

    Where enough requests tell what was in the cache, so do the tokens before the new ones; else those stay as they are
    usual for the use, and of an engine that does not tell it (the fork in the Responses and Messages APIs) all of a
    prompt counts as new.

    :param requests: that the profile answered
    """
    use = USES[name]
    found = [
        (each.prompt_tokens, each.output_tokens, each.cached_tokens)
        for each in requests
        if each.outcome == "complete" and each.prompt_tokens and each.output_tokens and each.output_tokens > 1
    ]
    told = [each for each in found if each[2] is not None]
    if len(told) >= LEAST_REQUESTS:
        found = told
        use = replace(use, shared_tokens=round(median([cached or 0 for _, _, cached in told])))

    if len(found) >= LEAST_REQUESTS:
        use = replace(
            use,
            new_tokens=max(16, round(median([prompt for prompt, _, _ in found]))),
            answer_tokens=min(1024, max(32, round(median([answer for _, answer, _ in found])))),
            source=f"the medians of {len(found)} requests",
        )

    return _within(use, context_tokens)


def _within(use: TuneUse, context_tokens: int) -> TuneUse:
    room = max(context_tokens - SPARE_TOKENS, SHORTEST)
    answer = min(use.answer_tokens, room // 2)
    new = min(use.new_tokens, room - answer)
    return replace(use, answer_tokens=answer, new_tokens=new, shared_tokens=min(use.shared_tokens, room - answer - new))


def sized(use: TuneUse, budget_s: float, start_s: float, prompt_tok_s: float, decode_tok_s: float) -> TuneUse:
    """Return the use with as much of its turns as there is time to measure, as many new tokens for each answered one.

    :param start_s: of the engine; `prompt_tok_s` and `decode_tok_s` as it was just seen to read and write
    """
    room_s = max(budget_s * TRIAL_SHARE - start_s, 1.0)
    shared = min(use.shared_tokens, max(LEAST_MEASURED, round(room_s / 4 * prompt_tok_s)))
    turn_s = use.new_tokens / prompt_tok_s + use.answer_tokens / decode_tok_s
    left_s = max(0.0, room_s - shared / prompt_tok_s)
    share = min(1.0, left_s / (PROMPTS * turn_s))
    return replace(use, shared_tokens=shared, measured_share=max(LEAST_SHARE, round(share, 3)))


def turns_of(use: TuneUse, *, fresh: bool) -> Workload:
    """Return six prompts of this shape.

    :param fresh: others than those of the search, to confirm what it found
    """
    salt = 500 if fresh else 0
    questions = _QUESTIONS[use.name][int(fresh)]
    words = round(use.new_tokens * use.measured_share / TOKENS_PER_WORD)
    prompts = [
        BenchPrompt(each.name, _long_enough(each.text, words, salt + number))
        for number, each in enumerate(questions, 1)
    ]
    shared = filling(max(8, round(use.shared_tokens / TOKENS_PER_WORD)), salt=salt + 99)
    return Workload(f"{use.name}, {'fresh' if fresh else 'search'}", tuple(prompts), shared)


def _long_enough(question: str, words: int, salt: int) -> str:
    """Return a question behind so much filling that it has about this many words; a longer one is cut."""
    own = question.split(" ")
    missing = words - len(own)
    return f"{filling(missing, salt=salt)}\n\n{question}" if missing > 8 else " ".join(own[: max(words, 8)])
