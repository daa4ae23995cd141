"""Known truth: an engine on generated models whose answers are computed here. Needs no model of the user's.

Arithmetic is tried on the coded model (`engines/known/coded.py`), in each weight type that the build loads; drafts and
sampling on the known model with MTP (`engines/known/model.py`), which is in `drawing.py`.
"""

from __future__ import annotations

import asyncio
import math
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

from orchestrator.adapters.engine_probe import drawn_tokens
from orchestrator.adapters.gguf.quantise import SUPER_BLOCK, TYPES, block_of
from orchestrator.core.health.canary import DrawnToken
from orchestrator.core.verify.checks import Check, Reproduction, at_most
from orchestrator.engines.known.coded import CodedModel, coded_model, prompt_of, write_coded_model
from orchestrator.engines.verify.drawing import check_drawing
from orchestrator.engines.verify.trial import CONTEXT_TOKENS, Subject, Trial, tried

PROMPTS = ((1, 1.0), (1, 0.0), (31, 0.75), (32, 0.25), (33, 0.75), (512, 0.25), (700, 0.75))
"""Tokens, and the share of the class +1. Kernels change at 32 rows, the default micro-batch ends at 512."""

TOKENS = 4
LONG_TOKENS = 300
"""Of one answer in f16: one token of a hundred that is lost or exchanged shows."""

_LIKELY = 8
_TOLD = -5.0
"""Log probability; rarer tokens are not compared."""

_UBATCHES = (31, 32, 33)
_KV_BOUNDS = {"q8_0": 0.15, "q4_0": 0.5}
_SLOTS = 4
_TWO_THREADS = ("-t", "2")
"""Here alone, so that work which threads share is tried, too."""

_PLAIN_BOUND, _BLOCK_BOUND, _SUPER_BLOCK_BOUND = 0.1, 0.4, 0.65
"""Nats of log probability. Healthy builds: at most 0.06 for f32 and f16, 0.21 for types in blocks of 32, 0.35 in super
blocks (activations are rounded to eight bits); the fork 0.1.5 with q4_1 and AVX2: 1.3 to 3 (docs/truth.md)."""


async def check_known_truth(subject: Subject, directory: str, *, full: bool, say: Callable[[str], None]) -> list[Check]:
    """Return every check; a start or an answer that fails is one that failed.

    :param directory: where the generated models are written, and stay: a failure is shown with them
    :param full: with micro-batches around 32 for every type, too
    :param say: takes what is tried next
    """
    checks: list[Check] = []
    making = [asyncio.create_task(asyncio.to_thread(coded_model, TYPES[0]))]
    for type, following in zip(TYPES, [*TYPES[1:], None], strict=True):
        say(f"weights in {type}")
        model = await making.pop()
        if following is not None:  # made while this one is tried
            making.append(asyncio.create_task(asyncio.to_thread(coded_model, following)))

        path = os.path.join(directory, f"coded-{type}.gguf")
        write_coded_model(path, model)
        arithmetic = partial(_ask_prompts, model, bound_of(type))
        checks += await tried(subject, directory, f"weights in {type}", (path, "-np", "1"), arithmetic)
        for ubatch in _UBATCHES if full else ():
            words = (path, "-np", "1", "-ub", str(ubatch))
            name = f"weights in {type}, micro-batch {ubatch}"
            checks += await tried(subject, directory, name, words, arithmetic)

        if type == "f16":
            checks += await check_context(subject, directory, path, model, say)

    checks += await check_drawing(subject, directory, say)

    return checks


def bound_of(type: str) -> float:
    """Return the nats by which log probabilities may be off with weights of this type."""
    block = block_of(type)
    if type in ("f32", "f16"):
        return _PLAIN_BOUND

    return _SUPER_BLOCK_BOUND if block == SUPER_BLOCK else _BLOCK_BOUND


