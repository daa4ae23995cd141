from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import pytest

from orchestrator.core.dialect.capabilities import Kind
from orchestrator.core.dialect.model_fit import (
    adapter_misfit,
    drafter_misfit,
    model_misfit,
    mtp_drafter_misfit,
    projector_misfit,
)
from orchestrator.core.dialect.tensor_types import TENSOR_TYPES, fork_only, may_load, type_advice


@dataclass(frozen=True)
class FakeTensor:
    name: str
    shape: tuple[int, ...] = (32,)
    type: int = 0
    size_bytes: int = 0


@dataclass(frozen=True)
class Tokens:
    length: int


@dataclass(frozen=True)
class FakeHeader:
    architecture: str = "llama"
    kv: Mapping[str, object] = field(default_factory=dict)
    tensors: Sequence[FakeTensor] = ()
    path: str = "/m.gguf"

    def number(self, key: str) -> int | None:
        value = self.kv.get(f"{self.architecture}.{key}")
        return value if isinstance(value, int) else None


def typed(number: int) -> FakeHeader:
    return FakeHeader(tensors=(FakeTensor("token_embd.weight"), FakeTensor("output.weight", type=number)))


@pytest.mark.parametrize(
    ("kind", "number", "hint"),
    [
        ("upstream", 144, "iq4_ks of ik_llama.cpp: the fork loads it, `orch up NAME --engine ik-fork`"),
        ("upstream", 137, "the fork loads it"),
        ("upstream", 202, "q4_0_r8 of ik_llama.cpp"),
        ("upstream", 399, "the fork loads it"),
        ("upstream", 142, "some other fork: the file is whole"),
        ("ik", 142, "some other fork: the file is whole"),
        ("ik", 66, "take another quantisation"),
        ("upstream", 66, "take another quantisation"),
        ("upstream", 31, "take the file's q4_0"),
    ],
)
def test_a_quantisation_that_the_build_cannot_read_is_refused_with_what_to_use(
    kind: Kind, number: int, hint: str
) -> None:
    found = model_misfit((typed(number),), kind)
    assert found is not None
    assert "`output.weight`" in found.detail and str(number) in found.detail
    assert hint in found.hint and "download" not in found.hint


@pytest.mark.parametrize(
    ("kind", "number"),
    [("upstream", 12), ("ik", 12), ("ik", 144), ("upstream", 39), ("unknown", 144), ("unknown", 9999), ("upstream", 43),
     ("ik", 160), ("ik", 42)],
)  # fmt: skip
def test_what_the_build_reads_or_a_newer_one_may_is_left_to_it(kind: Kind, number: int) -> None:
    assert model_misfit((typed(number),), kind) is None


def test_every_split_is_looked_at() -> None:
    assert model_misfit((typed(12), typed(12), typed(144)), "upstream") is not None


def test_each_type_of_the_table_loads_on_one_of_the_engines_and_the_advice_names_it() -> None:
    for number in TENSOR_TYPES:
        assert may_load("ik", number)
        assert may_load("upstream", number) != (fork_only(number) or number in (31, 32, 33))
        assert "download" not in type_advice(number, "upstream")


@pytest.mark.parametrize(("size", "fits"), [(18 * 4, True), (18 * 4 + 31, True), (18 * 4 - 1, False), (136, False)])
def test_a_q2_0_with_blocks_of_another_size_is_another_fork_s(size: int, fits: bool) -> None:
    header = FakeHeader(tensors=(FakeTensor("a.weight", (64, 4), 42, size),))
    found = model_misfit((header,), "upstream")
    assert (found is None) == fits
    assert found is None or "the file is whole" in found.hint


@pytest.mark.parametrize(
    ("header", "key"),
    [(FakeHeader("clip"), "multimodal.mmproj"), (FakeHeader(kv={"general.type": "adapter"}), "lora.adapters")],
)
def test_a_file_that_is_no_model_is_named_with_the_key_that_it_is_for(header: FakeHeader, key: str) -> None:
    found = model_misfit((header,), "upstream")
    assert found is not None and key in found.hint


def model(width: int = 2560, **kv: object) -> FakeHeader:
    return FakeHeader("qwen3", {"qwen3.embedding_length": width, **kv})


def projector(*shapes: tuple[int, ...], name: str = "mm.2.weight") -> FakeHeader:
    tensors = tuple(FakeTensor(name, shape) for shape in shapes)
    return FakeHeader("clip", {"clip.vision.projection_dim": shapes[0][-1] if shapes else 0}, tensors, "/p.gguf")


