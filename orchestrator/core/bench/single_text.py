"""The results of a pass, a depth and a load as lines for a terminal. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from orchestrator.core.bench.text import bars, shown, table


def single_lines(result: Mapping[str, Any]) -> list[str]:
    """Return what a terminal shows of a bench of one target."""
    lines = []
    if result["verified"] != "right":
        state = f"nobody has verified it: `orch verify {result['engine']}`"
        lines += [f"{result['target']} ({result['build']}): {result['verified'] or state}", ""]

    for series in result["series"]:
        lines += [f"bench {result['id']}, {result['kind']}: {series['target']} ({result['build']})"]
        lines += {"pass": _pass, "depth": _depth, "load": _load}[result["kind"]](series)
        if series["strangers"]:
            lines.append(f"requests of clients ran meanwhile: {series['strangers']}; the figures are not of it alone")

        lines.append("")

    return lines[:-1]


def _pass(series: Mapping[str, Any]) -> list[str]:
    rows = [("prompt", "tokens", "tok/s", "accepted", "wall, s")]
    rows += [
        (
            row["name"],
            shown(row["output_tokens"]),
            shown(row["decode_tok_s"]),
            shown(row["acceptance"]),
            shown(row["turn_s"]),
        )
        for row in series["rows"]
    ]
    total = series["total"]
    counts = f"{total['requests']} requests, {total['output_tokens']} tokens, {total['draft_tokens']} drafted"
    means = (
        f"mean of the rates {shown(total['decode_tok_s'])} tok/s, tokens over wall time {shown(total['wall_tok_s'])}"
    )
    steps = f"{shown(total['tokens_per_step'])} tokens and {shown(total['ms_per_step'])} ms a step"
    return [
        *table(rows),
        f"{counts}, {total['draft_accepted']} accepted ({shown(total['acceptance'])}), {total['wall_s']} s",
        f"{means}; {steps}",
        "one pass, no warm-up, the server's sampling: to set beside published figures, not to compare two targets with",
    ]


def _depth(series: Mapping[str, Any]) -> list[str]:
    rows = [("depth", "decode tok/s", "prompt tok/s", "first token, s", "accepted")]
    rows += [
        (
            str(row["depth"]),
            shown(row["decode_tok_s"]),
            shown(row["prompt_tok_s"]),
            shown(row["first_token_s"]),
            shown(row["acceptance"]),
        )
        for row in series["points"]
    ]
    lines = [*table(rows), "", "decode, tok/s by depth:"]
    lines += bars([(str(row["depth"]), row["decode_tok_s"]) for row in series["points"] if row["decode_tok_s"]])
    if series["ms_per_token_at_zero"] is not None:
        zero, more = shown(series["ms_per_token_at_zero"]), shown(series["ms_per_token_per_1024"])
        lines.append(f"a token takes {zero} ms, and {more} ms more for each 1024 tokens of context")

    if series["breaks_at"] is not None:
        lines.append(f"the line breaks at {series['breaks_at']:.0f} tokens: slower there by more than a fifth")

    return lines


def _load(series: Mapping[str, Any]) -> list[str]:
    rows = [("clients", "tok/s in sum", "tok/s each", "answer p50, p95, s", "first token p50, p95, s", "failed")]
    rows += [
        (
            str(row["clients"]),
            shown(row["tok_s"]),
            shown(row["decode_tok_s"]),
            f"{shown(row['turn_p50_s'])}  {shown(row['turn_p95_s'])}",
            f"{shown(row['first_token_p50_s'])}  {shown(row['first_token_p95_s'])}",
            str(row["failed"]),
        )
        for row in series["rows"]
    ]
    lines = [*table(rows), "", "throughput, tok/s by clients:"]
    lines += bars([(str(row["clients"]), row["tok_s"]) for row in series["rows"] if row["tok_s"]])
    return [*lines, *(error for row in series["rows"] for error in row["errors"])]
