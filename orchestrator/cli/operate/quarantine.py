"""`orch quarantine`."""

from __future__ import annotations

import argparse

from orchestrator.adapters.paths import find_paths
from orchestrator.api import client
from orchestrator.cli import diagnostics, output
from orchestrator.cli.list_verbs import add_list_verbs, require_one_or_all
from orchestrator.core import exit_codes

HELP = "show or clear the requests that are refused because engines died of them"
EXAMPLES = """\
  orch quarantine list
  orch quarantine list --json
  orch quarantine clear 3f9a1c2b77d0
  orch quarantine clear --all"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_list_verbs(parser, "the requests that met deaths of engines", "clear", "have them answered again")


def run(args: argparse.Namespace) -> int:
    import json

    path = find_paths().control_socket
    if args.verb == "list":
        return _list(json.loads(client.request(path, "/v1/quarantine")), as_json=args.json)

    require_one_or_all(args, "quarantine", "request")
    body = json.dumps({"id": args.id} if args.id else {}).encode()
    count = json.loads(client.request(path, "/v1/quarantine", body))["cleared"]
    diagnostics.note(f"cleared {count} {'request' if count == 1 else 'requests'}")
    return exit_codes.OK


def _list(entries: list[dict[str, object]], *, as_json: bool) -> int:
    if as_json:
        output.json_data(entries)
        return exit_codes.OK

    output.table(
        ("ID", "ROUTE", "PROFILE", "ENGINE", "DEATHS", "STATE", "FOR"),
        (
            (
                str(entry["id"]),
                str(entry["route"]),
                str(entry["profile"]),
                str(entry["engine"]),
                str(entry["deaths"]),
                "refused" if entry["refused"] else "tried alone",
                f"{float(str(entry['left_s'])):.0f} s",
            )
            for entry in entries
        ),
    )
    if not entries:
        diagnostics.note("no request has met the death of an engine")

    return exit_codes.OK
