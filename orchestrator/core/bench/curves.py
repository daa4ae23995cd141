"""Speed against context depth, and against the number of clients: sums, a fitted line, and where it breaks. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from orchestrator.core.bench.estimator import median
from orchestrator.core.bench.figures import BenchAnswer

LEAST_POINTS = 3
BREAK_SHARE = 0.2
"""A point so far above the line of those before it is a break: attention's own growth is a straight line."""

FIRST_DEPTH = 512


@dataclass(frozen=True, slots=True)
class FittedLine:
    """Milliseconds per token against depth.

    :param at_zero: milliseconds without context; `per_k` what 1024 tokens of context add
    """

    at_zero: float
    per_k: float

    def at(self, depth: float) -> float:
        return self.at_zero + self.per_k * depth / 1024


def fit_line(points: Sequence[tuple[float, float]]) -> FittedLine | None:
    """Return the least-squares line through (depth, milliseconds); None with fewer than two depths."""
    if len({x for x, _ in points}) < 2:
        return None

    mean_x = sum(x for x, _ in points) / len(points)
    mean_y = sum(y for _, y in points) / len(points)
    slope = sum((x - mean_x) * (y - mean_y) for x, y in points) / sum((x - mean_x) ** 2 for x, _ in points)
    return FittedLine(mean_y - slope * mean_x, slope * 1024)


def find_break(points: Sequence[tuple[float, float]]) -> float | None:
    """Return the first depth that is a fifth slower than the line of the depths before it; None where none is."""
    ordered = sorted(points)
    for k in range(LEAST_POINTS, len(ordered)):
        line = fit_line(ordered[:k])
        depth, ms = ordered[k]
        if line is not None and ms > (1 + BREAK_SHARE) * max(line.at(depth), ordered[k - 1][1]):
            return depth

    return None


def depths_up_to(limit: int) -> list[int]:
    """Return depths that double, the limit last."""
    depths = [FIRST_DEPTH]
    while depths[-1] * 2 < limit:
        depths.append(depths[-1] * 2)

    return [*(each for each in depths if each < limit), limit]


def depth_summary(rows: Sequence[tuple[int, BenchAnswer]]) -> dict[str, Any]:
    """Return the medians by depth, the line through them and where it breaks.

    :param rows: the depth that was aimed at, and what was measured there
    """
    points: list[dict[str, Any]] = []
    for depth in sorted({each for each, _ in rows}):
        own = [answer for each, answer in rows if each == depth]
        decode = [answer.decode_tok_s for answer in own if answer.decode_tok_s]
        prompt = [answer.prompt_tok_s for answer in own if answer.prompt_tok_s]
        points.append(
            {
                "depth": round(median([answer.prompt_tokens + answer.cached_tokens for answer in own])),
                "decode_tok_s": _rounded(median(decode)) if decode else None,
                "prompt_tok_s": _rounded(median(prompt)) if prompt else None,
                "first_token_s": _rounded(median([answer.first_token_s for answer in own])),
                "acceptance": _share(own),
            }
        )

    curve = [(float(each["depth"]), 1000 / each["decode_tok_s"]) for each in points if each["decode_tok_s"]]
    line = fit_line(curve)
    return {
        "points": points,
        "ms_per_token_at_zero": _rounded(line.at_zero) if line else None,
        "ms_per_token_per_1024": _rounded(line.per_k) if line else None,
        "breaks_at": find_break(curve),
    }


def load_summary(clients: int, answers: Sequence[BenchAnswer], span_s: float, failed: int) -> dict[str, Any]:
    """Return throughput and latency with so many clients at once.

    :param span_s: from the first request to the last answer
    """
    turns = sorted(each.wall_s for each in answers)
    firsts = sorted(each.first_token_s for each in answers)
    return {
        "clients": clients,
        "requests": len(answers),
        "failed": failed,
        "tok_s": _rounded(sum(each.output_tokens for each in answers) / span_s) if answers and span_s > 0 else None,
        "turn_p50_s": _quantile(turns, 0.5),
        "turn_p95_s": _quantile(turns, 0.95),
        "first_token_p50_s": _quantile(firsts, 0.5),
        "first_token_p95_s": _quantile(firsts, 0.95),
        "decode_tok_s": _rounded(median([each.decode_tok_s for each in answers if each.decode_tok_s] or [0.0])),
    }


def _quantile(ordered: Sequence[float], share: float) -> float | None:
    if not ordered:
        return None

    return _rounded(ordered[min(round(share * (len(ordered) - 1)), len(ordered) - 1)])


def _share(answers: Sequence[BenchAnswer]) -> float | None:
    drafted = sum(each.draft_tokens for each in answers)
    return _rounded(sum(each.draft_accepted for each in answers) / drafted) if drafted else None


def _rounded(value: float) -> float:
    return float(f"{value:.5g}")
