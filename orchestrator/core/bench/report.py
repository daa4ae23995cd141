"""The result of a bench as values: sums of each target, figures by prompt, verdict and conditions. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import exp, log
from typing import Any

from orchestrator.core.bench.blocks import (
    BenchOver,
    BenchPlan,
    BenchProgress,
    MeasuredBlock,
    estimator_blocks,
    next_step,
)
from orchestrator.core.bench.conditions import SIDES, BenchCondition, BenchSide, find_conditions
from orchestrator.core.bench.estimator import BenchEstimate, Side, Verdict, estimate, interval_of, level_of, median
from orchestrator.core.bench.figures import BenchAnswer
from orchestrator.core.quantities import shown_change


def bench_report(
    sides: Mapping[Side, BenchSide], plan: BenchPlan, progress: BenchProgress, tokens: int
) -> dict[str, Any]:
    """Return the report: the answer of `orch bench A B --json`, whatever has been measured so far.

    `ratio` is B's rate over A's, above 1 where B is faster, for times too; None before there are two pairs.
    """
    blocks = progress.measured
    found = estimate(estimator_blocks(plan, blocks), level_of(len(blocks)))
    step = next_step(plan, progress)
    verdict: Verdict = step.verdict if isinstance(step, BenchOver) else "undecided"
    conditions = find_conditions(sides, plan, progress, tokens)
    return {
        "a": _target(sides["a"], [block for block in blocks if block.side == "a"]),
        "b": _target(sides["b"], [block for block in blocks if block.side == "b"]),
        "metric": plan.metric,
        "blocks": len(blocks),
        **_interval(found),
        "verdict": verdict,
        "conditional": any(each["weighs"] for each in conditions),
        "complete": isinstance(step, BenchOver),
        "conditions": conditions,
        "prompts": _prompts(plan, blocks, found),
        "tokens": tokens,
        "seed": plan.seed,
    }


def _interval(found: BenchEstimate | None) -> dict[str, Any]:
    if found is None:
        return {"ratio": None, "low": None, "high": None, "level": None}

    return {
        "ratio": round(exp(found.mean), 4),
        "low": round(exp(found.low), 4),
        "high": round(exp(found.high), 4),
        "level": found.level,
    }


def _target(side: BenchSide, blocks: Sequence[MeasuredBlock]) -> dict[str, Any]:
    answers = [answer for block in blocks for answer in block.answers]
    devices = [sum(each.used_mib for each in block.devices) for block in blocks if block.devices]
    return {
        "target": side.name,
        "profile": side.profile,
        "engine": side.engine,
        "build": side.build,
        "sha256": side.sha256,
        "verified": side.verified,
        "settings": dict(side.settings),
        "model": side.model,
        "model_bytes": side.model_bytes,
        "model_type": side.model_type,
        "argv": list(side.argv),
        **summary(answers),
        **_decode_interval(blocks),
        "device_peak_mib": max(devices, default=None),
        "rss_mib": max((block.rss_mib for block in blocks if block.rss_mib is not None), default=None),
        "energy_j_per_token": _energy(blocks),
        "devices": sorted({each.name for block in blocks for each in block.devices}),
    }


def _decode_interval(blocks: Sequence[MeasuredBlock]) -> dict[str, float | None]:
    """Return the 95 % interval of the decode rate, by Student's t on the blocks: each has the same prompts.

    It holds for this bench alone, and is not that of the difference of two targets.
    """
    rates = [[log(each.decode_tok_s) for each in block.answers if each.decode_tok_s] for block in blocks]
    values = [sum(each) / len(each) for each in rates if each]
    if len(values) < 2:
        return {"decode_low": None, "decode_high": None}

    _, half = interval_of(values, 0.05)
    # The figure that is shown is the mean of the rates, not that of their logarithms: the interval is put around it.
    middle = _mean([each.decode_tok_s for block in blocks for each in block.answers]) or 0.0
    return {"decode_low": _rounded(middle * exp(-half)), "decode_high": _rounded(middle * exp(half))}


def summary(answers: Sequence[BenchAnswer]) -> dict[str, Any]:
    """Return the pooled figures of some answers.

    `decode_tok_s` is the mean of the prompts' rates, as most published figures are; `wall_tok_s` the tokens over the
    time that a client waited. `tokens_per_step` and `ms_per_step` tell better drafts from faster steps.
    """
    steps = sum(each.steps for each in answers)
    drafted = sum(each.draft_tokens for each in answers)
    wall_s = sum(each.wall_s for each in answers)
    tokens = sum(each.output_tokens for each in answers)
    return {
        "requests": len(answers),
        "decode_tok_s": _mean([each.decode_tok_s for each in answers]),
        "pooled_decode_tok_s": _ratio(
            sum(each.output_tokens - 1 for each in answers if each.output_tokens > 1),
            sum(each.output_ms for each in answers) / 1000,
        ),
        "wall_tok_s": _ratio(tokens, wall_s),
        "turn_s": _mean([each.wall_s for each in answers]),
        "prompt_tok_s": _mean([each.prompt_tok_s for each in answers]),
        "first_token_s": _mean([each.first_token_s for each in answers]),
        "tokens_per_step": _ratio(sum(each.output_tokens - 1 for each in answers if each.output_tokens > 1), steps),
        "ms_per_step": _ratio(sum(each.output_ms for each in answers), steps),
        "acceptance": _ratio(sum(each.draft_accepted for each in answers), drafted),
        "acceptance_by_position": _by_position(answers),
    }


def _prompts(plan: BenchPlan, blocks: Sequence[MeasuredBlock], found: BenchEstimate | None) -> list[dict[str, Any]]:
    rows = []
    for number, name in enumerate(plan.prompts):
        row: dict[str, Any] = {"name": name}
        for side in SIDES:
            own = [each for block in blocks if block.side == side for each in block.answers if each.prompt == name]
            row[side] = {
                "decode_tok_s": _median([each.decode_tok_s for each in own]),
                "turn_s": _median([each.wall_s for each in own]),
                "prompt_tok_s": _median([each.prompt_tok_s for each in own]),
                "first_token_s": _median([each.first_token_s for each in own]),
                "output_tokens": _median([each.output_tokens for each in own]),
                "acceptance": _ratio(sum(each.draft_accepted for each in own), sum(each.draft_tokens for each in own)),
            }

        row["ratio"] = round(exp(found.by_prompt[number]), 4) if found is not None else None
        rows.append(row)

    return rows


def _by_position(answers: Sequence[BenchAnswer]) -> list[float | None]:
    depth = max((len(each.by_depth) for each in answers), default=0)
    shares = []
    for position in range(depth):
        of = [each.by_depth[position] for each in answers if position < len(each.by_depth)]
        shares.append(_ratio(sum(accepted for _, accepted in of), sum(drafted for drafted, _ in of)))

    return shares


def _energy(blocks: Sequence[MeasuredBlock]) -> float | None:
    told = [block for block in blocks if block.energy_j is not None]
    joules = sum(block.energy_j or 0.0 for block in told)
    return _ratio(joules, sum(answer.output_tokens for block in told for answer in block.answers))


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return _rounded(sum(known) / len(known)) if known else None


def _median(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return _rounded(median(known)) if known else None


def _ratio(over: float, under: float) -> float | None:
    return _rounded(over / under) if under > 0 else None


def _rounded(value: float) -> float:
    return float(f"{value:.5g}")


def verdict_text(report: Mapping[str, Any]) -> str:
    """Return the verdict in one sentence, always with its interval."""
    if report["ratio"] is None:
        return "nothing can be said yet: fewer than two pairs of blocks were measured"

    interval = f"{shown_change(report['low'])} to {shown_change(report['high'])}"
    names = {side: f"{side.upper()} ({report[side]['target']})" for side in SIDES}
    match report["verdict"]:
        case "b_faster":
            text = f"{names['b']} is faster than {names['a']} by {shown_change(report['ratio'])} ({interval})"
        case "a_faster":
            turned = f"{shown_change(1 / report['high'])} to {shown_change(1 / report['low'])}"
            text = f"{names['a']} is faster than {names['b']} by {shown_change(1 / report['ratio'])} ({turned})"
        case "same":
            text = f"no difference worth having: B over A {shown_change(report['ratio'])} ({interval})"
        case _:
            text = f"undecided: B over A {shown_change(report['ratio'])} ({interval})"

    return f"{text} in {_METRIC_TEXTS[report['metric']]}, on these prompts" + (
        "; under conditions" if report["conditional"] else ""
    )


_METRIC_TEXTS = {
    "decode": "decoding",
    "turn": "the time of a whole answer",
    "prompt": "reading prompts",
    "ttft": "the time to the first token",
}


def shown_conditions(conditions: Sequence[BenchCondition]) -> list[str]:
    """Return the conditions as lines, those that weigh first."""
    ordered = sorted(conditions, key=lambda each: not each["weighs"])
    return [each["text"] if each["weighs"] else f"{each['text']} (without weight)" for each in ordered]
