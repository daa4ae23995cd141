"""The report of a soak, as Markdown: `docs/soak.md`."""

from __future__ import annotations

import math
import os
import platform
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from benchmarks import soak_samples
from benchmarks.soak_plan import ENDS_WELL
from benchmarks.soak_run import Report

ROWS = 12
"""Samples that are shown; all are checked."""


def written(report: Report, seed: int, cycles: int, requests: int, lag_s: float, loads: str) -> str:
    """
    :param lag_s: the slowest answer of the control API
    :param loads: the machine's load average, in words
    """
    parts = [
        "# Soak",
        "What `benchmarks/soak.py` printed; `python -m benchmarks.soak --help` says what it does.",
        f"```\npython -m benchmarks.soak --cycles {cycles} --requests {requests} --seed {seed}\n```",
        _summary(report, cycles, lag_s, loads),
        "## Requests",
        _requests(report),
        "## Switches",
        _switches(report),
        "## The daemon",
        _daemon(report),
    ]
    return "\n\n".join(parts) + "\n"


def _summary(report: Report, cycles: int, lag_s: float, loads: str) -> str:
    verdict = "**No violation.**" if not report.problems else f"**{len(report.problems)} violations:**"
    done = len(report.results)
    ended = sum(report.outcomes.values())
    lines = [f"{verdict} {done} of {cycles} cycles, {ended} requests in {report.took_s / 60:.1f} minutes. {report.cut}"]
    if report.problems:
        lines.append("\n".join(f"- {problem}" for problem in report.problems))

    lines.append(
        f"Machine: {os.cpu_count()} cores, load average {loads}; Python {platform.python_version()}. "
        f"The slowest request took {report.slowest_s:.1f} s, the slowest answer of the control API {lag_s:.2f} s."
    )
    return "\n\n".join(map(str.rstrip, lines))


def _requests(report: Report) -> str:
    rows = [
        ("complete, every byte checked", report.outcomes["complete"]),
        ("explicit error", report.outcomes["error"]),
        ("client left", report.outcomes["gone"]),
    ]
    parts = [_table(("ended as", "requests"), rows)]
    if report.codes:
        parts.append(_table(("code of the error", "requests"), report.codes.most_common()))

    engines = ", ".join(f"{name} {count}" for name, count in sorted(report.by_engine.items()))
    parts.append(f"Complete answers by engine: {engines}. Sent again after an engine's death: {report.replayed}.")
    return "\n\n".join(parts)


def _switches(report: Report) -> str:
    rows = []
    for strategy in ("beside", "replace"):
        for well in (True, False):
            found = [
                each for each in report.results if each["strategy"] == strategy and (each["start"] in ENDS_WELL) is well
            ]
            ends = Counter(_end(each) for each in found)
            gaps = sorted(each["gap_s"] for each in found)
            rows.append(
                (
                    strategy, "can start" if well else "cannot", len(found), ends["done"], ends["rolled back"],
                    ends["failed"], f"{_quantile(gaps, 0.5):.2f}", f"{_quantile(gaps, 1.0):.2f}",
                )
            )  # fmt: skip

    head = ("strategy", "target", "switches", "done", "rolled back", "failed", "gap p50, s", "gap max, s")
    starts = Counter(each["start"] for each in report.results)
    undisturbed = sum(each["clean"] for each in report.results)
    calm = (
        f"Undisturbed (an engine was ready, nothing happened during it): {undisturbed}; each has to end as its "
        "target starts. The others are judged by what they say."
    )
    hurt = (
        f"What happened to engines: {_counts(report.troubles)} (`pause`: SIGSTOP, then SIGCONT; `stop`: SIGSTOP for "
        "good; `too late`: it had ended by itself)."
    )
    return "\n\n".join([_table(head, rows), calm, f"How targets started: {_counts(starts)}.", hurt])


def _end(result: Mapping[str, object]) -> str:
    return "done" if result["ok"] else "rolled back" if result["rolled_back"] else "failed"


def _daemon(report: Report) -> str:
    step = math.ceil(len(report.samples) / ROWS) if report.samples else 1
    shown = [sample for index, sample in enumerate(report.samples, 1) if index % step == 0 or index == 1]
    rows = [
        (
            each.cycle, f"{each.at_s:.0f}", f"{each.rss_kib / 1024:.1f}", sum(each.descriptors.values()),
            each.sockets, each.threads, each.zombies, len(each.files),
        )
        for each in shown
    ]  # fmt: skip
    counted = report.counted
    said = f"Compared from cycle {counted[0].cycle} on, in {len(counted)} samples." if counted else "Nothing compared."
    if len(counted) >= soak_samples.RSS_FROM_SAMPLES:
        growth = soak_samples.rss_growth(counted)
        said += f" Memory: {growth:+.1%} by a linear fit (limit {soak_samples.RSS_LIMIT:.0%})."

    head = ("cycle", "s", "RSS, MiB", "descriptors", "sockets", "threads", "zombies", "files")
    return "\n\n".join(["With no engine and no client:", _table(head, rows), said])


def _counts(counts: Counter[str]) -> str:
    return ", ".join(f"`{name}` {count}" for name, count in counts.most_common()) or "nothing"


def _quantile(ordered: Sequence[float], share: float) -> float:
    return ordered[min(int(len(ordered) * share), len(ordered) - 1)] if ordered else 0.0


def _table(head: Iterable[str], rows: Iterable[Iterable[object]]) -> str:
    lines = [list(head), *(list(map(str, row)) for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in [lines[0], ["---"] * len(lines[0]), *lines[1:]])
