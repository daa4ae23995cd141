"""The report of a tuning to hand on, with the bench of two winners beside it where there is one. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from orchestrator.core.bench import documents
from orchestrator.core.bench.documents import html_table, html_text, markdown_table
from orchestrator.core.tune.report import head_line, remarks, trial_rows, verdict_line


def markdown(reports: Sequence[Mapping[str, Any]]) -> str:
    """Return reports of tunings, and of a bench of their winners, for a post."""
    return "\n".join(
        _markdown(report) if report["kind"] == "tune" else documents.markdown(report) for report in reports
    )


def html_page(reports: Sequence[Mapping[str, Any]]) -> str:
    """Return reports of tunings, and of a bench of their winners, as a page of its own."""
    parts: list[str] = []
    for report in reports:
        if report["kind"] == "tune":
            parts += _tune_parts(report)
        else:
            parts += ["<h2>Against each other</h2>", *documents.pair_parts(report)]

    numbers = [str(report["id"]) for report in reports if report["kind"] == "tune"]
    return documents.page(f"tuning {', '.join(numbers)}", parts)


def _markdown(report: Mapping[str, Any]) -> str:
    lines = [f"**{verdict_line(report)}**", "", head_line(report), "", *markdown_table(trial_rows(report)), ""]
    return "\n".join([*lines, *(f"- {each}" for each in remarks(report)), ""])


def _tune_parts(report: Mapping[str, Any]) -> Iterator[str]:
    yield f"<p class=verdict>{html_text(verdict_line(report))}</p><p>{html_text(head_line(report))}</p>"
    found = report["confirmation"]
    if found is not None and found["ratio"] is not None:
        yield documents.interval_svg(found["low"], found["ratio"], found["high"])
        yield f"<p>Benched against the settings as they are, on other prompts: bench {found['id']}.</p>"

    said = remarks(report)
    if said:
        yield f"<ul>{''.join(f'<li>{html_text(each)}' for each in said)}</ul>"

    if report["proposal"]:
        yield html_table([("setting", "proposed"), *report["proposal"].items()], words=True)

    yield f"<h2>Starts</h2>{html_table(trial_rows(report), words=True)}"
    rows = [(axis["name"], axis["now"], ", ".join(axis["choices"])) for axis in report["axes"]]
    yield f"<h2>Axes</h2>{html_table([('axis', 'as it is', 'choices'), *rows], words=True)}"
    yield f"<h2>How</h2><p>{html_text(documents.machine_text(report['machine']))}</p>"
    yield documents.repeated(report["command"])
