"""What there is newer than an installed build: which commits matter by their subjects, and words for people. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

Topic = Literal["speculative", "cuda", "server"]


def _words(words: str) -> re.Pattern[str]:
    return re.compile(rf"\b({words})\b", re.IGNORECASE)


_WORDS: dict[Topic, re.Pattern[str]] = {
    "speculative": _words(r"spec|speculative|speculation|draft\w*|mtp|nextn|eagle3?|n-?gram\w*"),
    "cuda": _words(r"cuda|cublas|nvfp4|mmq|mmvq|mmvf?|fattn|nccl|hip"),
    "server": _words(r"server|llama-server|slots?|prompt cache|checkpoints?"),
}
"""Both projects begin a subject with the part that it is about (`server : ...`, `CUDA: ...`), and go on in words."""


@dataclass(frozen=True, slots=True)
class NewCommit:
    """One commit that an installed build lacks.

    :param date: as git writes it, `2026-11-28`
    """

    commit: str
    date: str
    subject: str

    @property
    def topics(self) -> tuple[Topic, ...]:
        return topics_of(self.subject)


@dataclass(frozen=True, slots=True)
class BuildNews:
    """What was found of one engine's current build.

    :param kind: of its source: `git`, `pypi` or `path`
    :param has: the commit or the version that it was made of; None where that is not known
    :param newest: the newest of the same source
    :param behind: commits in between, or newer versions; None where they cannot be counted
    :param commits: the newest of them, for a source in git
    :param versions: the newer ones of the package index, the newest first
    """

    engine: str
    build: str
    kind: str
    age_days: int | None
    has: str | None = None
    newest: str | None = None
    behind: int | None = None
    commits: tuple[NewCommit, ...] = ()
    versions: tuple[str, ...] = ()

    @property
    def is_outdated(self) -> bool:
        return self.newest is not None and self.newest != self.has


@dataclass(frozen=True, slots=True)
class NoNews:
    """An engine whose source could not be asked.

    :param details: what was observed, a line each
    """

    engine: str
    build: str
    reason: str
    details: tuple[str, ...] = field(default=())


def topics_of(subject: str) -> tuple[Topic, ...]:
    """Return what a commit is about, by its subject: of what this machine's speed and answers depend on."""
    return tuple(topic for topic, words in _WORDS.items() if words.search(subject))


def news_line(news: BuildNews) -> str:
    """Return what was found in a sentence."""
    age = f", built {_days(news.age_days)} ago" if news.age_days is not None else ""
    head = f"{news.engine} {news.build}{age}"
    if not news.is_outdated:
        return f"{head}: nothing newer"

    newest = news.newest[:9] if news.kind == "git" and news.newest else news.newest
    match news.kind, news.behind:
        case "git", int(count):
            counts = _topic_counts(news.commits)
            return f"{head}: {_plural(count, 'commit')} behind {newest}{counts}"
        case "pypi", _:
            return f"{head}: {_plural(len(news.versions), 'newer version')}, the newest {newest}"
        case _:
            return f"{head}: the source is another one by now ({newest})"


def _topic_counts(commits: Sequence[NewCommit]) -> str:
    counts = {topic: sum(topic in each.topics for each in commits) for topic in _WORDS}
    found = [f"{count} {topic}" for topic, count in counts.items() if count]
    return f" ({', '.join(found)})" if found else ""


def _days(count: int) -> str:
    return _plural(count, "day")


def _plural(count: int, word: str) -> str:
    return f"{count} {word}{'' if count == 1 else 's'}"