async def check_context(
    subject: Subject, directory: str, path: str, model: CodedModel, say: Callable[[str], None]
) -> list[Check]:
    """Check what keeps and shares the context: a long answer, a cached prompt, many slots, quantised caches."""
    say("long answers, the cache and slots")

    async def one_slot(name: str, engine: Trial) -> list[Check]:
        found = [await _ask(model, _PLAIN_BOUND, "", engine, prompt_of(64, 0.25, 64), LONG_TOKENS)]
        found.append(await _ask_in_parts(model, engine))
        return [_renamed(check, f"{name}: {what}") for check, what in zip(found, ("long", "cached"), strict=True)]

    async def side_by_side(name: str, engine: Trial) -> list[Check]:
        prompts = [prompt_of(length, share, length + 1) for length, share in PROMPTS[2:]]
        asked = (_ask(model, _PLAIN_BOUND, name, engine, prompt, 6 * TOKENS) for prompt in prompts)
        return _worst_first(await asyncio.gather(*asked))[:1]

    slots = ("-np", str(_SLOTS), "-c", str(_SLOTS * CONTEXT_TOKENS), *_TWO_THREADS)
    checks = await tried(subject, directory, "answers", (path, "-np", "1", *_TWO_THREADS), one_slot)
    checks += await tried(subject, directory, "slots side by side", (path, *slots), side_by_side)
    for kv_type, bound in _KV_BOUNDS.items():
        say(f"cache in {kv_type}")
        words = (path, "-np", "1", "-ctk", kv_type, "-ctv", kv_type, *subject.flash_attention())
        checks += await tried(subject, directory, f"cache in {kv_type}", words, partial(_ask_prompts, model, bound))

    return checks


async def _ask_prompts(model: CodedModel, bound: float, name: str, engine: Trial) -> list[Check]:
    """Ask with prompts of several lengths; the worst is the check."""
    checks = []
    for length, share in PROMPTS:
        prompt = prompt_of(length, share, length)
        checks.append(await _ask(model, bound, f"{name}, prompt of {length}", engine, prompt, TOKENS))

    failed = [check for check in checks if not check.ok]
    # The shortest prompt that shows it is enough.
    failed[1:] = [replace(check, shown_by=None) for check in failed[1:]]
    return failed or [_renamed(_worst_first(checks)[0], name)]


async def _ask_in_parts(model: CodedModel, engine: Trial) -> Check:
    """Ask with the first part of a prompt, and then with all of it on top of what is cached."""
    prompt = prompt_of(700, 0.25, 5)
    await engine.ask("/completion", {**_body(prompt[:333], 1), "cache_prompt": True})
    return await _ask(model, _PLAIN_BOUND, "", engine, prompt, TOKENS, cached=True)


async def _ask(
    model: CodedModel, bound: float, name: str, engine: Trial, prompt: str, tokens: int, *, cached: bool = False
) -> Check:
    body = {**_body(prompt, tokens), "cache_prompt": cached}
    answer = await engine.ask("/completion", body)
    steps = drawn_tokens(answer.get("completion_probabilities"))
    text = answer.get("content")
    shown_by = Reproduction(engine.argv, "/completion", body)
    if len(steps) != tokens or "".join(step.text for step in steps) != text:
        said = f"{len(steps)} tokens: {text!r}"[:100]
        return Check(name, False, said, f"{tokens} tokens, as the text has them", shown_by=shown_by)

    observed, where = await asyncio.to_thread(distance, model, prompt, steps)
    return at_most(name, observed, bound, detail=where, shown_by=shown_by)


def _body(prompt: str, tokens: int) -> dict[str, object]:
    return {"prompt": prompt, "n_predict": tokens, "temperature": 0, "n_probs": _LIKELY}


def distance(model: CodedModel, prompt: str, steps: Sequence[DrawnToken]) -> tuple[float, str]:
    """Return by how much an answer is off, in nats of log probability, and where it is off the most.

    A token that is not the likeliest is off by as much as it is less likely; each is judged after the ones before it
    as the engine drew them.
    """
    worst, where = 0.0, ""
    tokens: list[int] = []
    for position, step in enumerate(steps):
        number = model.number_of.get(step.text)
        if number is None:
            return math.inf, f"token {position}: {step.text!r} is none that the model draws"

        truth = model.log_probabilities(prompt, tokens)
        best = max(truth)
        offs = {f"drew {step.text!r}": best - truth[number]}
        for text, probability in step.likely.items():
            other = model.number_of.get(text)
            told = math.log(max(probability, 1e-9))
            if other is not None and max(truth[other], told) >= _TOLD:
                offs[f"{text!r} at {math.exp(told):.3f}, computed {math.exp(truth[other]):.3f}"] = abs(
                    told - truth[other]
                )

        most = max(offs, key=offs.__getitem__)
        if offs[most] > worst:
            worst, where = offs[most], f"token {position}: {most}"

        tokens.append(number)

    return worst, where


def _worst_first(checks: Sequence[Check]) -> list[Check]:
    return sorted(checks, key=lambda each: (each.ok is not False, -_number(each.observed)))


def _number(observed: float | str | None) -> float:
    return observed if isinstance(observed, int | float) else 0.0


def _renamed(check: Check, name: str) -> Check:
    return replace(check, name=name)