@pytest.mark.parametrize(
    ("beside", "fits"),
    [
        (projector((4096, 2560)), True),
        (projector((1024, 4096), (4096, 2560)), True),
        (projector((4096, 10240)), True),  # several widths at once: deep stacks
        (projector((4096, 5120), (5120,), name="other"), True),  # nothing is known
        (projector(), True),
        (projector((1152, 3584)), False),
        (projector((1024, 4096), (4096,)), False),
        (FakeHeader("qwen3", path="/p.gguf"), False),
    ],
)
def test_a_projector_leads_into_the_width_of_its_model(beside: FakeHeader, fits: bool) -> None:
    found = projector_misfit(model(), beside)
    assert (found is None) == fits
    assert found is None or "/p.gguf" in found.detail


def test_a_projector_of_another_model_says_whose_it_is() -> None:
    found = projector_misfit(model(), projector((1152, 3584)))
    assert found is not None
    assert found.detail == "/p.gguf: made for a model of width 3584; /m.gguf is qwen3 of width 2560"
    assert found.hint == "use the projector that was published with the model"


def vocabulary(name: str = "gpt2", count: int = 1000, **more: object) -> FakeHeader:
    kv = {"tokenizer.ggml.model": name, "tokenizer.ggml.tokens": Tokens(count)}
    return FakeHeader(kv=kv | {f"tokenizer.ggml.{key}": value for key, value in more.items()})


@pytest.mark.parametrize(
    ("draft", "reason"),
    [
        (vocabulary(), None),
        (vocabulary(count=1128), None),
        (vocabulary(count=1129), "it has 1129 tokens, the model has 1000"),
        (vocabulary(count=32), "it has 32 tokens"),
        (vocabulary("llama"), "its tokenizer is llama, the model's is gpt2"),
        (vocabulary(bos_token_id=1, add_bos_token=True), "its BOS token is 1, the model's is 0"),
        (vocabulary(bos_token_id=0, add_bos_token=False), "it adds no BOS token, unlike the model"),
        (vocabulary(eos_token_id=9, add_eos_token=False), None),  # the engine adds none: it compares none
        (FakeHeader(), None),
    ],
)
def test_a_draft_model_has_the_vocabulary_of_its_model(draft: FakeHeader, reason: str | None) -> None:
    target = vocabulary(bos_token_id=0, add_bos_token=True, eos_token_id=2, add_eos_token=False)
    found = drafter_misfit(target, draft)
    assert (found is None) == (reason is None)
    assert reason is None or (found is not None and reason in found.detail)


@pytest.mark.parametrize(
    ("adapter", "words"),
    [
        (FakeHeader("qwen3", {"general.type": "adapter"}), None),
        (FakeHeader("llama", {"general.type": "adapter"}), "of another model"),
        (FakeHeader("qwen3", {"general.type": "model"}), "is no adapter"),
        (FakeHeader("qwen3"), "is no adapter"),
    ],
)
def test_an_adapter_is_one_and_of_its_base(adapter: FakeHeader, words: str | None) -> None:
    found = adapter_misfit(model(), adapter)
    assert (found is None) == (words is None)
    assert words is None or (found is not None and words in found.message)


@pytest.mark.parametrize(
    ("architecture", "nextn", "width", "backbone", "words"),
    [
        ("gemma4-assistant", 0, 1024, 2816, ""),
        ("gemma4_mtp", 0, 1024, None, ""),
        ("step35", 3, 2816, None, ""),
        ("qwen35", 1, None, None, ""),
        ("gemma4-assistant", 0, 1024, 5376, "for a model of width 5376"),
        ("qwen35moe", 1, 2048, None, "for a model of width 2048"),
        ("llama", 0, 2816, None, "has no MTP layers"),
        ("gemma4", 0, 2816, None, "has no MTP layers"),
        ("", 0, None, None, "has no MTP layers"),
    ],
)
def test_a_drafter_of_mtp_is_a_head_of_the_models_width(
    architecture: str, nextn: int, width: int | None, backbone: int | None, words: str
) -> None:
    numbers = {"nextn_predict_layers": nextn, "embedding_length": width, "embedding_length_out": backbone}
    drafter = FakeHeader(architecture, {f"{architecture}.{key}": value for key, value in numbers.items()})
    misfit = mtp_drafter_misfit(FakeHeader(kv={"llama.embedding_length": 2816}), drafter)
    assert (misfit is None) == (not words)
    assert misfit is None or (words in misfit.message and "a head of its own" not in misfit.hint)


def test_a_model_with_a_head_of_its_own_can_do_without_the_wrong_file() -> None:
    misfit = mtp_drafter_misfit(FakeHeader(kv={"llama.nextn_predict_layers": 1}), FakeHeader("bert"))
    assert misfit is not None and "leave speculative.draft_model out" in misfit.hint
