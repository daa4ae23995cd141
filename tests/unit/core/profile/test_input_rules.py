"""Embeddings, positions, images and adapters: what cannot work is said when the profile is read."""

from __future__ import annotations

import pytest

from orchestrator.core.dialect.capabilities import Kind
from orchestrator.core.profile.profile import EngineProfile, Recovery
from orchestrator.core.profile.remarks import find_remarks
from tests.unit.core.profile.test_rules import Settings, messages

EMBEDDINGS: Settings = {"server.embeddings": True}
PROJECTOR: Settings = {"multimodal.mmproj": "/p"}


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({**EMBEDDINGS, "context.size": 2048}, "(512 when it is not set) must hold the longest input"),
        ({**EMBEDDINGS, "context.size": 8192, "context.parallel": 4}, "a slot takes 2048 tokens"),
        ({"server.reranking": True, "context.size": 1024}, "must hold the longest input"),
        ({**EMBEDDINGS, "context.size": 1024, "context.parallel": 2, "context.unified_kv": True}, "takes 1024"),
        ({**EMBEDDINGS, "context.size": 2048, "batch.ubatch": 1024, "server.pooling": "cls"}, "(1024) must hold"),
        ({**EMBEDDINGS, "context.size": 2560, "context.parallel": 5}, "set `batch.ubatch = 515`"),
        ({**EMBEDDINGS, "context.parallel": 3, "server.pooling": "mean"}, "with mean pooling the engine stops"),
        ({"server.pooling": "last"}, "neither `server.embeddings` nor"),
        ({"server.reranking": True, "server.pooling": "mean"}, 'needs `server.pooling = "rank"`'),
        ({"rope.scale": 2.0, "rope.freq_scale": 0.5}, "keep one"),
        ({"rope.scaling": "linear", "rope.yarn_beta_fast": 32.0}, "is for YaRN"),
        ({"rope.scaling": "none", "rope.original_context": 4096}, "is for YaRN"),
        ({"lora.scales": (1.0,)}, "there is no `lora.adapters`"),
        ({"lora.adapters": ("/a", "/b"), "lora.scales": (1.0,)}, "one scale for each adapter"),
        ({"multimodal.image_min_tokens": 9, "multimodal.image_max_tokens": 8}, "is greater than"),
        ({**PROJECTOR, "multimodal.device": "CUDA1", "multimodal.offload": False}, "contradict"),
        ({"speculative.type": ("none", "mtp")}, "stands alone"),
        ({"speculative.type": ("mtp", "mtp")}, "is there twice"),
        ({"speculative.type": ("ngram-mod", "draft")}, "needs `speculative.draft_model`"),
        ({"speculative.type": ("ngram-mod", "ngram-cache"), "speculative.draft_model": "/d"}, "never used"),
    ],
)
def test_what_cannot_work_is_refused(settings: Settings, words: str) -> None:
    [message] = messages(settings, "upstream")
    assert words in message


def test_an_embedding_server_with_five_slots_is_told_both_faults() -> None:
    found = messages({**EMBEDDINGS, "context.size": 5120, "context.parallel": 5}, "upstream")
    assert len(found) == 2
    assert "a slot takes 1024 tokens" in found[0]
    assert "no multiple of `context.parallel` (5)" in found[1]
    assert all("set `batch.ubatch = 1025`" in message for message in found)  # keeps both rules


@pytest.mark.parametrize(
    "settings",
    [
        {**EMBEDDINGS, "context.size": 2048, "batch.ubatch": 2048},
        {**EMBEDDINGS, "context.size": 2048, "context.parallel": 4},
        {**EMBEDDINGS, "context.size": 32768, "server.pooling": "last"},
        {**EMBEDDINGS, "context.parallel": 3, "server.pooling": "cls"},
        {**EMBEDDINGS, "context.size": 1536, "context.parallel": 3, "batch.ubatch": 513},
        {"context.size": 32768},
        {"rope.scaling": "yarn", "rope.scale": 2.0, "rope.original_context": 4096},
        {"speculative.type": "mtp", "speculative.draft_model": "/d"},
        {"speculative.type": ("ngram-mod", "mtp"), "speculative.draft_model": "/d"},
        {"lora.adapters": ("/a", "/b"), "lora.scales": (1.0, -0.5)},
    ],
)
def test_what_works_is_left_alone(settings: Settings) -> None:
    assert messages(settings, "upstream") == []


@pytest.mark.parametrize(("placed"), [{"memory.cpu_moe": True}, {"memory.n_cpu_moe": 4}, {"memory.gpu_layers": "all"}])
def test_a_margin_is_without_effect_where_placing_by_hand_turns_off_the_default_fit(placed: Settings) -> None:
    assert "gives that up" in messages({**placed, "memory.fit_margin": 512}, "upstream")[0]
    assert "gives that up" in messages(placed, "upstream", Recovery(margins=(512,)))[0]
    assert messages({"memory.fit_margin": 512}, "upstream") == []


def remarks(settings: Settings, kind: Kind) -> list[str]:
    return list(find_remarks(EngineProfile("p", "e", "/m", (), settings, Recovery(), ()), kind))


@pytest.mark.parametrize(
    ("settings", "kind", "words"),
    [
        ({"memory.cpu_moe": True}, "upstream", "fits the model into device memory by default, and gives that up"),
        ({"memory.gpu_layers": 20}, "upstream", "gives that up for `memory.gpu_layers`"),
        ({"memory.fit": False, "memory.fit_min_context": 4096}, "upstream", "nothing is fitted"),
        ({"memory.fit_min_context": 4096, "context.size": 8192}, "upstream", "shrinks a context that is left to it"),
        ({"memory.main_gpu": 1}, "upstream", '`memory.split` is "layer" by default'),
        ({"multimodal.offload": False}, "upstream", "no effect without `multimodal.mmproj`"),
        ({"multimodal.image_max_tokens": 64}, "ik", "no effect without `multimodal.mmproj`"),
        ({**PROJECTOR, "cache.reuse": 64}, "upstream", "`cache.reuse`: the engine turns it off"),
        ({**PROJECTOR, "context.shift": True}, "upstream", "`context.shift`: the engine turns it off"),
        ({"reasoning.budget_message": "stop"}, "upstream", "unlimited, as by default"),
        ({"memory.lazy": "on", "memory.mmap": False}, "upstream", "reads from a mapped file"),
        (EMBEDDINGS, "upstream", "inputs above 512 tokens"),
    ],
)
def test_what_another_setting_or_a_default_makes_inert_is_said(settings: Settings, kind: Kind, words: str) -> None:
    [remark] = remarks(settings, kind)
    assert words in remark


@pytest.mark.parametrize(
    ("settings", "kind"),
    [
        ({}, "upstream"),
        ({"memory.cpu_moe": True}, "ik"),
        ({"memory.fit": False, "memory.cpu_moe": True}, "upstream"),
        ({"memory.main_gpu": 1, "memory.split": "none"}, "upstream"),
        ({**PROJECTOR, "multimodal.offload": False}, "upstream"),
        ({"reasoning.budget": 500, "reasoning.budget_message": "stop"}, "upstream"),
        ({**EMBEDDINGS, "batch.ubatch": 2048}, "upstream"),
    ],
)
def test_nothing_is_said_of_what_has_its_effect(settings: Settings, kind: Kind) -> None:
    assert remarks(settings, kind) == []
