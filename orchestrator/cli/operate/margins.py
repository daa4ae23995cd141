"""`orch margins`."""

from __future__ import annotations

import argparse

from orchestrator.adapters.paths import find_paths
from orchestrator.cli import diagnostics, output
from orchestrator.cli.list_verbs import add_list_verbs, require_one_or_all
from orchestrator.core import exit_codes
from orchestrator.core.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from orchestrator.adapters.store.margins import MarginStore

HELP = "show or forget the memory margins that were learned"
EXAMPLES = """\
  orch margins list
  orch margins list --json
  orch margins forget 3f9a1c2b77d0e415
  orch margins forget --all"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_list_verbs(parser, "what was learned, and for what", "forget", "begin with the profile's own margin again")


def run(args: argparse.Namespace) -> int:
    from orchestrator.adapters.store.margins import MarginStore

    store = MarginStore(find_paths().margins_file)
    return _list(store.entries(), as_json=args.json) if args.verb == "list" else _forget(store, args)


def _list(entries: dict[str, dict[str, object]], *, as_json: bool) -> int:
    if as_json:
        output.json_data([{"id": digest, **entry} for digest, entry in entries.items()])
        return exit_codes.OK

    output.table(
        ("ID", "PROFILE", "ENGINE", "MARGIN", "MODEL", "BUILD", "LEARNED"),
        (
            (
                digest,
                entry["profile"],
                entry["engine"],
                f"{_margins(entry)} MiB",
                entry["model"],
                entry["build"],
                entry["learned"],
            )
            for digest, entry in entries.items()
        ),
    )
    if not entries:
        diagnostics.note("nothing was learned yet: a margin is kept when the ladder had to climb to it")

    return exit_codes.OK


def _margins(entry: dict[str, object]) -> str:
    """Return the margin, or one per device, with commas between."""
    each = entry.get("margins_mib")
    return ",".join(map(str, each)) if isinstance(each, list) and each else str(entry["margin_mib"])


def _forget(store: MarginStore, args: argparse.Namespace) -> int:
    require_one_or_all(args, "margins", "margin")
    if args.id and args.id not in store.entries():
        known = tuple(store.entries())
        raise UsageError(f"there is no margin `{args.id}`", details=(f"known: {', '.join(known) or 'none'}",))

    count = store.forget(args.id)
    diagnostics.note(f"forgot {count} {'margin' if count == 1 else 'margins'}")
    return exit_codes.OK
