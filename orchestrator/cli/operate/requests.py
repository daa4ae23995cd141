"""`orch requests`."""

from __future__ import annotations

import argparse

from orchestrator.adapters.paths import find_paths
from orchestrator.api import client
from orchestrator.cli import diagnostics, output
from orchestrator.core import exit_codes

HELP = "list the requests that wait and run"
EXAMPLES = """\
  orch requests
  orch requests --json | jq -r '.requests[].id'"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print as JSON")


def run(args: argparse.Namespace) -> int:
    import json

    answer = client.request(find_paths().control_socket, "/v1/requests")
    if args.json:
        output.raw(answer.decode() + "\n")
        return exit_codes.OK

    rows = [
        (
            each["id"],
            each["client"] or "-",
            each["model"] or each["profile"] or "-",
            each["route"],
            each["state"],
            each["started"][11:19],
            _progress(each["prompt_done"], each["output_tokens"]),
            each["instance"] or "-",
        )
        for each in json.loads(answer)["requests"]
    ]
    if not rows:
        diagnostics.note("no request waits or runs")
        return exit_codes.OK

    output.table(("ID", "CLIENT", "MODEL", "ROUTE", "STATE", "SINCE", "TOKENS", "INSTANCE"), rows)
    return exit_codes.OK


def _progress(prompt_done: float | None, output_tokens: int | None) -> str:
    """Return how far the engine is, as far as it tells: the share of the prompt, then tokens of the answer."""
    if output_tokens:
        return str(output_tokens)

    return "-" if prompt_done is None else f"{prompt_done:.0%} of the prompt"
