"""Which files are one model and what belongs to it, by names alone."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.core.setup.found_models import FileGroup, FoundFile, FoundModel, Sorted, merge_same, models_of, rank

GB = 10**9


def group(
    *names: str, repository: bool = True, label: str = "org/Some-GGUF", sizes: dict[str, int] | None = None
) -> Sorted:
    files = (FoundFile(f"/m/{name}", name, (sizes or {}).get(name, GB), (1, hash(name))) for name in names)
    return models_of(FileGroup("LM Studio", label, tuple(files), repository))


def one(found: Sorted) -> FoundModel:
    (model,) = found.models
    return model


def by_title(found: Sorted) -> dict[str, FoundModel]:
    return {f"{model.title} {model.quant}": model for model in found.models}


def test_a_model_has_a_title_a_quantisation_and_its_path() -> None:
    model = one(group("Qwen3-4B-Q4_K_M.gguf"))
    assert (model.title, model.quant, model.path, model.usable) == (
        "Qwen3-4B",
        "Q4_K_M",
        "/m/Qwen3-4B-Q4_K_M.gguf",
        True,
    )


def test_all_parts_of_a_split_model_are_one_and_a_missing_one_is_named() -> None:
    parts = [f"UD-Q4_K_XL/Big-UD-Q4_K_XL-{number:05d}-of-00003.gguf" for number in (1, 2, 3)]
    whole = one(group(*reversed(parts)))
    assert [file.name for file in whole.files] == parts and whole.usable and whole.size_bytes == 3 * GB
    cut = one(group(*parts[::2]))
    assert (cut.missing, cut.usable) == ((parts[1],), False)


@pytest.mark.parametrize("name", ["mmproj-F16.gguf", "mmproj-model-f16.gguf", "mmproj.gguf", "Other-mmproj-BF16.gguf"])
def test_a_repository_s_projector_belongs_to_its_one_model_in_every_quantisation(name: str) -> None:
    found = group("Qwen3-VL-4B-Q4_K_M.gguf", "Qwen3-VL-4B-Q8_0.gguf", name)
    assert {model.projector for model in found.models} == {f"/m/{name}"}
    assert found.alone == ()


def test_of_several_projectors_the_usual_one_is_taken() -> None:
    assert (
        one(group("A-Q8_0.gguf", "mmproj-BF16.gguf", "mmproj-F16.gguf", "mmproj-F32.gguf")).projector
        == "/m/mmproj-F16.gguf"
    )


def test_an_mtp_head_beside_a_model_drafts_for_it_in_its_own_quantisation_first() -> None:
    found = by_title(
        group(
            "Qwen3.6-27B-Q8_0.gguf",
            "Qwen3.6-27B-Q4_K_M.gguf",
            "mtp-Qwen3.6-27B-Q8_0.gguf",
            "MTP/mtp-Qwen3.6-27B-Q4_K_M.gguf",
        )
    )
    assert found["Qwen3.6-27B Q8_0"].drafter == "/m/mtp-Qwen3.6-27B-Q8_0.gguf"
    assert found["Qwen3.6-27B Q4_K_M"].drafter == "/m/MTP/mtp-Qwen3.6-27B-Q4_K_M.gguf"


def test_in_a_heap_of_files_names_decide() -> None:
    found = group(
        "Qwen2.5-VL-7B-Instruct-Q4_K_M.gguf", "gemma-3-4b-it-Q4_K_M.gguf", "Phi-4-Q4_K_M.gguf",
        "mmproj-Qwen2.5-VL-7B-Instruct-f16.gguf", "gemma-3-4b-mmproj-f16.gguf", "mmproj-F16.gguf",
        "mmproj-Nobody-9B-f16.gguf", repository=False,
    )  # fmt: skip
    models = by_title(found)
    assert models["Qwen2.5-VL-7B-Instruct Q4_K_M"].projector == "/m/mmproj-Qwen2.5-VL-7B-Instruct-f16.gguf"
    assert models["gemma-3-4b-it Q4_K_M"].projector == "/m/gemma-3-4b-mmproj-f16.gguf"
    assert models["Phi-4 Q4_K_M"].projector is None
    assert models["Phi-4 Q4_K_M"].unnamed == ("/m/mmproj-F16.gguf",)  # whose it is, only headers tell
    assert [file.name for file in found.alone] == ["mmproj-Nobody-9B-f16.gguf"]


def test_a_name_that_only_begins_alike_is_another_model_s() -> None:
    found = group(
        "gemma-3-4b-it-Q4_K_M.gguf", "gemma-3-12b-it-Q4_K_M.gguf", "mmproj-gemma-3-1-f16.gguf", repository=False
    )
    assert all(model.projector is None for model in found.models)


def test_a_projector_without_a_name_belongs_to_the_only_model_of_its_directory() -> None:
    found = group("a/A-Q4_K_M.gguf", "a/mmproj-F16.gguf", "b/B-Q4_K_M.gguf", repository=False)
    assert {model.title: model.projector for model in found.models} == {"A": "/m/a/mmproj-F16.gguf", "B": None}


def test_a_file_that_is_called_alike_everywhere_is_called_after_its_directory() -> None:
    assert one(group("qwen3/model.gguf", "qwen3/mmproj.gguf", repository=False)).title == "qwen3"
    assert one(group("ggml-model-Q4_K_M.gguf", label="org/Some-Model")).title == "Some-Model"


def test_vocabularies_adapters_and_importance_matrices_are_no_models() -> None:
    assert group("ggml-vocab-llama-bpe.gguf", "imatrix.gguf", "x-lora-f16.gguf").models == ()


def test_one_file_with_several_names_is_one_model_with_what_lies_beside_any_of_them() -> None:
    plain = FoundModel("A", "Q8_0", "Hugging Face", "org/A", (FoundFile("/hf/A.gguf", "A.gguf", 1, (1, 7)),))
    other = FoundModel("A", "Q8_0", "Ollama", "a:8b", (FoundFile("/o/sha256-1", "x", 1, (1, 7)),), projector="/o/p")
    (model,) = merge_same([plain, other])
    assert (model.path, model.also, model.projector) == ("/hf/A.gguf", ("Ollama",), "/o/p")


def test_the_largest_that_fits_comes_first_and_what_cannot_be_used_last() -> None:
    sizes = {"A-Q8_0.gguf": 4 * GB, "B-Q8_0.gguf": 9 * GB, "C-Q8_0.gguf": 30 * GB, "bge-m3-Q8_0.gguf": 5 * GB,
             "D-Q8_0-00001-of-00002.gguf": GB}  # fmt: skip
    found = group(*sizes, sizes=sizes, repository=False)
    assert [model.title for model in rank(found.models, 10 * GB)] == ["B", "A", "C", "bge-m3", "D"]


WORDS = st.sampled_from(
    ["Qwen3", "4B", "mmproj", "mtp", "model", "Q4_K_M", "Q8_0", "F16", "draft", "00001-of-00002", "vl", "", "é", "-"]
)
NAMES = st.lists(st.lists(WORDS, min_size=1, max_size=5).map("-".join), max_size=12, unique=True)


@given(NAMES, st.booleans(), st.randoms(use_true_random=False))
def test_any_names_are_sorted_the_same_in_any_order_and_nothing_is_used_twice_as_a_model(
    names: list[str], repository: bool, dice: random.Random
) -> None:
    files = [f"{name}.gguf" for name in names]
    found = group(*files, repository=repository)
    shuffled = list(files)
    dice.shuffle(shuffled)
    again = group(*shuffled, repository=repository)
    assert {model.path: model for model in again.models} == {model.path: model for model in found.models}
    used = [file.name for model in found.models for file in model.files]
    assert len(used) == len(set(used)) and set(used) <= set(files)
    beside = {model.projector for model in found.models} | {model.drafter for model in found.models}
    assert not beside & {f"/m/{name}" for name in used}
