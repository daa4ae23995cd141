from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest

from orchestrator.core.dialect.capabilities import Kind
from orchestrator.core.fleet.model_figures import (
    UNKNOWN,
    ModelFigures,
    engine_figures,
    loaded_figures,
    planned_figures,
)
from orchestrator.core.profile.settings import Value

HEADER = ModelFigures(trained_tokens=16384, architecture="llama", size_bytes=1000)


@pytest.mark.parametrize(
    ("settings", "kind", "tokens"),
    [
        ({"context.size": 6144}, "upstream", 6144),
        ({"context.size": 16384, "context.parallel": 2}, "upstream", 8192),
        ({"context.size": 16384, "context.parallel": 2, "context.unified_kv": True}, "upstream", 16384),
        ({"context.size": 16384, "context.parallel": 2, "context.unified_kv": True}, "ik", 8192),
        ({"context.size": 65536}, "upstream", 16384),
        ({"context.size": 65536}, "ik", 65536),
        ({"context.size": 0, "context.parallel": 4}, "unknown", 4096),
        ({}, "upstream", 16384),
    ],
)
def test_what_a_slot_would_have(settings: Mapping[str, Value], kind: Kind, tokens: int) -> None:
    planned = planned_figures(settings, kind, HEADER)
    assert (planned.context_tokens, planned.trained_tokens, planned.planned) == (tokens, 16384, True)


def test_without_a_header_the_profile_alone_says_it() -> None:
    assert planned_figures({}, "upstream", UNKNOWN) == replace(UNKNOWN, inputs=("text",))
    assert planned_figures({"context.size": 512}, "upstream", UNKNOWN).context_tokens == 512


def test_a_model_reads_text_and_what_its_engine_says_of_its_projector() -> None:
    assert planned_figures({}, "upstream", HEADER).inputs == ("text",)
    projector: dict[str, Value] = {"multimodal.mmproj": "/m/mmproj.gguf"}
    planned = planned_figures(projector, "upstream", HEADER)
    assert planned.inputs is None, "it may be one for sound"
    said = engine_figures({"modalities": {"vision": True, "audio": False}}, {})
    assert loaded_figures(planned, said).inputs == ("text", "image")
    assert engine_figures({"modalities": {"vision": False, "audio": True}}, {}).inputs == ("text", "audio")
    assert engine_figures({"modalities": "vision"}, {}).inputs is None


def test_an_engine_is_believed_before_the_plan() -> None:
    said = engine_figures(
        {"default_generation_settings": {"n_ctx": 4096}},
        {"data": [{"meta": {"n_ctx": 1, "n_ctx_train": 8192, "n_params": 5, "size": 7}}]},
    )
    assert loaded_figures(HEADER, said) == ModelFigures(4096, 8192, "llama", 7, 5, planned=False)


@pytest.mark.parametrize(
    "page", [None, [], {}, "x", {"data": []}, {"data": [{"meta": {"n_ctx": -1, "size": True, "n_params": 2**70}}]},
             {"default_generation_settings": [], "data": {"0": {}}}],
)  # fmt: skip
def test_an_engine_may_answer_anything(page: object) -> None:
    said = engine_figures(page, page)
    assert said == UNKNOWN
    assert loaded_figures(HEADER, said) == HEADER
