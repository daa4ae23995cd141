"""The report of a bench to hand on: Markdown for a post, and one HTML file that needs nothing beside it. Pure."""

from __future__ import annotations

import html
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from orchestrator.core.bench.report import shown_conditions, verdict_text
from orchestrator.core.bench.single_text import single_lines
from orchestrator.core.bench.text import FIGURES, described, prompt_rows, shown

WIDTH, HEIGHT, EDGE = 640, 220, 40

_STYLE = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:52rem;margin:2rem auto;padding:0 1rem;color:#222}"
    "table{border-collapse:collapse;margin:1rem 0}td,th{padding:.2rem .8rem;text-align:right}"
    "td,th{border-bottom:1px solid #ddd}"
    "td:first-child,th:first-child,.words td,.words th{text-align:left}.words td:nth-child(2){white-space:nowrap}"
    "code,pre{font:13px/1.4 ui-monospace,monospace;white-space:pre-wrap}"
    ".verdict{font-size:1.2rem;font-weight:600}svg{max-width:100%;height:auto}"
)


def markdown(report: Mapping[str, Any]) -> str:
    """Return a report of two targets for a post, with the command that repeats it."""
    lines = [f"**{verdict_text(report)}**", "", described(report), ""]
    lines += markdown_table(_figure_rows(report))
    lines += ["", *markdown_table(prompt_rows(report))]
    if report["conditions"]:
        lines += ["", "Conditions:", "", *(f"- {each}" for each in shown_conditions(report["conditions"]))]

    lines += ["", machine_text(report["machine"])]
    lines += [""]
    lines += [
        f"- {side.upper()}: {own['engine']} {own['build']}, {_model(own)}" for side in "ab" if (own := report[side])
    ]
    return "\n".join([*lines, "", "```sh", shlex.join(report["command"]), "```", ""])


def html_page(report: Mapping[str, Any]) -> str:
    """Return a report of two targets as a page of its own."""
    return page(f"bench {report['id']}", pair_parts(report))


def pair_parts(report: Mapping[str, Any]) -> list[str]:
    """Return what a page says of two targets, with its plots as SVG."""
    parts = [f"<p class=verdict>{html_text(verdict_text(report))}</p><p>{html_text(described(report))}</p>"]
    if report["ratio"] is not None:
        parts.append(interval_svg(report["low"], report["ratio"], report["high"]))

    parts += [html_table(_figure_rows(report)), html_table(prompt_rows(report)), prompts_svg(report)]
    if report["conditions"]:
        items = "".join(f"<li>{html_text(each)}" for each in shown_conditions(report["conditions"]))
        parts.append(f"<h2>Conditions</h2><ul>{items}</ul>")

    parts.append(f"<h2>How</h2><p>{html_text(machine_text(report['machine']))}</p>")
    for side in "ab":
        own = report[side]
        parts.append(
            f"<p>{side.upper()}: {html_text(own['engine'])} {html_text(own['build'])}, {html_text(_model(own))}</p>"
        )
        parts.append(f"<pre>{html_text(shlex.join(own['argv']))}</pre>")

    return [*parts, repeated(report["command"])]


def single_page(result: Mapping[str, Any]) -> str:
    """Return a result of one target as a page of its own."""
    parts = [f"<pre>{html_text(chr(10).join(single_lines(result)))}</pre>"]
    for series in result["series"]:
        if result["kind"] == "depth":
            points = [(row["depth"], row["decode_tok_s"]) for row in series["points"] if row["decode_tok_s"]]
            parts.append(curve_svg(f"{series['target']}: decode, tok/s by depth", points))
        elif result["kind"] == "load":
            points = [(row["clients"], row["tok_s"]) for row in series["rows"] if row["tok_s"]]
            parts.append(curve_svg(f"{series['target']}: tok/s in sum by clients", points))

    parts.append(f"<p>{html_text(machine_text(result['machine']))}</p>")
    parts.append(repeated(result["command"]))
    return page(f"bench {result['id']}", parts)


def single_markdown(result: Mapping[str, Any]) -> str:
    """Return a result of one target for a post."""
    again = ["```sh", shlex.join(result["command"]), "```", ""]
    return "\n".join(["```", *single_lines(result), "```", "", machine_text(result["machine"]), "", *again])


def machine_text(machine: Mapping[str, Any]) -> str:
    devices = ", ".join(machine["devices"]) or "no GPU"
    host = f"{machine['processor']}, {machine['cpus']} CPUs, {machine['memory_mib']} MiB"
    return f"{devices}; {host}; {machine['system']}; orch {machine['orch']}"


