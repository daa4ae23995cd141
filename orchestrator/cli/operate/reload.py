"""`orch reload`."""

from __future__ import annotations

import argparse

from orchestrator.adapters.paths import find_paths
from orchestrator.api import client
from orchestrator.cli import diagnostics, output, waiting
from orchestrator.core import exit_codes

HELP = "read the profiles anew, and restart the engine if its own has changed"
EXAMPLES = """\
  orch profile set demo context.size=8192 && orch reload
  orch reload --json"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--timeout", type=float, default=3600.0, metavar="S", help="give up waiting after S seconds")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")


def run(args: argparse.Namespace) -> int:
    import json

    from orchestrator.cli.operate.switch import raise_failed, report

    path = find_paths().control_socket
    answer = json.loads(client.request(path, "/v1/reload", b"{}", timeout_s=120))
    operations = [answer["operation"]] if answer["operation"] is not None else []
    operations += [each["operation"] for each in answer.get("others", ())]
    if not operations:
        if args.json:
            output.json_data({"changed": [], "result": None})
        else:
            output.line("nothing that runs has changed")

        return exit_codes.OK

    if answer["changed"]:
        diagnostics.note(f"changed: {', '.join(answer['changed'])}")

    for each in answer.get("others", ()):
        diagnostics.note(f"changed in {each['running']['profile']}: {', '.join(each['changed'])}")

    first, *others = [waiting.until_switched(path, each, args.timeout) for each in operations]
    if args.json:
        output.json_data({**first, "others": others} if others else first)

    for result in (first, *others):
        if not args.json:
            report(result, as_json=False)
        else:
            raise_failed(result)

    return exit_codes.OK
