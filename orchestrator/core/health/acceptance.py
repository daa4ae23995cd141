"""Notice that an engine's drafts are mostly wrong, and say what that costs where it is known. Pure.

Where a bench has measured what a draft costs on this machine (`core/bench/mtp_gain.py`), that decides. Else it is a
share: published for one machine, MTP lost 12 % with 34 % of the drafts right and gained 11 % with 54 %
(llama.cpp pull request 24508). What a wrong draft costs does not depend on the temperature, so the bound does not
either; the temperature tells what is to be expected (under 50 % at temperature 1 was published), and what helps.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

LEAST_DRAFTS = 1000
LEAST_ANSWERS = 8
"""So many drafts in so many answers are judged together: texts differ."""

LOW, WELL = 0.5, 0.55
"""Shares of right drafts below which they are low, and from which they are well again, where their cost is unknown."""

LOSES, PAYS = 0.97, 1.0
"""The same for the speed with MTP over that without, where the cost is known."""

HIGH_TEMPERATURE = 0.9
ENGINES_TEMPERATURE = 0.8
"""What both engines sample with where nobody says otherwise."""

Gain = Callable[[float, float], float]
"""From the share of right drafts and the drafts in a step to the speed with MTP over that without."""


@dataclass(frozen=True, slots=True)
class DraftedAnswer:
    """One answer.

    :param tokens: that it has
    :param decode_ms: that they took
    """

    drafts: int
    accepted: int
    tokens: int
    decode_ms: float


@dataclass(frozen=True, slots=True)
class AcceptanceHistory:
    """The newest answers, as few as make a judgement, oldest first; and whether their drafts are too often wrong."""

    answers: tuple[DraftedAnswer, ...] = ()
    low: bool = False

    @property
    def drafts(self) -> int:
        return sum(each.drafts for each in self.answers)

    @property
    def share(self) -> float:
        """Of right drafts; 1 without any."""
        return sum(each.accepted for each in self.answers) / self.drafts if self.drafts else 1.0

    @property
    def drafts_per_step(self) -> float:
        steps = sum(max(each.tokens - 1 - each.accepted, 1) for each in self.answers)
        return self.drafts / steps if steps else 0.0

    @property
    def decode_tok_s(self) -> float | None:
        ms = sum(each.decode_ms for each in self.answers)
        return sum(each.tokens - 1 for each in self.answers) * 1000 / ms if ms > 0 else None


def add_drafted(
    history: AcceptanceHistory, answer: DraftedAnswer, gain: Gain | None
) -> tuple[AcceptanceHistory, Literal["low", "well"] | None]:
    """Return the history with one more answer, and the news.

    :param gain: None where the cost of a draft is not known
    :return: "low" when drafts have just become too often wrong, "well" when they no longer are
    """
    answers = (*history.answers, answer)
    while len(answers) > LEAST_ANSWERS and sum(each.drafts for each in answers[1:]) >= LEAST_DRAFTS:
        answers = answers[1:]

    history = replace(history, answers=answers)
    if len(answers) < LEAST_ANSWERS or history.drafts < LEAST_DRAFTS:
        return history, None

    value, low_at, well_at = history.share, LOW, WELL
    if gain is not None:
        value, low_at, well_at = gain(history.share, history.drafts_per_step), LOSES, PAYS

    low = value < (well_at if history.low else low_at)
    news: Literal["low", "well"] | None = None if low == history.low else "low" if low else "well"
    return replace(history, low=low), news


def describe_low(history: AcceptanceHistory, temperature: float, gain: Gain | None, source: str, profile: str) -> str:
    """Return what is wrong with the drafts, what it costs and what can be done, for people.

    :param temperature: of the profile; clients may send their own
    :param source: of what `gain` goes by, for people
    """
    said = f"{100 * history.share:.0f} % of the last {history.drafts} drafts of MTP were right"
    if history.share >= LOW:
        why = "too few for what a draft costs on this machine"
    elif temperature >= HIGH_TEMPERATURE:
        why = f"at the profile's temperature, {temperature:g}, under 50 % is usual"
    else:
        why = f"few for the profile's temperature, {temperature:g}; clients may send a higher one"

    fix = (
        "fewer drafts (`speculative.draft_max`) or surer ones (`speculative.draft_p_min`) waste less,"
        f" `orch profile set {profile} speculative.type=none` wastes none"
    )
    return f"{said} ({why}); {_cost(history, gain, source, profile)}; {fix}"


def _cost(history: AcceptanceHistory, gain: Gain | None, source: str, profile: str) -> str:
    rate = history.decode_tok_s
    ratio = 0.0 if gain is None else gain(history.share, history.drafts_per_step)
    if rate is None or not ratio > 0:
        compared = f"`orch bench {profile} {profile}+speculative.type=none` measures it"
        return f"whether that costs speed here is unknown, {compared}"

    plain = rate / ratio
    return f"that loses {plain - rate:.1f} tok/s: {rate:.1f} with MTP, about {plain:.1f} without (by {source})"
