"""`orch engines outdated`: what there is newer than the builds that are current."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from orchestrator.cli import diagnostics, output
from orchestrator.core import exit_codes

if TYPE_CHECKING:
    from orchestrator.adapters.paths import Paths
    from orchestrator.core.setup.build_news import BuildNews, NoNews

MOST_LINES = 20
"""Commits that are listed of each engine; `--json` has all that were read."""


def outdated(paths: Paths, args: argparse.Namespace) -> int:
    """Tell of each current build what there is newer; 1 where a source could not be asked."""
    from datetime import UTC, datetime

    from orchestrator.engines.build import installs
    from orchestrator.engines.build.git import REMOTES
    from orchestrator.engines.build.outdated import look_for_news

    engines = [args.id] if args.id else REMOTES
    builds = [build for engine in engines if (build := installs.current(engine, paths)) is not None]
    found: list[BuildNews | NoNews] = []
    for build in builds:
        diagnostics.progress(f"asking for what is newer than {build.engine} {build.build}")
        found.append(look_for_news(build, paths, datetime.now(UTC)))

    diagnostics.clear_progress()
    if args.json:
        output.json_data([_as_json(each) for each in found])
    else:
        for each in found:
            _show(each)

    if not builds:
        what = f"`{args.id}` has no build" if args.id else "no build of orch's own"
        diagnostics.note(f"{what} to compare with (`orch engines build {args.id or 'upstream'}`)")

    return exit_codes.OK if all(_was_asked(each) for each in found) else exit_codes.FAILED


def _was_asked(found: BuildNews | NoNews) -> bool:
    from orchestrator.core.setup.build_news import BuildNews

    return isinstance(found, BuildNews)


def _show(found: BuildNews | NoNews) -> None:
    from orchestrator.core.setup.build_news import NoNews, news_line

    if isinstance(found, NoNews):
        diagnostics.warn(f"{found.engine} {found.build}: it is not known what is newer: {found.reason}")
        for line in found.details:
            diagnostics.note(f"  {line}")

        return

    output.line(news_line(found))
    matter = [each for each in found.commits if each.topics]
    for each in matter[:MOST_LINES]:
        output.line(f"  {each.commit} {each.date} {each.subject}")

    if len(matter) > MOST_LINES:
        output.line(f"  and {len(matter) - MOST_LINES} more on speculation, CUDA and the server")

    if found.versions:
        output.line(f"  {', '.join(found.versions[:MOST_LINES])}")

    if found.is_outdated:
        diagnostics.note(f"`orch engines update {found.engine}` builds the newest, and compares it with this one")


def _as_json(found: BuildNews | NoNews) -> dict[str, object]:
    from orchestrator.core.setup.build_news import NoNews

    if isinstance(found, NoNews):
        problem = {"message": found.reason, "details": list(found.details)}
        return {"id": found.engine, "build": found.build, "outdated": None, "problem": problem}

    return {
        "id": found.engine,
        "build": found.build,
        "outdated": found.is_outdated,
        "source": found.kind,
        "age_days": found.age_days,
        "has": found.has,
        "newest": found.newest,
        "behind": found.behind,
        "commits": [
            {"commit": each.commit, "date": each.date, "subject": each.subject, "topics": list(each.topics)}
            for each in found.commits
        ],
        "versions": list(found.versions),
        "problem": None,
    }
