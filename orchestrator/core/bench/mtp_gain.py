"""Whether MTP pays on this machine: what benches measured of the same settings with it and without. Pure.

Drafts are paid for in each step, and only those that are right give anything back. With `n` drafts a step of which the
share `a` is right, and a cost of `c` plain steps a draft, MTP is (1 + a n) / (1 + c n) times as fast as none: it pays
while `a` is above `c`. `c` is the machine's, and follows from one measurement of both.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from math import exp
from typing import Any, Literal

from orchestrator.core.bench.blocks import MeasuredBlock, estimator_blocks, lacks_figure
from orchestrator.core.bench.conditions import SIDES, BenchSide
from orchestrator.core.bench.estimator import SAME_WITHIN, Side, estimate, level_of, median
from orchestrator.core.bench.figures import Metric
from orchestrator.core.bench.records import BenchSpec
from orchestrator.core.bench.report import summary
from orchestrator.core.bench.text import shown
from orchestrator.core.identities import ModelIdentity, build_name
from orchestrator.core.quantities import shown_change

COMPARED: tuple[Metric, ...] = ("decode", "prompt")

NO_SPEED = ("sampling.", "chat.", "reasoning.", "server.", "cache.")
"""Settings that change nothing of what a bench measures: it sends its own sampling, and has no prompt cached."""

LEAST_UNCERTAIN = 0.1
"""By so much one of two figures without an interval has to be lower to be called so."""

LEAST_PROMPT_LOSS = 0.05

MtpFindingKind = Literal["mtp_slower", "mtp_slower_prompts"]


@dataclass(frozen=True, slots=True)
class MtpRatio:
    """The rate with MTP over the rate without, above 1 where MTP is faster.

    :param high: end of the interval, as `low`; None where each was measured once
    :param figures: both, for people: `19.2 against 23.7 tok/s`
    """

    ratio: float
    low: float | None
    high: float | None
    figures: str

    def is_lower(self, least: float) -> bool:
        """Return whether MTP is certainly slower, and by this share at least."""
        if self.high is None:
            return self.ratio <= 1 - max(LEAST_UNCERTAIN, least)

        return self.high < 1 and self.ratio <= 1 - least


@dataclass(frozen=True, slots=True)
class MtpMeasurement:
    """What one bench or tuning measured with MTP and without.

    :param source: for people, `bench 12`
    :param ratios: of a bench for decoding and prompts, of a tuning for turns
    :param when_s: Unix time
    :param draft_cost: of one draft, in plain steps; None where the bench does not tell it
    """

    source: str
    when_s: float
    ratios: Mapping[Metric, MtpRatio]
    draft_cost: float | None = None


@dataclass(frozen=True, slots=True)
class MtpFinding:
    """Something that MTP costs, in a sentence with the figures, and the command against it."""

    kind: MtpFindingKind
    message: str
    hint: str


def speed_settings(settings: Mapping[str, Any]) -> dict[str, str]:
    """Return the settings on which a speed depends, as text."""
    return {key: str(value) for key, value in settings.items() if not key.startswith(NO_SPEED)}


def mtp_and_none(arms: Sequence[Mapping[str, Any]]) -> tuple[int, int] | None:
    """Return which of two arms drafts with MTP and which not at all, where nothing else differs between them.

    :param arms: the settings of each
    :return: their indices; None where it is no such comparison
    """
    if len(arms) != 2:
        return None

    texts = [speed_settings(each) for each in arms]
    types = [each.get("speculative.type", "none") for each in texts]
    others = [{key: value for key, value in each.items() if not key.startswith("speculative.")} for each in texts]
    if others[0] != others[1]:
        return None

    return next(((k, 1 - k) for k in (0, 1) if "mtp" in types[k] and types[1 - k] == "none"), None)


def measured_by_pair(
    source: str, when_s: float, spec: BenchSpec, blocks: Sequence[MeasuredBlock]
) -> MtpMeasurement | None:
    """Return what a bench of two targets measured; None where they are no MTP and none, or before there are two pairs.

    :param blocks: of whole pairs
    """
    arms = mtp_and_none([spec.sides[side].all_settings for side in SIDES])
    if arms is None:
        return None

    mtp: Side = SIDES[arms[0]]
    figures = {
        side: summary([answer for block in blocks if block.side == side for answer in block.answers]) for side in SIDES
    }
    plain = figures[SIDES[arms[1]]]
    ratios: dict[Metric, MtpRatio] = {}
    for metric in COMPARED:
        plan = replace(spec.plan, metric=metric)
        if any(lacks_figure(block, plan) for block in blocks):
            continue

        found = estimate(estimator_blocks(plan, blocks), level_of(len(blocks)))
        if found is None:
            return None

        ends = sorted(exp(value if mtp == "b" else -value) for value in (found.low, found.high))
        key = f"{metric}_tok_s"
        ratios[metric] = MtpRatio(
            exp(found.mean if mtp == "b" else -found.mean), ends[0], ends[1], _figures(figures[mtp][key], plain[key])
        )

    cost = None
    if "decode" in ratios:
        cost = draft_cost(ratios["decode"].ratio, figures[mtp]["tokens_per_step"], figures[mtp]["acceptance"])

    return MtpMeasurement(source, when_s, ratios, cost)


def measured_by_depth(source: str, when_s: float, result: Mapping[str, Any]) -> MtpMeasurement | None:
    """Return what a bench by depth measured: medians over the depths, each of which was measured twice."""
    series = result["series"]
    arms = mtp_and_none([each.get("all_settings", {}) for each in series])
    if arms is None:
        return None

    by_depth = [{row["depth"]: row for row in series[k]["points"]} for k in arms]
    ratios: dict[Metric, MtpRatio] = {}
    for metric in COMPARED:
        key = f"{metric}_tok_s"
        rows = [(by_depth[0][at][key], by_depth[1][at][key]) for at in by_depth[0].keys() & by_depth[1].keys()]
        pairs = [(mtp, none) for mtp, none in rows if mtp and none]
        if pairs:
            ratio = median([mtp / none for mtp, none in pairs])
            medians = [median([pair[k] for pair in pairs]) for k in (0, 1)]
            ratios[metric] = MtpRatio(ratio, None, None, _figures(*medians))

    return MtpMeasurement(source, when_s, ratios)


def draft_cost(ratio: float, tokens_per_step: float | None, acceptance: float | None) -> float | None:
    """Return what a draft costs, in plain steps; None where nothing was drafted, or the ratio is none.

    :param ratio: the speed with MTP over that without
    """
    if not tokens_per_step or not acceptance or tokens_per_step <= 1 or not ratio > 0:
        return None

    drafts = (tokens_per_step - 1) / acceptance
    return max((tokens_per_step / ratio - 1) / drafts, 0.0)


def gain_at(cost: float, acceptance: float, drafts_per_step: float) -> float:
    """Return the speed with MTP over that without.

    :param cost: of one draft, in plain steps
    """
    return (1 + acceptance * drafts_per_step) / (1 + cost * drafts_per_step)


def holds_for(side: BenchSide, build: str, model: str, settings: Mapping[str, Any]) -> bool:
    """Return whether what was measured of a bench's side holds for a start.

    :param build: its name, as `core/identities.build_name` has it
    :param model: the identity of its file, as text
    """
    found = ModelIdentity.parse(model)
    return (
        build == build_name(side.build, side.sha256)
        and (found.name, found.size_bytes) == (side.model.rpartition("/")[2], side.model_bytes)
        and speed_settings(side.all_settings) == speed_settings(settings)
    )


def mtp_findings(found: MtpMeasurement, profile: str) -> tuple[MtpFinding, ...]:
    """Return what MTP costs, as far as it was measured with enough certainty."""
    findings = []
    day = datetime.fromtimestamp(found.when_s, UTC).date()
    off = f"`orch profile set {profile} speculative.type=none`"
    decode, prompt, turn = (found.ratios.get(metric) for metric in ("decode", "prompt", "turn"))
    speed = decode or turn
    if speed is not None and speed.is_lower(1 - exp(-SAME_WITHIN)):
        text = f"MTP is slower than none on this machine: {_compared(speed)}; {found.source}, {day}"
        findings.append(MtpFinding("mtp_slower", text, off))
    elif prompt is not None and prompt.is_lower(LEAST_PROMPT_LOSS):
        gained = f", while it decodes {shown_change(decode.ratio)}" if decode is not None else ""
        text = f"MTP makes prompts slower: {_compared(prompt)}{gained}; {found.source}, {day}"
        hint = f"for long prompts with short answers, {off}; `orch tune {profile} --for agent` weighs both"
        findings.append(MtpFinding("mtp_slower_prompts", text, hint))

    return tuple(findings)


def describe_gain(found: MtpMeasurement) -> str:
    """Return what was measured, for people."""
    day = datetime.fromtimestamp(found.when_s, UTC).date()
    texts: Mapping[Metric, str] = {"decode": "MTP decodes {}", "prompt": "prompts {}", "turn": "{}"}
    said = "; ".join(texts[metric].format(_compared(each)) for metric, each in found.ratios.items())
    return f"{said}; {found.source}, {day}"


def _compared(found: MtpRatio) -> str:
    interval = ""
    if found.low is not None and found.high is not None:
        interval = f" ({shown_change(found.low)} to {shown_change(found.high)})"

    return f"{found.figures}, {shown_change(found.ratio)}{interval}"


def _figures(with_tok_s: float, without_tok_s: float) -> str:
    return f"{shown(with_tok_s)} against {shown(without_tok_s)} tok/s"
