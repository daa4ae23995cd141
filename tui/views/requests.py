"""The requests in flight and those that ended, newest first."""

from __future__ import annotations

from orchestrator.api.top_frames import RequestRow
from tui import figures
from tui.text import Line, Role
from tui.views.tables import Column


def _draft_share(row: RequestRow) -> float | None:
    drafted, accepted = row["draft_tokens"], row["draft_accepted"]
    return accepted / drafted if drafted and accepted is not None else None


def _state(row: RequestRow) -> tuple[str, Role]:
    symbol, role = figures.outcome(row["outcome"])
    status = "" if row["status"] in (None, 200) else f" {row['status']}"
    return f"{symbol} {row['outcome'].replace('client_gone', 'left')}{status}", role


def _target(row: RequestRow) -> str:
    return f"{row['profile'] or '?'}@{row['engine'] or '?'}"


def _energy(row: RequestRow) -> float | None:
    """Return the energy, J; a daemon of an older orch does not tell one."""
    return row.get("energy_j")


def _client(row: RequestRow) -> str:
    """Return the name of the client; a daemon of an older orch does not tell one."""
    return row.get("client") or ""


COLUMNS: tuple[Column[RequestRow], ...] = (
    Column("started", 8, lambda r: (figures.clock(r["started"]), "dim"), lambda r: r["started"], False, 5),
    Column("state", 12, _state, lambda r: r["outcome"], False, 20),
    Column("in", 6, lambda r: (figures.count(r["prompt_tokens"]), ""), lambda r: r["prompt_tokens"], True, 14),
    Column("out", 6, lambda r: (figures.count(r["output_tokens"]), ""), lambda r: r["output_tokens"], True, 15),
    Column("first", 7, lambda r: (figures.seconds(r["first_token_s"]), ""), lambda r: r["first_token_s"], True, 13),
    Column("prompt/s", 8, lambda r: (figures.rate(r["prompt_tok_s"]), ""), lambda r: r["prompt_tok_s"], True, 9),
    Column("decode/s", 8, lambda r: (figures.rate(r["decode_tok_s"]), ""), lambda r: r["decode_tok_s"], True, 16),
    Column(
        "drafts", 6, lambda r: (figures.share(_draft_share(r)), figures.acceptance_role(_draft_share(r))),
        _draft_share, weight=8,
    ),
    Column("held", 7, lambda r: (figures.seconds(r["held_s"] or None), ""), lambda r: r["held_s"], weight=7),
    Column("total", 7, lambda r: (figures.seconds(r["total_s"]), ""), lambda r: r["total_s"], weight=12),
    Column("energy", 9, lambda r: (figures.joules(_energy(r)), ""), _energy, weight=2),
    Column("client", 10, lambda r: (_client(r), ""), _client, False, 3),
    Column("on", 18, lambda r: (_target(r), ""), _target, False, 4),
    Column("route", 0, lambda r: (r["route"], "dim"), lambda r: r["route"], False, 6),
)  # fmt: skip


def details(row: RequestRow) -> list[Line]:
    """Return all that is known of one request."""
    drafted, accepted = figures.count(row["draft_tokens"]), figures.count(row["draft_accepted"])
    facts: list[tuple[str, str]] = [
        ("request", f"{row['id']}, {row['route']}"),
        ("id", row.get("request_id") or figures.UNKNOWN),
        ("client", _client(row) or figures.UNKNOWN),
        ("started", row["started"]),
        ("outcome", row["outcome"] + (f", HTTP {row['status']}" if row["status"] is not None else "")),
        ("target", _target(row)),
        ("build", row["build"] or figures.UNKNOWN),
        ("prompt", f"{figures.count(row['prompt_tokens'])} tokens, {figures.rate(row['prompt_tok_s'])} tok/s"),
        ("output", f"{figures.count(row['output_tokens'])} tokens, {figures.rate(row['decode_tok_s'])} tok/s"),
        ("drafts", f"{accepted} of {drafted} tokens accepted ({figures.share(_draft_share(row))})"),
        ("first token", f"after {figures.seconds(row['first_token_s'])}"),
        ("held", figures.seconds(row["held_s"])),
        ("total", figures.seconds(row["total_s"])),
        ("energy", figures.joules(_energy(row))),
    ]
    return [((f"{name:<12}", "dim"), (value, "")) for name, value in facts]
