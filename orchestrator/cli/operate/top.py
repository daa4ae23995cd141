"""`orch top`. The dashboard itself is the package `tui`; with `--once`, Textual is not imported."""

from __future__ import annotations

import argparse
import os
import sys

from orchestrator.adapters.paths import find_paths
from orchestrator.api import client
from orchestrator.cli import diagnostics, output
from orchestrator.core import exit_codes
from orchestrator.core.errors import OrchError, UsageError

HELP = "watch and control what runs: speed, memory, requests, log; or one look with --once"
EXAMPLES = """\
  orch top
  orch top --readonly --interval 2
  orch top --once                   # one look as text, for a script or a mail
  orch top --once --json | jq .rates
  orch top --serve                  # in a browser on this machine"""

ONCE_POINTS = 120
ONCE_REQUESTS = 20
_COLOURS = {
    "strong": "1", "dim": "2", "good": "32", "warn": "33", "bad": "31", "accent": "36", "engine": "34", "others": "35"
}  # fmt: skip


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--once", action="store_true", help="print one look as text and end")
    parser.add_argument("--json", action="store_true", help="with --once: the frame as JSON")
    parser.add_argument("--interval", type=float, default=1.0, metavar="S", help="seconds between two looks (1)")
    parser.add_argument("--readonly", action="store_true", help="only watch: no key starts, stops or switches")
    parser.add_argument(
        "--key",
        action="append",
        default=[],
        metavar="NAME=KEY",
        help="another key for an action, such as switch=f6; `?` lists them",
    )
    parser.add_argument("--serve", action="store_true", help="show it in a browser, on this machine alone")
    parser.add_argument("--port", type=int, default=8788, metavar="N", help="with --serve: the port (8788)")


def run(args: argparse.Namespace) -> int:
    if args.json and not args.once:
        raise UsageError("`--json` goes with `--once`", hint="run `orch top --once --json`")

    if not 0.1 <= args.interval <= 3600:
        raise UsageError(f"--interval {args.interval:g}: allowed are 0.1 to 3600 seconds")

    path = find_paths().control_socket
    if args.once:
        return _once(path, as_json=args.json)

    if not args.serve and not (sys.stdin.isatty() or os.environ.get("TEXTUAL_DRIVER")):
        raise UsageError("the dashboard needs a terminal", hint="run `orch top --once` for one look as text")

    from tui.keys import read_keys

    keys = read_keys(args.key)
    if args.serve:
        return _serve(args)

    if "TEXTUAL_DRIVER" not in os.environ:
        for name in ("COLUMNS", "LINES"):  # exported by a shell or by make, and taken for a size that never changes
            os.environ.pop(name, None)

    import gc

    gc.disable()  # nothing of what Textual's modules make is garbage: looking for it is a tenth of the start
    from tui.app import Dashboard
    from tui.source import DaemonSource

    gc.freeze()
    gc.enable()
    dashboard = Dashboard(DaemonSource(path), interval_s=args.interval, readonly=args.readonly, keys=keys)
    dashboard.run()
    return dashboard.return_code or exit_codes.OK


def _once(path: str, *, as_json: bool) -> int:
    answer = client.request(path, f"/v1/frame?points={ONCE_POINTS}&requests={ONCE_REQUESTS}")
    if as_json:
        output.raw(answer.decode() + "\n")
        return exit_codes.OK

    import json

    from tui.text import clean
    from tui.views.report import report

    coloured = _coloured()
    for spans in report(clean(json.loads(answer)), _width()):  # type: ignore[arg-type]
        text = "".join(_painted(text, role) if coloured else text for text, role in spans)
        output.raw(text.rstrip() + "\n")

    return exit_codes.OK


def _serve(args: argparse.Namespace) -> int:
    words = ["top", "--interval", str(args.interval), *(["--readonly"] if args.readonly else [])]
    for key in args.key:
        words += ["--key", key]

    try:
        from tui.browser import serve
    except ModuleNotFoundError as error:
        raise OrchError(
            "the dashboard in a browser needs a package that is not installed",
            details=(f"missing: {error.name}",),
            hint='run `pip install "llama-orch[web]"`',
        ) from None

    def ready(url: str) -> None:
        output.line(url)
        diagnostics.note("open this address in a browser here; whoever has it can do what you can (Ctrl-C ends it)")

    serve([sys.executable, "-m", "orchestrator", *words], args.port, ready)
    return exit_codes.OK


def _width() -> int:
    try:
        return max(os.get_terminal_size(1).columns, 40)
    except OSError:
        return 100


def _coloured() -> bool:
    if os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":
        return False

    return sys.stdout is not None and sys.stdout.isatty()


def _painted(text: str, role: str) -> str:
    colour = _COLOURS.get(role)
    return f"\x1b[{colour}m{text}\x1b[0m" if colour else text
