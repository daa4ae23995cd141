"""`orch bench list`, `show`, `diff`, `export`, `course` and `accept`, and how a report is printed."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

from orchestrator.cli import diagnostics, output
from orchestrator.core import exit_codes
from orchestrator.core.errors import UsageError

if TYPE_CHECKING:
    from orchestrator.adapters.store.bench_runs import BenchStore, KeptRun
    from orchestrator.core.course.course import Course


def run_number(words: Sequence[str], what: str, verb: str) -> int | None:
    """Return the number of a run that is kept; None where none is named, which is the newest.

    :param what: what it is the number of; `verb` is whose `list` shows them
    """
    if not words:
        return None

    if len(words) > 1 or not words[0].isdigit():
        raise UsageError(f"`{' '.join(words)}` is not the number of a {what}", hint=f"`orch {verb} list` shows them")

    return int(words[0])


def list_runs(store: BenchStore, args: argparse.Namespace) -> int:
    from orchestrator.bench.session import run_row

    rows = [run_row(each) for each in store.benches()]
    if args.json:
        output.json_data(rows)
    else:
        output.table(
            ("ID", "STARTED", "KIND", "WHAT", "STATE", "RESULT"),
            [[row[name] for name in ("id", "started", "kind", "what", "state", "result")] for row in rows],
        )

    return exit_codes.OK


def show(store: BenchStore, number: int | None, args: argparse.Namespace) -> int:
    print_report(store, store.find(number), args)
    return exit_codes.OK


def export(store: BenchStore, number: int | None) -> int:
    """Print a bench as it is kept, each answer included; never what was answered."""
    from orchestrator.bench.session import report_of

    kept = store.find(number)
    output.json_data(
        {
            "version": 1,
            "kind": kept.kind,
            "spec": kept.spec,
            "events": store.events(kept.id),
            "report": report_of(store, kept) if kept.kind == "pair" else kept.result,
        }
    )
    return exit_codes.OK


def diff(store: BenchStore, numbers: Sequence[int | None], args: argparse.Namespace) -> int:
    from orchestrator.bench.session import report_of
    from orchestrator.core.bench.differences import bench_differences, difference_lines

    if len(numbers) != 2:
        raise UsageError("two benches are expected", hint="`orch bench diff 3 5`; `orch bench list` shows the numbers")

    kept = [store.find(number) for number in numbers]
    for each in kept:
        if each.kind != "pair":
            raise UsageError(f"bench {each.id} is a {each.kind}: only benches of two targets can be set side by side")

    found = bench_differences(*(report_of(store, each) for each in kept))
    if args.json:
        output.json_data(found)
    else:
        for line in difference_lines(found):
            output.line(line)

    return exit_codes.OK


def course(name: str | None, args: argparse.Namespace) -> int:
    """Print how fast profiles were over time, and which of them have become slower.

    :param name: `PROFILE` or `PROFILE@ENGINE`; None for all
    """
    from orchestrator.core.course.text import accept_hint, course_json, course_lines

    courses = _courses(name)
    if args.json:
        output.json_data({"version": 1, "courses": [course_json(each) for each in courses]})
        return exit_codes.OK

    for number, each in enumerate(courses):
        for line in [""] * (number > 0) + course_lines(each):
            output.line(line)

        if each.decline is not None:
            diagnostics.note(accept_hint(each.series))

    if not courses:
        diagnostics.note(
            "nothing was measured yet: a bench is, and so are eight answers a day that had the machine to themselves"
        )

    return exit_codes.OK


def tell_declines(store: BenchStore, bench: int) -> None:
    """Tell of profiles that were faster in an earlier bench than in this one."""
    from orchestrator.adapters.paths import find_paths
    from orchestrator.adapters.store.courses import read_courses
    from orchestrator.core.course.text import accept_hint, decline_text

    for each in read_courses(find_paths(), store):
        if each.decline is not None and each.decline.now.marks[-1].bench == bench:
            diagnostics.note(f"{decline_text(each.series, each.decline)}; {accept_hint(each.series)}")


def accept(name: str) -> int:
    """Take the present speed of a profile for normal: what it was before is not compared with any more."""
    from orchestrator.adapters.paths import find_paths
    from orchestrator.adapters.store.speed_marks import SpeedMarkStore

    declined = {each.series: each.decline for each in _courses(name) if each.decline is not None}
    since_s = {series: decline.now.marks[0].when_s for series, decline in declined.items()}
    if since_s:
        SpeedMarkStore(find_paths().speed_marks_file).accept(since_s)

    for series, decline in declined.items():
        diagnostics.note(f"{series.target} ({series.kind}): {decline.now.rate:.4g} a second is its speed from now on")

    if not since_s:
        diagnostics.note(f"`{name}` is not known to be slower than it was: there is nothing to accept")

    return exit_codes.OK


def _courses(name: str | None) -> list[Course]:
    """Return the courses of a profile, on one engine or on all; those of all profiles without a name.

    :raises UsageError: when nothing was measured of what is named
    """
    from orchestrator.adapters.paths import find_paths
    from orchestrator.adapters.store.courses import read_courses
    from orchestrator.core.problems import did_you_mean

    courses = read_courses(find_paths())
    found = [each for each in courses if name in (None, each.series.profile, each.series.target)]
    if name is not None and not found:
        known = sorted({each.series.target for each in courses})
        raise UsageError(
            f"nothing was measured of `{name}`",
            details=(f"measured: {', '.join(known) or 'nothing yet'}",),
            hint=did_you_mean(name, known) or "`orch bench course` shows all",
        )

    return found


def print_report(store: BenchStore, kept: KeptRun, args: argparse.Namespace) -> None:
    """Print a report in the form that was asked for, and write the page."""
    from orchestrator.bench.session import report_of
    from orchestrator.core.bench import documents, single_text, text

    pair = kept.kind == "pair"
    report = report_of(store, kept) if pair else kept.result
    if report is None:
        raise UsageError(f"bench {kept.id} has no result: it was broken off")

    if args.html is not None:
        write_page(args.html, documents.html_page(report) if pair else documents.single_page(report))

    if args.json:
        output.json_data(report)
    elif args.markdown:
        output.raw(documents.markdown(report) if pair else documents.single_markdown(report))
    else:
        for line in text.report_lines(report) if pair else single_text.single_lines(report):
            output.line(line)


def write_page(file: str, page: str) -> None:
    """Write the page of a report, and say so."""
    from orchestrator.adapters.config.text_file import write_text

    write_text(os.path.abspath(file), page)
    diagnostics.note(f"written: {file}")
