"""Looks whether there is something newer than an installed build: asks git or the package index, and builds nothing."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from orchestrator.adapters.paths import Paths
from orchestrator.core.errors import OrchError
from orchestrator.core.setup.build_news import BuildNews, NewCommit, NoNews
from orchestrator.engines.build import git as build_git
from orchestrator.engines.build import package_index as build_index
from orchestrator.engines.build.installs import Install
from orchestrator.engines.build.sources import repository_of

MOST_COMMITS = 2000
"""Whose subjects are read; the number of all is told."""


def look_for_news(install: Install, paths: Paths, now: datetime) -> BuildNews | NoNews:
    """Return what there is newer of the source that a build was made of.

    For git the history since then is fetched, without any content.
    """
    source = install.manifest.get("source")
    record: Mapping[str, Any] = source if isinstance(source, dict) else {}
    age_days = _age_days(install.manifest.get("built_at"), now)
    try:
        match record:
            case {"kind": "git", "url": str(url), "commit": str(commit)}:
                return _of_git(
                    install, age_days, url, commit, record.get("branch"), repository_of(install.engine, paths)
                )
            case {"kind": "pypi", "package": str(package), "version": str(version)}:
                found = build_index.listed(package)
                newer = tuple(build_index.newer_than(version, found))
                newest = newer[0] if newer else version
                return BuildNews(
                    install.engine, install.build, "pypi", age_days, version, newest, len(newer), versions=newer
                )
            case {"kind": "path", "path": str(path)}:
                return _of_checkout(install, age_days, path, record)
    except OrchError as error:
        return NoNews(install.engine, install.build, error.message, error.details)

    return NoNews(install.engine, install.build, "the installed build does not say what it was made from")


def _of_git(
    install: Install, age_days: int | None, url: str, commit: str, branch: object, repository: str
) -> BuildNews:
    newest = build_git.resolve_branch(url, branch if isinstance(branch, str) else None)
    news = BuildNews(install.engine, install.build, "git", age_days, commit, newest, 0)
    if newest == commit:
        return news

    build_git.fetch(repository, url, newest)
    between = build_git.commits_between(repository, commit, newest, MOST_COMMITS)
    behind, lines = between if between is not None else (None, ())
    commits = tuple(NewCommit(*line.split(" ", 2)) for line in lines if line.count(" ") >= 2)
    return BuildNews(install.engine, install.build, "git", age_days, commit, newest, behind, commits)


def _of_checkout(install: Install, age_days: int | None, path: str, record: Mapping[str, Any]) -> BuildNews | NoNews:
    commit, _, changed = build_git.work_tree_commit(path)
    if commit is None:
        return NoNews(install.engine, install.build, f"{path} is no checkout whose commit can be read")

    had = _named(record.get("commit"), record.get("changed"))
    return BuildNews(install.engine, install.build, "path", age_days, had, _named(commit, changed))


def _named(commit: object, changed: object) -> str | None:
    return f"{commit}{'-changed' if changed else ''}" if commit else None


def _age_days(built_at: object, now: datetime) -> int | None:
    try:
        built = datetime.fromisoformat(str(built_at).replace("Z", "+00:00"))
        return max((now - (built if built.tzinfo else built.replace(tzinfo=UTC))).days, 0)
    except ValueError:
        return None
