"""`orch bench`."""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from orchestrator.adapters.paths import find_paths
from orchestrator.cli import diagnostics
from orchestrator.cli.operate import bench_show
from orchestrator.cli.operate.bench_show import run_number
from orchestrator.core import exit_codes
from orchestrator.core.errors import OrchError, UsageError

if TYPE_CHECKING:
    from orchestrator.adapters.store.bench_runs import BenchStore
    from orchestrator.bench.session import BenchShell

HELP = "find out which of two engines, profiles or settings is faster, and how sure that is"
EXAMPLES = """\
  orch bench upstream ik-fork                          # the profile that runs, on both engines
  orch bench my-profile my-profile+kv.k=q8_0 --metric turn
  orch bench course my-profile                         # how fast it was over time, and what changed
  orch bench show --html report.html                   # the newest; `orch bench list` has the others
  orch bench accept my-profile                         # its present speed is normal from now on"""

ACTIONS = {
    "resume": "go on with a bench that was broken off",
    "pass": "one target once, without a verdict",
    "depth": "speed against context depth",
    "load": "speed against the number of clients",
    "list": "the benches that were made",
    "show": "a bench's report",
    "diff": "two benches side by side",
    "course": "how fast profiles were over time, by benches and by answers to clients",
    "accept": "take the present speed of a profile for normal",
    "export": "all that was kept of a bench, as JSON",
}
"""First words that are not a target; `list@upstream` would be the profile of that name."""

DEFAULTS: Mapping[str, object] = {
    "prompts": "chat",
    "metric": "decode",
    "blocks": 16,
    "quick": False,
    "tokens": 192,
    "seed": 42,
    "to": 131072,
    "clients": "1,2,4,8",
    "json": False,
    "markdown": False,
    "html": None,
}
"""Of all options, in the order in which the command that repeats a bench names those that are not as here."""

