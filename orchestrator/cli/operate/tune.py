"""`orch tune`."""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from orchestrator.adapters.paths import find_paths
from orchestrator.cli import diagnostics, output
from orchestrator.cli.operate.bench_show import run_number, write_page
from orchestrator.core import exit_codes
from orchestrator.core.errors import OrchError, UsageError

if TYPE_CHECKING:
    from orchestrator.adapters.config.profile_editing import Draft
    from orchestrator.adapters.store.bench_runs import BenchStore
    from orchestrator.bench.session import BenchShell
    from orchestrator.bench.tuning import TuneOptions

HELP = "find faster settings for a profile on this machine, and prove that they are"
EXAMPLES = """\
  orch tune my-profile                        # 15 minutes; shows what it found and changes nothing
  orch tune my-profile --for agent --apply    # write what was confirmed into the profile
  orch tune my-profile --engines upstream,ik-fork    # tune both, then bench the winners against each other
  orch tune resume                            # go on where one was broken off
  orch tune show --html report.html           # the newest; `orch tune list` has the others"""

ACTIONS = ("resume", "show", "list", "apply")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "words",
        nargs="+",
        metavar="PROFILE[@ENGINE]",
        help="or `resume [N]` goes on with one that was broken off, `list` and `show [N]` say what was found, "
        "`apply [N]` writes what was confirmed into the profile",
    )
    parser.add_argument(
        "--for", dest="use", choices=("chat", "agent", "batch"), default="chat", help="the turns that count (chat)"
    )
    parser.add_argument("--budget", default="15m", metavar="TIME", help="for a tuning, such as 10m or 1h (15m)")
    parser.add_argument("--starts", type=int, default=20, metavar="N", help="most starts of the search (20)")
    parser.add_argument(
        "--allow", default="", metavar="kv,context", help="try also what changes answers, or shortens conversations"
    )
    parser.add_argument("--engines", metavar="A,B", help="tune on each, and bench the winners against each other")
    parser.add_argument("--apply", action="store_true", help="write what was confirmed into the profile")
    parser.add_argument("--seed", type=int, default=42, metavar="N", help="of the order of the confirmation (42)")
    parser.add_argument("--json", action="store_true", help="print the report as JSON")
    parser.add_argument("--markdown", action="store_true", help="print the report for a post")
    parser.add_argument("--html", metavar="FILE", help="write the report into a file, as a page")


def run(args: argparse.Namespace) -> int:
    from orchestrator.adapters.store.bench_runs import BenchStore

    action, *rest = args.words
    store = BenchStore(find_paths().bench_file)
    try:
        match action:
            case "list" if not rest:
                return _list(store, args)
            case "show":
                return _print([_kept_report(store, rest)], args)
            case "apply":
                return _apply_kept(store, rest, args)
            case "resume":
                return _measure(store, args, lambda shell: _resumed(shell, rest))

        if rest or action in ACTIONS:
            raise UsageError(f"one profile is expected, found `{' '.join(args.words)}`", hint="run `orch tune --help`")

        options = _options(args)
        return _measure(store, args, lambda shell: _tuned(shell, action, options, args))
    finally:
        store.close()


def _options(args: argparse.Namespace) -> TuneOptions:
    from orchestrator.bench.tuning import TuneOptions
    from orchestrator.core.quantities import parse_seconds
    from orchestrator.core.tune.axes import ALLOWED

    allowed = tuple(each for each in args.allow.split(",") if each)
    for each in allowed:
        if each not in ALLOWED:
            raise UsageError(f"--allow {args.allow}: `{each}` is no axis", details=(f"allowed: {', '.join(ALLOWED)}",))

    if not 3 <= args.starts <= 200:
        raise UsageError(f"--starts {args.starts} is not possible", details=("allowed: 3 to 200",))

    budget_s = parse_seconds(args.budget, "--budget", "orch tune PROFILE --budget 15m")
    if budget_s < 60:
        raise UsageError(f"--budget {args.budget} is too short", details=("at least 1m is needed",))

    return TuneOptions(args.use, budget_s, allowed, args.starts, args.seed)


def _tuned(shell: BenchShell, profile: str, options: TuneOptions, args: argparse.Namespace) -> list[dict[str, Any]]:
    from orchestrator.bench.tuning import begin_tuning, bench_winners

    command = _command(args)
    if args.engines is None:
        return [begin_tuning(shell, profile, options, command)]

    engines = [each for each in args.engines.split(",") if each]
    if len(engines) != 2 or "@" in profile:
        raise UsageError(
            f"--engines {args.engines}: two engines and a profile without one are expected",
            hint="for example `orch tune PROFILE --engines upstream,ik-fork`",
        )

    found = [begin_tuning(shell, f"{profile}@{engine}", options, command) for engine in engines]
    return [*found, bench_winners(shell, found, options, command)]


def _resumed(shell: BenchShell, words: list[str]) -> list[dict[str, Any]]:
    from orchestrator.bench.tuning import resume_tuning

    return [resume_tuning(shell, run_number(words, "tuning", "tune"))]


