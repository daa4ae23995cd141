"""`orch stats`: reads the history itself, so it works without a daemon."""

from __future__ import annotations

import argparse
import sys

from orchestrator.adapters.paths import find_paths
from orchestrator.cli import diagnostics, output
from orchestrator.core import exit_codes
from orchestrator.core.quantities import energy_text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from orchestrator.core.measure.request_stats import RequestStats

HELP = "sum up the requests: how many, how fast, how long they waited"
EXAMPLES = """\
  orch stats
  orch stats --since 7d --by profile
  orch stats --by build --json
  orch stats --by client            # by the names in the key file
  orch stats --since 30d --cost --card-price 800    # electricity here, or an API: prices in [cost] of orch.toml"""

_COLUMNS = (
    ("REQS", ""),
    ("ERR", ""),
    ("GONE", ""),
    ("PROMPT", "tok"),
    ("OUTPUT", "tok"),
    ("TTFT", "p50 s"),
    ("TTFT", "p95 s"),
    ("PROMPT", "tok/s"),
    ("DECODE", "tok/s"),
    ("DRAFT", "%"),
    ("HELD", "s"),
    ("CACHE", "%"),
)
"""The table's columns and their units; with a name of eight characters they take 80 columns."""

_NAME_WIDTH = 8


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--since", default="24h", metavar="AGE", help="count requests younger than this (24h), or all")
    parser.add_argument(
        "--by", choices=("engine", "profile", "build", "client"), help="what to compare (engine; with --cost: profile)"
    )
    parser.add_argument("--cost", action="store_true", help="what it cost in electricity, and would by API prices")
    parser.add_argument("--card-price", metavar="PRICE", help="with --cost: when what is saved would pay for a card")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print as JSON")
    form.add_argument("--csv", action="store_true", help="print as CSV, with a header")


def run(args: argparse.Namespace) -> int:
    import time

    age_s = _age_s(args.since)
    since_s = 0.0 if age_s is None else time.time() - age_s
    if args.cost or args.card_price is not None:
        from orchestrator.cli.cost_report import run_cost

        return run_cost(args, since_s)

    by = args.by or "engine"
    groups, total = _read(since_s, by)
    if args.json:
        _print_json(groups, total, by, since_s)
    elif args.csv:
        _print_csv(groups, by)
    elif groups:
        _print_table(groups, total, by)
        _print_energy(total)

    if not groups:
        diagnostics.note("no requests yet" if age_s is None else f"no requests in the last {args.since}")

    return exit_codes.OK


def _read(since_s: float, by: str) -> tuple[list[RequestStats], RequestStats]:
    from orchestrator.adapters.store.history import read_requests
    from orchestrator.core.measure.request_stats import sum_requests, sum_requests_by

    records = read_requests(find_paths().history_file, since_s)
    return sum_requests_by(by, records), sum_requests(None, records)


def _age_s(text: str) -> int | None:
    """Return the age in seconds; None for the whole history."""
    from orchestrator.core.quantities import parse_seconds

    return None if text == "all" else parse_seconds(text, "--since", "orch stats --since 7d")


def _fields(stats: RequestStats, by: str | None) -> dict[str, object]:
    from dataclasses import asdict

    fields = asdict(stats)
    name = fields.pop("name")
    return {by: name, **fields} if by else fields


def _print_json(groups: list[RequestStats], total: RequestStats, by: str, since_s: float) -> None:
    from datetime import UTC, datetime

    output.json_data(
        {
            "version": 1,
            "since": datetime.fromtimestamp(since_s, UTC).isoformat(timespec="seconds"),
            "by": by,
            "groups": [_fields(each, by) for each in groups],
            "total": _fields(total, None),
        }
    )


def _print_csv(groups: list[RequestStats], by: str) -> None:
    import csv
    import io

    from orchestrator.core.measure.request_stats import sum_requests

    text = io.StringIO()
    writer = csv.DictWriter(text, list(_fields(sum_requests(None, []), by)), lineterminator="\n")
    writer.writeheader()
    writer.writerows(_fields(each, by) for each in groups)
    output.raw(text.getvalue())


def _print_table(groups: list[RequestStats], total: RequestStats, by: str) -> None:
    rows = [(each.name or "(none)", _cells(each)) for each in groups]
    if len(groups) > 1:
        rows.append(("total", _cells(total)))

    if sys.stdout is None or not sys.stdout.isatty():
        output.table((by.upper(), *map(" ".join, _COLUMNS)), [(name, *cells) for name, cells in rows])
        return

    widths = [max(map(len, (*column, *(cells[number] for _, cells in rows)))) for number, column in enumerate(_COLUMNS)]
    for line, name in enumerate((by.upper(), "")):
        heads = (column[line].rjust(width) for column, width in zip(_COLUMNS, widths, strict=True))
        output.line(f"{name.ljust(_NAME_WIDTH)} {' '.join(heads)}")

    for name, cells in rows:
        if len(name) > _NAME_WIDTH:  # a build's is longer: on a line of its own, rather than cut
            output.line(name)
            name = ""

        figures = (cell.rjust(width) for cell, width in zip(cells, widths, strict=True))
        output.line(f"{name.ljust(_NAME_WIDTH)} {' '.join(figures)}")


def _print_energy(total: RequestStats) -> None:
    """Print what all requests used: below the table of a terminal; on stderr where scripts read the rows."""
    if total.energy_j is not None:
        rates = ((total.prompt_j_per_token, "prompt"), (total.output_j_per_token, "output"))
        told = ", ".join(f"{_figure(rate)} {word}" for rate, word in rates if rate is not None)
        share = f"{total.energy_requests} of {total.requests} requests"
        text = f"energy {energy_text(total.energy_j)} ({share})" + (told and f", J per token: {told}")
        if sys.stdout is not None and sys.stdout.isatty():
            output.line(text)
        else:
            diagnostics.note(text)


def _cells(stats: RequestStats) -> tuple[str, ...]:
    return (
        _count(stats.requests),
        _count(stats.error),
        _count(stats.client_gone),
        _count(stats.prompt_tokens),
        _count(stats.output_tokens),
        _figure(stats.first_token_p50_s),
        _figure(stats.first_token_p95_s),
        _figure(stats.prompt_tok_s),
        _figure(stats.decode_tok_s),
        _percent(stats.draft_acceptance),
        _figure(stats.held_s),
        _percent(stats.cached_share),
    )


def _percent(share: float | None) -> str:
    return _figure(None if share is None else share * 100)


def _count(value: float) -> str:
    for unit in ("", "k", "M"):
        if value < 9999.5:
            return f"{value:.0f}{unit}" if not unit or value >= 99.95 else f"{value:.1f}{unit}"

        value /= 1000

    return f"{value:.0f}G"


def _figure(value: float | None) -> str:
    if value is None:
        return "-"

    return _count(value) if value >= 99.95 else f"{value:.1f}" if value >= 9.995 else f"{value:.2f}"
