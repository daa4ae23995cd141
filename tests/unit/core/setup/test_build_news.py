"""What is said of newer sources; subjects as both projects write them."""

from __future__ import annotations

import pytest

from orchestrator.core.setup.build_news import BuildNews, NewCommit, news_line, topics_of


@pytest.mark.parametrize(
    ("subject", "topics"),
    [
        ("server : fix slot selection with prompt cache (#28001)", ("server",)),
        ("CUDA: fuse adds, fix fattn for head size 512", ("cuda",)),
        ("speculative : keep the draft context between requests", ("speculative",)),
        ("server : support MTP drafts for hybrid models", ("speculative", "server")),
        ("Fix CUDA graphs with ngram-mod", ("speculative", "cuda")),
        ("llama : add a new architecture", ()),
        ("docs: the inspector's special respect", ()),
        ("vulkan: shipping", ()),
    ],
)
def test_a_subject_says_what_a_commit_is_about(subject: str, topics: tuple[str, ...]) -> None:
    assert topics_of(subject) == topics


def commits(*subjects: str) -> tuple[NewCommit, ...]:
    return tuple(NewCommit("abc123456", "2026-11-28", each) for each in subjects)


@pytest.mark.parametrize(
    ("news", "line"),
    [
        (
            BuildNews("upstream", "b1", "git", 12, "a" * 40, "b" * 40, 3, commits("server : x", "CUDA: y", "z")),
            "upstream b1, built 12 days ago: 3 commits behind bbbbbbbbb (1 cuda, 1 server)",
        ),
        (BuildNews("upstream", "b1", "git", 1, "a", "a", 0), "upstream b1, built 1 day ago: nothing newer"),
        (
            BuildNews("ik-fork", "s", "pypi", None, "0.1.5", "0.1.7", 2, versions=("0.1.7", "0.1.6")),
            "ik-fork s: 2 newer versions, the newest 0.1.7",
        ),
        (
            BuildNews("upstream", "b1", "git", 0, "a", "b" * 40, None),
            "upstream b1, built 0 days ago: the source is another one by now (bbbbbbbbb)",
        ),
    ],
)
def test_what_is_newer_is_one_sentence(news: BuildNews, line: str) -> None:
    assert news_line(news) == line
