"""`orch bench`."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from orchestrator.adapters.paths import find_paths
from orchestrator.cli import diagnostics, output
from orchestrator.core import exit_codes
from orchestrator.core.errors import UsageError

if TYPE_CHECKING:
    from orchestrator.adapters.store.bench_runs import BenchStore
    from orchestrator.bench.session import BenchShell

HELP = "find out which of two engines, profiles or settings is faster, and how sure that is"
EXAMPLES = """\
  orch bench upstream ik-fork                          # the profile that runs, on both engines
  orch bench qwen3.6-27b-24gb@upstream qwen3.6-27b-24gb@upstream+kv.k=q8_0,kv.v=q8_0
  orch bench upstream ik-fork --prompts mtp --metric turn --json
  orch bench resume                                    # go on where one was broken off
  orch bench list"""

ACTIONS = {
    "resume": "go on with a bench that was broken off",
    "list": "the benches that were made",
    "show": "a bench's report",
}
"""First words that are not a target; `list@upstream` would be the profile of that name."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "words",
        nargs="+",
        metavar="A B",
        help="two targets: ENGINE, PROFILE or PROFILE@ENGINE, each with +key=value,... behind it; or one of "
        + "; ".join(f"{name}: {text}" for name, text in ACTIONS.items()),
    )
    parser.add_argument(
        "--prompts", default="chat", metavar="SET", help="mtp, code, chat (the default), long, or a JSONL file"
    )
    parser.add_argument(
        "--metric", choices=("decode", "turn", "prompt", "ttft"), default="decode", help="what is compared (decode)"
    )
    parser.add_argument(
        "--blocks", type=int, choices=(6, 10, 16), default=16, help="end after so many blocks at the latest (16)"
    )
    parser.add_argument("--quick", action="store_true", help="4 blocks: an interval, and never a verdict")
    parser.add_argument("--tokens", type=int, default=192, metavar="N", help="length of each answer (192)")
    parser.add_argument("--seed", type=int, default=42, metavar="N", help="of the order of blocks and prompts (42)")
    parser.add_argument("--json", action="store_true", help="print the report as JSON")


def run(args: argparse.Namespace) -> int:
    from orchestrator.adapters.store.bench_runs import BenchStore

    action, *rest = args.words
    store = BenchStore(find_paths().bench_file)
    try:
        if action == "list" and not rest:
            return _list(store, args)
        if action == "show":
            return _show(store, _number(rest), args)
        if action == "resume":
            return _measure(store, args, resume=_number(rest))
        if len(args.words) != 2:
            raise UsageError(
                f"two targets are compared, and {len(args.words)} were named", hint="run `orch bench --help`"
            )

        return _measure(store, args)
    finally:
        store.close()


def _number(words: list[str]) -> int | None:
    if not words:
        return None

    if len(words) > 1 or not words[0].isdigit():
        raise UsageError(f"`{' '.join(words)}` is not the number of a bench", hint="`orch bench list` shows them")

    return int(words[0])


_NEW = object()


def _measure(store: BenchStore, args: argparse.Namespace, resume: object = _NEW) -> int:
    """Measure, and print the report; also of what was measured until the user broke it off."""
    import contextlib

    with _shell(store) as shell, store.lock():
        try:
            if resume is _NEW:
                report = _begin(shell, args)
            else:
                from orchestrator.bench.session import resume_pair

                report = resume_pair(shell, resume if isinstance(resume, int) else None)
        except KeyboardInterrupt:
            diagnostics.clear_progress()
            with contextlib.suppress(Exception):
                _print_newest(store, args)

            diagnostics.note("broken off; what was measured is kept: `orch bench resume` goes on")
            return exit_codes.INTERRUPTED
        finally:
            diagnostics.clear_progress()

    _print(report, args)
    return exit_codes.OK


def _begin(shell: BenchShell, args: argparse.Namespace) -> dict[str, Any]:
    from orchestrator.bench.datasets import load_workload
    from orchestrator.bench.session import begin_pair
    from orchestrator.core.bench.blocks import BenchPlan

    if not 16 <= args.tokens <= 4096:
        raise UsageError(f"--tokens {args.tokens} cannot be measured", details=("allowed: 16 to 4096",))

    workload = load_workload(args.prompts)
    most = 4 if args.quick else args.blocks
    plan = BenchPlan(args.seed, args.metric, tuple(each.name for each in workload.prompts), most)
    return begin_pair(shell, (args.words[0], args.words[1]), plan, workload, args.tokens, _command(args))


def _command(args: argparse.Namespace) -> list[str]:
    """Return the command that repeats a bench."""
    words = ["orch", "bench", *args.words]
    defaults = {"prompts": "chat", "metric": "decode", "blocks": 16, "tokens": 192, "seed": 42}
    for name, default in defaults.items():
        if (value := getattr(args, name)) != default:
            words += [f"--{name}", str(value)]

    return [*words, "--quick"] if args.quick else words


def _shell(store: BenchStore) -> Any:
    import contextlib
    from collections.abc import Iterator

    from orchestrator.bench.daemon_link import DaemonLink
    from orchestrator.bench.session import BenchShell
    from orchestrator.cli.launching import ensure_daemon

    @contextlib.contextmanager
    def made() -> Iterator[BenchShell]:
        paths = find_paths()
        started = ensure_daemon(paths)
        link = DaemonLink(paths.control_socket, diagnostics.progress)
        try:
            yield BenchShell(paths, link, store, diagnostics.progress, diagnostics.note, started)
        finally:
            if started:
                link.end_daemon()

    return made()


def _list(store: BenchStore, args: argparse.Namespace) -> int:
    from orchestrator.bench.session import run_row

    rows = [run_row(each) for each in store.runs()]
    if args.json:
        output.json_data(rows)
    else:
        output.table(
            ("ID", "STARTED", "KIND", "WHAT", "STATE", "RESULT"),
            [[row[name] for name in ("id", "started", "kind", "what", "state", "result")] for row in rows],
        )

    return exit_codes.OK


def _show(store: BenchStore, number: int | None, args: argparse.Namespace) -> int:
    from orchestrator.bench.session import report_of

    _print(report_of(store, store.find(number)), args)
    return exit_codes.OK


def _print_newest(store: BenchStore, args: argparse.Namespace) -> None:
    from orchestrator.bench.session import report_of

    _print(report_of(store, store.find(None)), args)


def _print(report: dict[str, Any], args: argparse.Namespace) -> None:
    if args.json:
        output.json_data(report)
        return

    from orchestrator.core.bench.text import report_lines

    for line in report_lines(report):
        output.line(line)