def _measure(store: BenchStore, args: argparse.Namespace, work: Any) -> int:
    from orchestrator.cli.bench_shell import bench_shell

    with bench_shell(find_paths(), store) as shell:
        try:
            reports = work(shell)
        except KeyboardInterrupt:
            diagnostics.clear_progress()
            diagnostics.note("broken off; what was measured is kept: `orch tune resume` goes on")
            return exit_codes.INTERRUPTED
        finally:
            diagnostics.clear_progress()

    code = _print(reports, args)
    for report in reports:
        if report["kind"] == "tune" and report["confirmed"]:
            _tell_changes(report, args)

    return code


def _print(reports: list[dict[str, Any]], args: argparse.Namespace) -> int:
    from orchestrator.core.bench.text import report_lines as bench_lines
    from orchestrator.core.tune.documents import html_page, markdown
    from orchestrator.core.tune.report import report_lines

    if args.html is not None:
        write_page(args.html, html_page(reports))

    if args.json:
        output.json_data(reports[0] if len(reports) == 1 else reports)
        return exit_codes.OK

    if args.markdown:
        output.raw(markdown(reports))
        return exit_codes.OK

    for number, report in enumerate(reports):
        if number:
            output.line()

        for line in bench_lines(report) if report["kind"] == "pair" else report_lines(report):
            output.line(line)

    return exit_codes.OK


def _tell_changes(report: Mapping[str, Any], args: argparse.Namespace) -> None:
    """Write what was confirmed into the profile where that was asked for, else show what would be written."""
    if args.apply:
        _apply(report)
    elif not args.json:
        import difflib

        draft = _draft(report)
        lines = difflib.unified_diff(
            draft.before.splitlines(),
            draft.after.splitlines(),
            draft.copied_from or draft.path,
            draft.path,
            lineterm="",
        )
        for line in lines:
            output.line(line)

        diagnostics.note(f"nothing was changed: `orch tune apply {report['id']}` writes this into the profile")


def _apply_kept(store: BenchStore, words: list[str], args: argparse.Namespace) -> int:
    report = _kept_report(store, words)
    if not report["confirmed"]:
        raise OrchError(
            f"tuning {report['id']} has nothing that was confirmed", hint=f"`orch tune show {report['id']}` says why"
        )

    _apply(report)
    return exit_codes.OK


def _apply(report: Mapping[str, Any]) -> None:
    from orchestrator.adapters.config.text_file import write_text

    draft = _draft(report)
    write_text(draft.path, draft.after)
    for change in draft.changes:
        was = "not set" if change.before is None else change.before
        diagnostics.note(f"{draft.path}: {change.key} = {change.after} (was {was})")

    diagnostics.note("in force at the next start; `orch reload` starts an engine anew that runs this profile")


def _draft(report: Mapping[str, Any]) -> Draft:
    """Return the profile with what was confirmed: in the engine's own table, as another engine has another best."""
    from orchestrator.adapters.config.profile_editing import draft_values, parse_value
    from orchestrator.adapters.config.profile_files import ProfileStore
    from orchestrator.core.tune.report import comments_of

    keys = {key: f'engine."{report["engine"]}".{key}' for key in report["proposal"]}
    return draft_values(
        ProfileStore(find_paths()),
        report["profile"],
        [(keys[key], parse_value(value)) for key, value in report["proposal"].items()],
        {keys[key]: comment for key, comment in comments_of(report, time.strftime("%Y-%m-%d")).items()},
    )


def _list(store: BenchStore, args: argparse.Namespace) -> int:
    from orchestrator.bench.session import run_row
    from orchestrator.bench.tuning import machine_now, tuning_report
    from orchestrator.core.tune.report import verdict_line

    rows, machine = [], machine_now()
    for kept in store.tunings():
        report = tuning_report(find_paths(), store, kept, machine)
        result = verdict_line(report) if kept.result else "`orch tune resume` goes on"
        rows.append({**run_row(kept), "result": result, "stale": report["stale"]})

    if args.json:
        output.json_data(rows)
        return exit_codes.OK

    output.table(
        ["ID", "STARTED", "WHAT", "STATE", "RESULT"],
        [
            [row["id"], row["started"], row["what"], "stale" if row["stale"] else row["state"], row["result"]]
            for row in rows
        ],
    )
    return exit_codes.OK


def _kept_report(store: BenchStore, words: list[str]) -> dict[str, Any]:
    from orchestrator.bench.tuning import find_tuning, machine_now, tuning_report

    kept = find_tuning(store, run_number(words, "tuning", "tune"))
    if kept is None:
        raise OrchError("there is no such tuning", hint="`orch tune list` shows them")

    return tuning_report(find_paths(), store, kept, machine_now())


def _command(args: argparse.Namespace) -> list[str]:
    """Return the command that repeats a tuning."""
    words = ["orch", "tune", *args.words]
    for name, value, default in (
        ("for", args.use, "chat"), ("budget", args.budget, "15m"), ("starts", args.starts, 20),
        ("allow", args.allow, ""), ("engines", args.engines, None), ("seed", args.seed, 42),
    ):  # fmt: skip
        if value != default:
            words += [f"--{name}", str(value)]

    return words
