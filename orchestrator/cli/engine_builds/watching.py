"""`orch engines watch`: one look for newer sources, which are built at idle priority, judged, and told. For a timer."""

from __future__ import annotations

import argparse
import contextlib
import json
from typing import TYPE_CHECKING

from orchestrator.cli import diagnostics, output
from orchestrator.cli.engine_builds import building
from orchestrator.core import exit_codes
from orchestrator.core.errors import OrchError

if TYPE_CHECKING:
    from orchestrator.adapters.paths import Paths
    from orchestrator.engines.build.installs import Install

EVENT = "engine_build"
MOST_TEXT = 2000
"""Characters of an event that the daemon takes."""


def run(args: argparse.Namespace) -> int:
    from orchestrator.adapters.paths import find_paths

    if args.id is not None:
        building.check_id(args.id)

    return _watch(find_paths(), args)


def _watch(paths: Paths, args: argparse.Namespace) -> int:
    """Look once at every engine of which orch built the current build; 1 where one could not be looked at or built.

    A new build is made current only with `engines.auto`; otherwise one that has passed its gate waits for a person.
    """
    from orchestrator.adapters.config.config_file import load_config
    from orchestrator.engines.build import installs
    from orchestrator.engines.build.git import REMOTES

    flip = load_config(paths).engines.auto
    engines = [args.id] if args.id else REMOTES
    builds = [build for engine in engines if (build := installs.current(engine, paths)) is not None]
    if not builds:
        diagnostics.note("there is no build of orch's own to watch (`orch engines build upstream`)")

    found = []
    for build in builds:
        try:
            found.append(_look(paths, args, build, flip=flip))
        except OrchError as error:
            diagnostics.clear_progress()
            text = "; ".join((f"{build.engine} {build.build} stays current: {error.message}", *error.details[:4]))
            diagnostics.warn(text)
            _tell(paths, text)
            found.append({"id": build.engine, "current": build.build, "problem": error.message})

    if args.json:
        output.json_data(found)

    return exit_codes.FAILED if any("problem" in each for each in found) else exit_codes.OK


def _look(paths: Paths, args: argparse.Namespace, current: Install, *, flip: bool) -> dict[str, object]:
    """:raises OrchError: when the source does not answer, or the build fails"""
    from datetime import UTC, datetime

    from orchestrator.core.setup.build_news import NoNews, news_line
    from orchestrator.engines.build import sources
    from orchestrator.engines.build.outdated import look_for_news

    news = look_for_news(current, paths, datetime.now(UTC))
    if isinstance(news, NoNews):
        raise OrchError(f"it is not known what is newer: {news.reason}", details=news.details)

    diagnostics.note(news_line(news))
    if not news.is_outdated:
        return {"id": current.engine, "current": current.build, "outdated": False}

    options = argparse.Namespace(
        id=current.engine, backend=None, jobs=args.jobs, define=[], no_verify=False, no_gate=False
    )
    result, judged = building.install_and_settle(
        options, sources.source_of_record(current.manifest["source"]), paths, current, unattended=True, flip=flip
    )
    new = result.install
    text = f"{current.engine} {new.build} is installed"
    if judged is not None:
        text = {
            "accepted": f"{current.engine} is {new.build} now, it was {current.build}: {judged.reason}",
            "waiting": f"a newer {current.engine} has passed its gate: `orch engines use {current.engine} {new.build}` "
            f"makes it current ({judged.reason})",
        }.get(judged.state, f"{current.engine} {new.build} was not made current ({judged.state}): {judged.reason}")

    if judged is None or not (result.reused and judged.state in building.JUDGED):
        _tell(paths, text)

    if not args.json:
        output.line(text)

    gate = judged.as_json() if judged is not None else None
    return {"id": current.engine, "current": current.build, "outdated": True, "new": new.build, "gate": gate}


def _tell(paths: Paths, text: str) -> None:
    """Have a running daemon tell it as an event; without one, there is nobody to tell."""
    from orchestrator.api import client

    body = json.dumps({"kind": EVENT, "message": text[:MOST_TEXT]}).encode()
    with contextlib.suppress(OrchError):
        client.request(paths.control_socket, "/v1/events", body)