_REPORT = ("json", "markdown", "html")
_PAIR_OPTIONS = ("prompts", "metric", "blocks", "quick", "tokens", "seed", *_REPORT)
_OPTIONS: Mapping[str, tuple[str, ...]] = {
    "resume": _REPORT,
    "pass": ("prompts", "tokens", *_REPORT),
    "depth": ("to", *_REPORT),
    "load": ("prompts", "tokens", "clients", *_REPORT),
    "list": ("json",),
    "show": _REPORT,
    "diff": ("json",),
    "course": ("json",),
    "accept": (),
    "export": ("json",),
}
"""What each action takes."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "words",
        nargs="+",
        metavar="A B",
        help="two targets: ENGINE, PROFILE or PROFILE@ENGINE, each with +key=value,... behind it; or one of "
        + "; ".join(f"{name}: {text}" for name, text in ACTIONS.items()),
    )
    parser.add_argument("--prompts", metavar="SET", help="mtp, code, chat (the default), long, or a JSONL file")
    parser.add_argument("--metric", choices=("decode", "turn", "prompt", "ttft"), help="what is compared (decode)")
    parser.add_argument("--blocks", type=int, choices=(6, 10, 16), help="end after so many blocks at the latest (16)")
    parser.add_argument("--quick", action="store_true", help="4 blocks: an interval, and never a verdict")
    parser.add_argument("--tokens", type=int, metavar="N", help="length of each answer (192)")
    parser.add_argument("--seed", type=int, metavar="N", help="of the order of blocks and prompts (42)")
    parser.add_argument("--to", type=int, metavar="N", help="depth: the deepest context (131072)")
    parser.add_argument("--clients", metavar="N,N", help="load: how many at once (1,2,4,8)")
    parser.add_argument("--json", action="store_true", help="print the report as JSON")
    parser.add_argument("--markdown", action="store_true", help="print the report for a post")
    parser.add_argument("--html", metavar="FILE", help="write the report with its plots into a file")
    parser.set_defaults(**DEFAULTS)


def run(args: argparse.Namespace) -> int:
    from orchestrator.adapters.store.bench_runs import BenchStore

    action, *rest = args.words
    _check_words(args.words)
    _check_options(args)
    if action == "course":
        return bench_show.course(rest[0] if rest else None, args)

    if action == "accept":
        return bench_show.accept(rest[0])

    store = BenchStore(find_paths().bench_file)
    try:
        match action:
            case "list":
                return bench_show.list_runs(store, args)
            case "show":
                return bench_show.show(store, run_number(rest, "bench", "bench"), args)
            case "export":
                return bench_show.export(store, run_number(rest, "bench", "bench"))
            case "diff":
                return bench_show.diff(store, [run_number([word], "bench", "bench") for word in rest], args)
            case "resume":
                return _measure(store, args, lambda shell: _resume(shell, run_number(rest, "bench", "bench")))
            case "pass" | "depth" | "load":
                return _measure(store, args, lambda shell: _single(shell, action, rest[0], args))

        return _measure(store, args, lambda shell: _pair(shell, args))
    finally:
        store.close()


def _check_words(words: Sequence[str]) -> None:
    """Check how many words there are; numbers of benches are checked as they are read.

    :raises UsageError: when there are more or fewer than are taken
    """
    action, *rest = words
    found = " ".join(rest) if action in ACTIONS else " ".join(words)
    if action in ("pass", "depth", "load", "accept"):
        wanted, right = f"`orch bench {action}` takes one PROFILE[@ENGINE]", len(rest) == 1
    elif action == "course":
        wanted, right = "`orch bench course` takes one PROFILE[@ENGINE] or none", len(rest) <= 1
    elif action == "list":
        wanted, right = "`orch bench list` takes no word", not rest
    else:
        wanted, right = "`orch bench` takes two targets", action in ACTIONS or len(words) == 2

    if not right:
        raise UsageError(f"{wanted}, found {f'`{found}`' if found else 'none'}", hint="run `orch bench --help`")


def _check_options(args: argparse.Namespace) -> None:
    """:raises UsageError: when an option is given that what is asked for does not take"""
    allowed = _OPTIONS.get(args.words[0], _PAIR_OPTIONS)
    what = f"`orch bench {args.words[0]}`" if args.words[0] in ACTIONS else "a bench of two targets"
    for name, default in DEFAULTS.items():
        if name not in allowed and getattr(args, name) != default:
            taken = ", ".join(f"--{each}" for each in allowed)
            raise UsageError(f"{what} has no --{name}", details=(f"it takes {taken or 'no option'}",))


def _measure(store: BenchStore, args: argparse.Namespace, work: Callable[[BenchShell], Mapping[str, Any]]) -> int:
    """Measure, and print the report; also of what was measured until the user broke it off."""
    from orchestrator.bench.running import BenchTargetFailed
    from orchestrator.cli.bench_shell import bench_shell

    with bench_shell(find_paths(), store) as shell:
        newest = store.newest()
        try:
            report = work(shell)
        except KeyboardInterrupt:
            diagnostics.clear_progress()
            with contextlib.suppress(OrchError):
                kept = store.find(None)
                if kept.kind == "pair" and (kept.id > newest or args.words[0] == "resume"):
                    bench_show.print_report(store, kept, args)
                    diagnostics.note("broken off; what was measured is kept: `orch bench resume` goes on")

            return exit_codes.INTERRUPTED
        except BenchTargetFailed as failed:
            raise failed.error from failed
        finally:
            diagnostics.clear_progress()

    bench_show.print_report(store, store.find(report["id"]), args)
    bench_show.tell_declines(store, report["id"])
    return exit_codes.OK


def _resume(shell: BenchShell, number: int | None) -> Mapping[str, Any]:
    from orchestrator.bench.session import resume_pair

    return resume_pair(shell, number)


def _single(shell: BenchShell, kind: str, target: str, args: argparse.Namespace) -> Mapping[str, Any]:
    from orchestrator.bench import single
    from orchestrator.bench.datasets import load_workload

    if kind == "depth":
        return single.run_depth(shell, target, args.to, _command(args))

    _check_tokens(args.tokens)
    workload = load_workload(args.prompts)
    if kind == "pass":
        return single.run_pass(shell, target, workload, args.tokens, _command(args))

    return single.run_load(shell, target, _clients(args.clients), workload, args.tokens, _command(args))


def _clients(text: str) -> list[int]:
    """Return the numbers of clients, at most 256 at once."""
    words = text.split(",")
    if not all(word.isdigit() and 1 <= int(word) <= 256 for word in words):
        raise UsageError(
            f"--clients {text}: numbers from 1 to 256 are expected", hint="for example `--clients 1,2,4,8`"
        )

    return [int(word) for word in words]


def _check_tokens(tokens: int) -> None:
    if not 16 <= tokens <= 4096:
        raise UsageError(f"--tokens {tokens} cannot be measured", details=("allowed: 16 to 4096",))


def _pair(shell: BenchShell, args: argparse.Namespace) -> Mapping[str, Any]:
    from orchestrator.bench.datasets import load_workload
    from orchestrator.bench.session import begin_pair
    from orchestrator.core.bench.blocks import BenchPlan

    _check_tokens(args.tokens)
    workload = load_workload(args.prompts)
    most = 4 if args.quick else args.blocks
    plan = BenchPlan(args.seed, args.metric, tuple(each.name for each in workload.prompts), most)
    return begin_pair(shell, (args.words[0], args.words[1]), plan, workload, args.tokens, _command(args))


def _command(args: argparse.Namespace) -> list[str]:
    """Return the command that repeats a bench."""
    words = ["orch", "bench", *args.words]
    for name, default in DEFAULTS.items():
        if name not in _REPORT and (value := getattr(args, name)) != default:
            words += [f"--{name}"] if value is True else [f"--{name}", str(value)]

    return words
