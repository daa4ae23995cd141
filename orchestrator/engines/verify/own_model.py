"""The user's own model: an engine against itself, and one engine against another, on one text.

The engine reads a fixed text, and tells the likeliest next tokens at many places of it. Whether a prompt is read at
once, on top of what is cached, or beside others, the probabilities are to be the same but for rounding; and so between
two engines on the same file. Nothing here knows what the right answer is: `known_truth.py` does.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, replace

from orchestrator.adapters.engine_probe import drawn_tokens
from orchestrator.adapters.paths import Paths
from orchestrator.adapters.process.key_handover import make_key
from orchestrator.core.health.canary import DrawnToken
from orchestrator.core.health.outcomes import outcome_of_question
from orchestrator.core.profile.profile import EngineProfile, Profile
from orchestrator.core.profile.settings import Value
from orchestrator.core.profile.speculation import drafts_with_mtp
from orchestrator.core.verify.agreement import (
    Bounds,
    Reading,
    bounds_of,
    clear_tokens_drawn,
    compare_readings,
    describe,
)
from orchestrator.core.verify.checks import Check, Reproduction
from orchestrator.core.verify.relevance import kv_types_of
from orchestrator.engines.registry import Engine
from orchestrator.engines.render import render_profile
from orchestrator.engines.verify.text import prefixes
from orchestrator.engines.verify.trial import Trial, TrialError, trial

CONTEXT_TOKENS = 4096
SLOTS = 3
DRAWN = 8
"""Tokens that are drawn at each place, at temperature 0: each is one more position."""

LIKELY = 20
_BESIDE = 9
"""Prefixes that are read beside others."""

START_LIMIT_S = 900.0


@dataclass(frozen=True, slots=True)
class Candidate:
    """A model on an engine, as its profile would start it, with a small context.

    :param profile: for a file alone, one without settings
    """

    profile: Profile
    engine: Engine

    def __str__(self) -> str:
        return f"{self.profile.name}@{self.engine.id}"

    @property
    def settings(self) -> Mapping[str, Value]:
        return self.profile.for_engine(self.engine.id).settings

    @property
    def kv_types(self) -> tuple[str, str]:
        return kv_types_of(self.settings)


async def check_own_model(
    candidate: Candidate, paths: Paths, directory: str, say: Callable[[str], None]
) -> tuple[list[Check], Reading]:
    """Return the checks of an engine against itself, and what it read, for a comparison with another."""
    checks: list[Check] = []
    bounds = bounds_of(candidate.kv_types)
    fresh: list[tuple[DrawnToken, ...]] = []
    pieces: list[tuple[DrawnToken, ...]] = []
    stage = "answers"
    try:
        async with _started(candidate, paths, directory) as engine:
            say(f"{candidate}: each beginning of the text by itself")
            await _read(engine, fresh, cached=False)
            stage = "read in pieces as read at once"
            say(f"{candidate}: piece by piece, on what is cached")
            await _read(engine, pieces, cached=True)
            checks.append(agreement_check(stage, fresh, pieces, bounds, engine.argv))
            stage = "read beside others as read alone"
            say(f"{candidate}: beside others")
            checks.append(agreement_check(stage, fresh, await _read_beside(engine), bounds, engine.argv))

        if drafts_with_mtp(candidate.settings):
            stage = "MTP on as off"
            say(f"{candidate}: without MTP")
            without: list[tuple[DrawnToken, ...]] = []
            async with _started(candidate, paths, directory, mtp=False) as engine:
                await _read(engine, without, cached=False)
                checks.append(_drawn_check(stage, without, fresh, bounds, engine.argv))
    except TrialError as error:
        checks.append(Check(stage, False, error.message, "an answer", detail=" | ".join(error.details)))

    return checks, fresh


def agreement_check(name: str, one: Reading, other: Reading, bounds: Bounds, argv: tuple[str, ...]) -> Check:
    """Return the check that two readings are the same or close; the first prefix where they part shows it."""
    if not (_tells(one) and _tells(other)):
        return Check(name, None, detail="the engine tells no likelihoods")

    agreement, parted = compare_readings(one, other)
    body = {"prompt": prefixes()[parted or 0], "n_predict": 1, "temperature": 0, "n_probs": LIKELY}
    shown_by = Reproduction(argv, "/completion", {**body, "cache_prompt": False})
    likeness = agreement.likeness(bounds)
    ok = likeness != "different"
    return Check(name, ok, likeness, "close", None, describe(agreement), None if ok else shown_by)


def _drawn_check(name: str, told: Reading, drawn: Reading, bounds: Bounds, argv: tuple[str, ...]) -> Check:
    """Return the check that tokens which are clearly the likeliest were drawn with drafts, too."""
    clear, missed, where = clear_tokens_drawn(told, drawn)
    if not clear:
        return Check(name, None, detail="no token of the text is clear to this model")

    ok = 1 - missed / clear >= bounds.top
    body = {"prompt": prefixes()[where or 0], "n_predict": DRAWN, "temperature": 0, "n_probs": LIKELY}
    shown_by = None if ok else Reproduction(argv, "/completion", {**body, "cache_prompt": False})
    detail = f"of {clear} tokens that are clearly the likeliest without drafts"
    return Check(name, ok, clear - missed, clear, round((1 - bounds.top) * clear, 1), detail, shown_by)


def pair_check(other: str, one: Reading, reading: Reading, bounds: Bounds) -> Check:
    """Return the check that two engines read alike."""
    name = f"reads as {other}"
    if not (_tells(one) and _tells(reading)):
        return Check(name, None, detail="one of the two gave no answers, or tells no likelihoods")

    agreement, _ = compare_readings(one, reading)
    parted = "" if agreement.parted is None else f", first apart at position {agreement.parted}"
    likeness = agreement.likeness(bounds)
    return Check(name, likeness != "different", likeness, "same or close",
                 detail=describe(agreement) + parted)  # fmt: skip


def _tells(reading: Reading) -> bool:
    return any(step.likely for steps in reading for step in steps)


def _started(
    candidate: Candidate, paths: Paths, directory: str, *, mtp: bool = True
) -> AbstractAsyncContextManager[Trial]:
    adjust = _small if mtp else _small_without_drafts
    key, _ = make_key(os.path.join(directory, "keys"), f"verify-{os.getpid()}")
    launch = render_profile(paths, candidate.profile, candidate.engine, adjust=adjust, port=0, api_key_file=key.path)
    argv = _without_address(launch.argv)
    return trial(argv, directory, paths, environment=launch.env, start_limit_s=START_LIMIT_S, key=key.key)


def _small(profile: EngineProfile) -> EngineProfile:
    size = CONTEXT_TOKENS * SLOTS
    changed = {"context.size": size, "context.parallel": SLOTS, "cache.prompt_ram_mib": 0}
    return replace(profile, settings={**profile.settings, **changed})


def _small_without_drafts(profile: EngineProfile) -> EngineProfile:
    small = _small(profile)
    kept = {key: value for key, value in small.settings.items() if not key.startswith("speculative.")}
    return replace(small, settings=kept)


def _without_address(argv: Sequence[str]) -> tuple[str, ...]:
    """Drop host and port, which a trial chooses itself."""
    found = list(argv)
    for flag in ("--host", "--port"):
        at = found.index(flag)
        del found[at : at + 2]

    return tuple(found)


async def _read(engine: Trial, into: list[tuple[DrawnToken, ...]], *, cached: bool) -> None:
    """Read the text; what was read before the engine died is kept."""
    for prefix in prefixes():
        drawn = await _draw(engine, prefix, cached=cached)
        into.append(drawn)


async def _read_beside(engine: Trial) -> Reading:
    """Read as many prefixes at once as there are slots."""
    texts = prefixes()[:_BESIDE]
    found: list[tuple[DrawnToken, ...]] = []
    for begin in range(0, len(texts), SLOTS):
        asked = (_draw(engine, prefix, cached=False) for prefix in texts[begin : begin + SLOTS])
        found += await asyncio.gather(*asked)

    return found


async def _draw(engine: Trial, prompt: str, *, cached: bool) -> tuple[DrawnToken, ...]:
    body = {"prompt": prompt, "n_predict": DRAWN, "temperature": 0, "n_probs": LIKELY, "cache_prompt": cached}
    try:
        answer = await engine.ask("/completion", body)
    except TrialError as error:
        if outcome_of_question(ok=False, status=500, cut=False, detail=error.details[0]) != "answered":
            raise

        return ()  # the error is about the text that was drawn, such as half a character: it computes

    return drawn_tokens(answer.get("completion_probabilities"))
