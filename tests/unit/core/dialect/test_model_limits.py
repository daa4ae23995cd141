"""Models that a build is known not to load."""

from __future__ import annotations

import pytest

from orchestrator.core.dialect.capabilities import Capabilities, Kind
from orchestrator.core.dialect.model_limits import known_limits, refuse_embeddings, refuse_model
from orchestrator.core.profile.settings import Value


def build(kind: Kind, *, spec_stages: bool = False) -> Capabilities:
    return Capabilities(kind, "0 (unknown)", None, None, {}, spec_stages)


@pytest.mark.parametrize(
    ("capabilities", "architecture", "nextn", "refused"),
    [
        (build("ik"), "qwen35moe", 1, True),
        (build("ik"), "qwen35", 1, True),
        (build("ik"), "qwen35moe", 0, False),
        (build("ik"), "glm4moe", 1, False),  # the fork's `-mtp` is for this one
        (build("ik"), None, 0, False),
        (build("ik", spec_stages=True), "qwen35moe", 1, False),
        (build("upstream"), "qwen35moe", 1, False),
    ],
)
def test_the_fork_of_spring_2026_is_refused_a_qwen35_file_with_mtp_layers(
    capabilities: Capabilities, architecture: str | None, nextn: int, refused: bool
) -> None:
    reason = refuse_model(capabilities, architecture, nextn)
    assert (reason is not None) == refused
    if reason is not None:
        assert architecture is not None and architecture in reason and "0 (unknown)" in reason


def test_the_limit_is_said_when_such_a_build_is_installed() -> None:
    assert "qwen35moe" in known_limits("ik", False)[0]
    assert known_limits("ik", True) == known_limits("upstream", False) == ()


@pytest.mark.parametrize(
    ("settings", "file_pooling", "refused"),
    [
        ({"server.embeddings": True}, None, True),
        ({"server.embeddings": True}, 0, True),
        ({"server.embeddings": True}, 1, False),
        ({"server.embeddings": True, "server.pooling": "last"}, None, False),
        ({"server.embeddings": True, "server.pooling": "none"}, None, False),
        ({"server.embeddings": True, "server.reranking": True}, None, False),
        ({"server.embeddings": False}, None, False),
        ({}, None, False),
    ],
)
def test_embeddings_of_a_file_that_names_no_pooling_need_one(
    settings: dict[str, Value], file_pooling: int | None, refused: bool
) -> None:
    assert (refuse_embeddings(settings, file_pooling) is not None) == refused
