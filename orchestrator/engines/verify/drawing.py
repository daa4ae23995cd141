"""Sampling and drafts: whether what is drawn at temperature 1 has its distribution, with drafts and without.

The known model (`engines/known/model.py`) draws each piece with a probability that its tables hold, and its draft head
is wrong at states that are known, so that the drafts which one text must have met can be counted from the text.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

from orchestrator.core.dialect.capabilities import Capabilities
from orchestrator.core.verify.checks import Check, Reproduction, at_most
from orchestrator.core.verify.distribution import fit_of_draws, spread_of_texts
from orchestrator.engines.known.model import KnownModel, write_known_model
from orchestrator.engines.verify.trial import Subject, Trial, tried

PROMPT = "Hello"
GREEDY_TOKENS = 200
SEEDS = tuple(range(1, 9))
DRAWN_TOKENS = 120
DRAFT_MAX = 3
_DRAFTS_OFF_BY = 0.03
"""Of the share of drafts that were accepted: the last step of an answer may be cut by some tokens."""


async def check_drawing(
    subject: Subject, directory: str, say: Callable[[str], None], seeds: Sequence[int] = SEEDS
) -> list[Check]:
    """Check greedy text, draws and seeds, with MTP and without where the build has that."""
    say("sampling")
    words = mtp_words(subject.capabilities)
    without = Check("MTP", None, detail="this build has no MTP")
    if words is not None:
        path = os.path.join(directory, "known-mtp.gguf")
        model = write_known_model(path)
        off = await tried(subject, directory, "MTP off", (path, "-np", "1"), partial(_draw, model, seeds, False))
        if off[0].name != "MTP off":  # it loads the model, and answers
            say("drafts by MTP")
            draw = partial(_draw, model, seeds, True)
            return [*off, *await tried(subject, directory, "MTP on", (path, "-np", "1", *words), draw)]

        without = Check("MTP", None, detail=f"the test model with MTP (qwen35moe): {off[0].observed}")

    path = os.path.join(directory, "known.gguf")
    model = write_known_model(path, "llama")
    checks = await tried(subject, directory, "sampling", (path, "-np", "1"), partial(_draw, model, seeds, False))
    return [*checks, without]


def mtp_words(capabilities: Capabilities) -> tuple[str, ...] | None:
    """Return the flags that switch MTP on, with `DRAFT_MAX` drafts; None where the build has none."""
    if capabilities.find("--spec-draft-n-max"):
        return ("--spec-type", "draft-mtp", "--spec-draft-n-max", str(DRAFT_MAX))

    if capabilities.spec_stages:
        return ("--spec-type", f"mtp:n_max={DRAFT_MAX},p_min=0.0")

    if capabilities.find("-mtp"):
        return ("-mtp", "--draft-max", str(DRAFT_MAX), "--draft-p-min", "0.0")

    return None


class _Drawn(NamedTuple):
    text: str
    tokens: list[int] | None
    drafted: int
    accepted: int
    shown_by: Reproduction


async def _draw(model: KnownModel, seeds: Sequence[int], drafts: bool, name: str, engine: Trial) -> list[Check]:
    greedy_body = {"prompt": PROMPT, "n_predict": GREEDY_TOKENS, "temperature": 0, "cache_prompt": False}
    greedy = await _ask(model, engine, greedy_body)
    truth = model.greedy_text(PROMPT, GREEDY_TOKENS)
    same = greedy.text == truth
    checks = [
        Check(f"{name}: text at temperature 0", same, _from_where(greedy.text, truth), _from_where(truth, greedy.text),
              shown_by=None if same else greedy.shown_by)
    ]  # fmt: skip
    drawn = [await _ask(model, engine, _drawing_body(seed)) for seed in seeds]
    again = await _ask(model, engine, _drawing_body(seeds[0]))
    checks += [_distribution(model, name, drawn), _spread(model, name, drawn), _seeds(name, drawn)]
    if not drafts:
        same = again.text == drawn[0].text
        checks.append(Check(f"{name}: one seed, one text", same, "one text" if same else "another", "one text"))
        return checks

    return [*checks, _drafts(model, name, [greedy], GREEDY_TOKENS, "temperature 0"),
            _drafts(model, name, drawn, DRAWN_TOKENS, "temperature 1")]  # fmt: skip


def _drawing_body(seed: int) -> dict[str, object]:
    plain = {"temperature": 1.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0, "repeat_penalty": 1.0}
    return {"prompt": PROMPT, "n_predict": DRAWN_TOKENS, "seed": seed, "cache_prompt": False, **plain}


async def _ask(model: KnownModel, engine: Trial, body: dict[str, object]) -> _Drawn:
    answer = await engine.ask("/completion", body)
    text = str(answer.get("content"))
    timings = answer.get("timings")
    counts = timings if isinstance(timings, dict) else {}
    return _Drawn(
        text,
        model.tokens_of(PROMPT, text),
        _number(counts.get("draft_n")),
        _number(counts.get("draft_n_accepted")),
        Reproduction(engine.argv, "/completion", body),
    )


def _number(value: object) -> int:
    return value if isinstance(value, int) else 0


def _distribution(model: KnownModel, name: str, drawn: list[_Drawn]) -> Check:
    """Compare what followed each piece with its probabilities."""
    name = f"{name}: distribution at temperature 1"
    shown_by = drawn[0].shown_by
    rows: dict[int, Counter[int]] = {}
    for each in drawn:
        if each.tokens is None or len(each.tokens) < DRAWN_TOKENS:
            return Check(name, False, each.text[:60], "a text that the model can give", shown_by=shown_by)

        before = model.last_token(PROMPT)
        for token in each.tokens:
            rows.setdefault(model.state[before], Counter())[token] += 1
            before = token

    fit = fit_of_draws(rows, {state: model.rows[state] for state in rows})
    detail = f"G of {fit.degrees} degrees of freedom, {len(drawn)} texts of {DRAWN_TOKENS} tokens"
    return at_most(name, fit.statistic, round(fit.limit, 1), detail=detail, shown_by=shown_by)


def _spread(model: KnownModel, name: str, drawn: list[_Drawn]) -> Check:
    """Compare how texts differ among each other with how independent draws would."""
    texts: list[list[tuple[float, bool]]] = []
    for each in drawn:
        before, steps = model.last_token(PROMPT), []
        for token in each.tokens or ():
            row = model.rows[model.state[before]]
            best = max(row.values())
            steps.append((best, row[token] == best))
            before = token

        texts.append(steps)

    fit = spread_of_texts(texts)
    limit = round(fit.limit, 1)
    return at_most(f"{name}: steps drawn independently", fit.statistic, limit, shown_by=drawn[0].shown_by)


def _seeds(name: str, drawn: list[_Drawn]) -> Check:
    texts = len({each.text for each in drawn})
    shown_by = None if texts == len(drawn) else drawn[1].shown_by
    return Check(f"{name}: seeds differ, texts differ", texts == len(drawn), texts, len(drawn), 0, shown_by=shown_by)


def _drafts(model: KnownModel, name: str, drawn: list[_Drawn], asked: int, what: str) -> Check:
    """Compare the share of drafts that the engine counted as accepted with the one that the texts must have had."""
    name = f"{name}: accepted drafts, {what}"
    counts = [model.drafting_along(each.tokens, asked, DRAFT_MAX) for each in drawn if each.tokens is not None]
    drafted, accepted = sum(each.drafted for each in drawn), sum(each.accepted for each in drawn)
    if not drafted or not counts:
        return Check(name, None, detail="the engine counts no drafts in its answers")

    share = accepted / drafted
    expected = sum(count.accepted for count in counts) / max(sum(count.drafted for count in counts), 1)
    ok = abs(share - expected) <= _DRAFTS_OFF_BY
    shown_by = None if ok else drawn[0].shown_by
    detail = f"{accepted} of {drafted} drafts"
    return Check(name, ok, round(share, 4), round(expected, 4), _DRAFTS_OFF_BY, detail, shown_by)


def _from_where(text: str, other: str) -> str:
    """Return a text from where it leaves the other one, or its length where it does not."""
    if text == other:
        return f"{len(text)} characters"

    pairs = enumerate(zip(text, other, strict=False))
    at = next((index for index, (a, b) in pairs if a != b), min(len(text), len(other)))
    return f"at {at}: {text[at : at + 24]!r}"
