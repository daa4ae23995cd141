"""The report of a bench as lines for a terminal, plots included. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from orchestrator.core.bench.report import shown_conditions, verdict_text
from orchestrator.core.quantities import shown_change

FIGURES = (
    ("decode_tok_s", "decode, tok/s (mean of answers)"),
    ("pooled_decode_tok_s", "decode, tok/s (tokens over time)"),
    ("wall_tok_s", "tokens over wall time, tok/s"),
    ("turn_s", "whole answer, s"),
    ("prompt_tok_s", "prompt, tok/s"),
    ("first_token_s", "first token, s"),
    ("tokens_per_step", "tokens per step"),
    ("ms_per_step", "ms per step"),
    ("acceptance", "drafts accepted"),
    ("device_peak_mib", "device memory, MiB at most"),
    ("rss_mib", "host memory, MiB at most"),
    ("energy_j_per_token", "energy, J per output token"),
)
WIDTH = 49
"""Columns of an interval's plot: odd, so that 0 has one of its own."""

PLOT_WIDTH = 60


def report_lines(report: Mapping[str, Any]) -> list[str]:
    """Return what a terminal shows: the engines that nobody verified first, then the verdict, then the figures."""
    conditions = report["conditions"]
    lines = [each["text"] for each in conditions if each["kind"] in ("wrong", "not_verified")]
    lines += ["", verdict_text(report)] if lines else [verdict_text(report)]
    if report["ratio"] is not None:
        lines += interval_plot(report["low"], report["ratio"], report["high"])

    lines += ["", described(report), ""]
    rows = [("", f"A {report['a']['target']}", f"B {report['b']['target']}")]
    rows += [
        (title, shown(report["a"][name]), shown(report["b"][name]))
        for name, title in FIGURES
        if report["a"].get(name) is not None or report["b"].get(name) is not None
    ]
    lines += table(rows)
    lines += ["", *table(prompt_rows(report))]
    rest = [each for each in conditions if each["kind"] not in ("wrong", "not_verified")]
    if rest:
        lines += ["", "conditions:", *(f"  {each}" for each in shown_conditions(rest))]

    return lines


def described(report: Mapping[str, Any]) -> str:
    """Return what was measured, in a line."""
    count = len(report["prompts"])
    return (
        f"bench {report['id']}: {count} prompts of {report['tokens']} tokens ({report['workload']}), "
        f"{report['blocks']} blocks, seed {report['seed']}"
        + ("" if report["level"] is None else f", {100 * (1 - report['level']):g} % interval")
        + ("" if report["complete"] else ", not complete")
    )


def prompt_rows(report: Mapping[str, Any]) -> list[tuple[str, str, str, str]]:
    """Return the figures of the metric by prompt, and B over A."""
    name, title = {
        "decode": ("decode_tok_s", "tok/s"),
        "turn": ("turn_s", "s"),
        "prompt": ("prompt_tok_s", "tok/s"),
        "ttft": ("first_token_s", "s"),
    }[report["metric"]]
    rows = [(f"prompt ({title}, median)", "A", "B", "B over A")]
    for each in report["prompts"]:
        ratio = shown_change(each["ratio"]) if each["ratio"] is not None else ""
        rows.append((each["name"], shown(each["a"][name]), shown(each["b"][name]), ratio))

    return rows


def interval_plot(low: float, ratio: float, high: float) -> list[str]:
    """Return the interval on a scale with 0 in the middle, and the difference that is not worth having."""
    reach = min(max(abs(low - 1), abs(high - 1), 0.04) * 1.1, 1.0)

    def column(value: float) -> int:
        return min(max(round((value - 1 + reach) / (2 * reach) * (WIDTH - 1)), 0), WIDTH - 1)

    cells = [" "] * WIDTH
    for edge in (0.97, 1.03):
        cells[column(edge)] = ":"

    cells[column(1.0)] = "|"
    for at in range(column(low), column(high) + 1):
        cells[at] = "-"

    cells[column(low)], cells[column(high)] = "[", "]"
    cells[column(ratio)] = "o"
    left, right = f"{-100 * reach:+.0f} %", f"{100 * reach:+.0f} %"
    return [
        "",
        f"  A faster {''.join(cells)} B faster",
        f"           {left}{' ' * (WIDTH - len(left) - len(right))}{right}",
    ]


def bars(rows: Sequence[tuple[str, float]]) -> list[str]:
    """Return a bar for each value, scaled to the largest."""
    most = max((value for _, value in rows), default=0.0)
    width = max((len(name) for name, _ in rows), default=0)
    return [
        f"{name.rjust(width)}  {'#' * max(round(value / most * PLOT_WIDTH), 1) if most > 0 else ''} {shown(value)}"
        for name, value in rows
    ]


def table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Return aligned columns, the first to the left and the others to the right."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return [
        "  ".join(
            cell.ljust(width) if number == 0 else cell.rjust(width)
            for number, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def shown(value: float | None) -> str:
    if value is None:
        return "-"

    if isinstance(value, int) or value == round(value) and abs(value) >= 100:
        return f"{value:.0f}"

    return f"{value:.1f}" if abs(value) >= 100 else f"{value:.2f}" if abs(value) >= 1 else f"{value:.3f}"