def interval_svg(low: float, ratio: float, high: float) -> str:
    """Return the interval on a scale, with the difference that is not worth having in grey."""
    reach = max(abs(low - 1), abs(high - 1), 0.04) * 1.15

    def x(value: float) -> float:
        return EDGE + (value - 1 + reach) / (2 * reach) * (WIDTH - 2 * EDGE)

    labels = "".join(
        f'<text x="{x(1 + at):.1f}" y="74" text-anchor="middle">{100 * at:+.1f} %</text>' for at in (-reach, 0.0, reach)
    )
    return (
        f'<svg viewBox="0 0 {WIDTH} 84" font-size="12" role="img">'
        f'<rect x="{x(0.97):.1f}" y="10" width="{x(1.03) - x(0.97):.1f}" height="44" fill="#eee"/>'
        f'<line x1="{x(1):.1f}" x2="{x(1):.1f}" y1="6" y2="58" stroke="#888"/>'
        f'<line x1="{x(low):.1f}" x2="{x(high):.1f}" y1="32" y2="32" stroke="#06c" stroke-width="4"/>'
        f'<circle cx="{x(ratio):.1f}" cy="32" r="6" fill="#06c"/>{labels}</svg>'
    )


def prompts_svg(report: Mapping[str, Any]) -> str:
    """Return the difference by prompt as bars from the middle."""
    rows = [(each["name"], each["ratio"] - 1) for each in report["prompts"] if each["ratio"] is not None]
    if not rows:
        return ""

    reach, middle = max(max(abs(value) for _, value in rows), 0.02), WIDTH * 0.6
    scale = (WIDTH - middle - 60) / reach
    bars = []
    for number, (name, value) in enumerate(rows):
        y = 8 + 22 * number
        left = middle + min(value, 0) * scale
        bars.append(
            f'<text x="0" y="{y + 12}">{html_text(name)}</text>'
            f'<rect x="{left:.1f}" y="{y}" width="{max(abs(value) * scale, 1):.1f}" height="14" fill="#06c"/>'
            f'<text x="{WIDTH}" y="{y + 12}" text-anchor="end">{100 * value:+.1f} %</text>'
        )

    height = 22 * len(rows) + 10
    return f'<svg viewBox="0 0 {WIDTH} {height}" font-size="12" role="img">{"".join(bars)}</svg>'


def curve_svg(title: str, points: Sequence[tuple[float, float]]) -> str:
    """Return points joined by lines, from 0 up."""
    if not points:
        return ""

    most_x, most_y = max(x for x, _ in points), max(y for _, y in points)

    def place(x: float, y: float) -> tuple[float, float]:
        return EDGE + x / most_x * (WIDTH - 2 * EDGE), HEIGHT - EDGE - y / most_y * (HEIGHT - 2 * EDGE)

    placed = [place(x, y) for x, y in points]
    line = " ".join(f"{x:.1f},{y:.1f}" for x, y in placed)
    marks = "".join(
        f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="#06c"/>'
        f'<text x="{x:.1f}" y="{y - 7:.1f}" text-anchor="middle">{shown(value)}</text>'
        f'<text x="{x:.1f}" y="{HEIGHT - EDGE + 16}" text-anchor="middle">{at:.0f}</text>'
        for (x, y), (at, value) in zip(placed, points, strict=True)
    )
    return (
        f"<h2>{html_text(title)}</h2>"
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" font-size="10" role="img">'
        f'<line x1="{EDGE}" x2="{WIDTH - EDGE}" y1="{HEIGHT - EDGE}" y2="{HEIGHT - EDGE}" stroke="#888"/>'
        f'<polyline points="{line}" fill="none" stroke="#06c" stroke-width="2"/>{marks}</svg>'
    )


def _figure_rows(report: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    rows = [("", f"A {report['a']['target']}", f"B {report['b']['target']}")]
    return rows + [
        (title, shown(report["a"][name]), shown(report["b"][name]))
        for name, title in FIGURES
        if report["a"].get(name) is not None or report["b"].get(name) is not None
    ]


def _model(side: Mapping[str, Any]) -> str:
    """Return the model's file without where it lies, which is nobody's business."""
    return f"{side['model'].rpartition('/')[2]} ({side['model_type']})"


def repeated(command: Sequence[str]) -> str:
    """Return the paragraph with the command that repeats a run."""
    return f"<p>Again: <code>{html_text(shlex.join(command))}</code></p>"


def markdown_table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Return a table's lines; the first row is its head."""
    cells = [[cell.replace("|", "\\|") for cell in row] for row in rows]
    rule = ["---", *["---:"] * (len(rows[0]) - 1)]
    return ["| " + " | ".join(row) + " |" for row in (cells[0], rule, *cells[1:])]


def html_table(rows: Sequence[Sequence[str]], *, words: bool = False) -> str:
    """Return a table; the first row is its head.

    :param words: not figures alone, which are written to the right
    """
    head = "".join(f"<th>{html_text(cell)}" for cell in rows[0])
    body = "".join("<tr>" + "".join(f"<td>{html_text(cell)}" for cell in row) for row in rows[1:])
    return f"<table{' class=words' if words else ''}><tr>{head}{body}</table>"


def page(title: str, parts: Sequence[str]) -> str:
    """Return a page that loads nothing from elsewhere.

    :param parts: of its body, as HTML
    """
    head = f"<!doctype html><meta charset=utf-8><title>{html_text(title)}</title><style>{_STYLE}</style>"
    return head + f"<h1>{html_text(title)}</h1>" + "\n".join(parts) + "\n"


def html_text(text: str) -> str:
    """Return text that is no markup."""
    return html.escape(str(text))
