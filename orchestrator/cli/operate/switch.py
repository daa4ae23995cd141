"""`orch switch`."""

from __future__ import annotations

import argparse
from typing import Any

from orchestrator.adapters.paths import find_paths
from orchestrator.api import client
from orchestrator.api.types import SwitchResult
from orchestrator.api.wording import flag_texts, interruption_text, rollback_text, target_text
from orchestrator.cli import diagnostics, output, waiting
from orchestrator.core import exit_codes
from orchestrator.core.errors import OrchError

HELP = "change engine or profile without losing a request"
EXAMPLES = """\
  orch switch ik-fork                    # the same profile on another engine
  orch switch qwen3.6-27b-24gb           # another profile
  orch switch qwen3.6-27b-24gb@upstream --keep    # what answered before stays loaded
  orch switch ik-fork --dry-run          # what would change
  orch switch --cancel                   # end the switch under way; what ran before serves on"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("target", nargs="?", help="an engine, a profile, or profile@engine")
    parser.add_argument(
        "--strategy",
        choices=("auto", "beside", "replace"),
        default="auto",
        help="start the new engine beside the old one, or hold requests and replace it (auto: beside when both fit)",
    )
    parser.add_argument("--keep", action="store_true", help="leave loaded what requests without a model went to")
    parser.add_argument("--dry-run", action="store_true", help="show what would change in the command line")
    parser.add_argument("--now", action="store_true", help="cut the requests that run instead of waiting for their end")
    parser.add_argument(
        "--unverified",
        action="store_true",
        help="start what `orch verify` has found to be computed wrongly",
    )
    parser.add_argument("--force", action="store_true", help="try what the plan says cannot fit (`orch plan`)")
    parser.add_argument("--cancel", action="store_true", help="end the switch under way")
    parser.add_argument("--timeout", type=float, default=3600.0, metavar="S", help="give up waiting after S seconds")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")


def run(args: argparse.Namespace) -> int:
    import json

    from orchestrator.core.errors import UsageError

    path = find_paths().control_socket
    if args.cancel:
        answer = json.loads(client.request(path, "/v1/cancel", b"{}"))
        diagnostics.note(f"cancelling the switch to {target_text(answer['to'])}")
        return exit_codes.OK

    if args.target is None:
        raise UsageError("say what to switch to", hint="`orch engines list` and `orch profile list` show what there is")

    flags = {name: getattr(args, name) for name in ("dry_run", "now", "keep", "unverified", "force")}
    body: dict[str, object] = {"target": args.target, **flags}
    if args.strategy != "auto":
        body["strategy"] = args.strategy

    answer = json.loads(client.request(path, "/v1/switch", json.dumps(body).encode(), timeout_s=120))
    if args.dry_run:
        for notice in answer["notes"]:
            diagnostics.note(f"note: {notice}")

        return _show_plan(answer, as_json=args.json)

    if answer.get("replaces") is not None:
        text = f"this takes the place of the switch to {target_text(answer['replaces'])} that was under way"
        diagnostics.note(text)

    return report(waiting.until_switched(path, answer["operation"], args.timeout), as_json=args.json)


def report(result: SwitchResult, *, as_json: bool) -> int:
    """Print how a switch ended.

    :raises OrchError: when it failed
    """
    if as_json:
        output.json_data(result)

    raise_failed(result)
    if not as_json:
        cost = f"{interruption_text(result)} ({result['strategy']})"
        output.line(f"switched to {target_text(result['to'])}: {cost}")

    return exit_codes.OK


def raise_failed(result: SwitchResult) -> None:
    """:raises OrchError: when a switch failed"""
    if result["ok"]:
        return

    rollback = rollback_text(result)
    raise OrchError(
        f"the switch to {target_text(result['to'])} failed: {result['cause']}",
        details=(rollback,) if rollback else (),
        hint="look at `orch events` and `orch logs`",
    )


def _show_plan(answer: dict[str, Any], *, as_json: bool) -> int:
    if as_json:
        output.json_data(answer)
        return exit_codes.OK

    import difflib

    before, after = (flag_texts(answer[name] or ()) for name in ("argv_before", "argv_after"))
    targets = f"{target_text(answer['from'])} -> {target_text(answer['to'])}"
    output.line(f"{targets}: {answer['strategy']} ({answer['reason']})")
    if answer.get("worth"):
        output.line(answer["worth"])

    for line in difflib.ndiff(before, after):
        if not line.startswith("? "):
            output.line(line)

    return exit_codes.OK
