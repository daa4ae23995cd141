"""Names of files as people who publish models give them."""

from __future__ import annotations

import pytest

from orchestrator.core.errors import UsageError
from orchestrator.core.plan.repository import (
    Contents,
    ModelReference,
    RepositoryFile,
    choose_model,
    find_quant,
    parse_reference,
    quant_of,
    sort_files,
)

REPOSITORY = "org/Model-GGUF"


def contents(*paths: str) -> Contents:
    return sort_files(RepositoryFile(path, 100 + index) for index, path in enumerate(paths))


def chosen(quant: str, *paths: str) -> str:
    return choose_model(ModelReference(REPOSITORY, quant), contents(*paths)).files[0].path


@pytest.mark.parametrize(
    ("path", "quant"),
    [
        ("Qwen3.6-35B-A3B-UD-Q4_K_XL.gguf", "UD-Q4_K_XL"),
        ("Qwen3.6-27B-IQ4_XS.gguf", "IQ4_XS"),
        ("gemma-3-12b-it-q4_0.gguf", "Q4_0"),
        ("Llama-3.1-8B.Q5_K_M.gguf", "Q5_K_M"),
        ("Model.i1-IQ3_M.gguf", "i1-IQ3_M"),
        ("gpt-oss-20b-mxfp4.gguf", "MXFP4"),
        ("gpt-oss-20b-MXFP4_MOE.gguf", "MXFP4_MOE"),
        ("Model-fp16.gguf", "F16"),
        ("Model-BF16-00001-of-00002.gguf", "BF16"),
        ("Qwen3-235B-mix-IQ3_K-00001-of-00003.gguf", "mix-IQ3_K"),
        ("Model-IQ4_KSS.gguf", "IQ4_KSS"),
        ("Model-TQ1_0.gguf", "TQ1_0"),
        ("ggml-model-Q4_0_4_4.gguf", "Q4_0_4_4"),
        ("Q8_0/Model-00001-of-00004.gguf", "Q8_0"),
        ("UD-IQ1_M/Model-UD-IQ1_M-00001-of-00004.gguf", "UD-IQ1_M"),
        ("Model-Q4_K_M-v2.gguf", "Q4_K_M"),
        ("Model-Q4_K_M.GGUF", "Q4_K_M"),
        ("some-model.gguf", "some-model"),
    ],
)
def test_a_file_is_called_by_its_quantisation(path: str, quant: str) -> None:
    assert quant_of(path) == quant


@pytest.mark.parametrize(
    "wanted", ["Q4_K_M", "q4_k_m", "Q4-K-M", "Model-Q4_K_M.gguf", "model-q4_k_m", "deep/Model-Q4_K_M.gguf"]
)
def test_a_quantisation_is_found_as_people_write_it(wanted: str) -> None:
    assert (
        chosen(wanted, "Model-Q4_K_S.gguf", "deep/Model-Q4_K_M.gguf", "Model-Q4_K_L.gguf") == "deep/Model-Q4_K_M.gguf"
    )


def test_the_exact_name_goes_before_the_same_with_a_prefix() -> None:
    files = ("M-Q4_K_M.gguf", "M-UD-Q4_K_M.gguf", "M-UD-Q4_K_XL.gguf")
    assert chosen("Q4_K_M", *files) == "M-Q4_K_M.gguf"
    assert chosen("UD-Q4_K_M", *files) == "M-UD-Q4_K_M.gguf"
    assert chosen("Q4_K_XL", *files) == "M-UD-Q4_K_XL.gguf"


@pytest.mark.parametrize(
    "beside",
    [
        "mmproj-F16.gguf",
        "Model-mmproj-Q8_0.gguf",
        "mmproj/Model-BF16.gguf",
        "mtp-Model-Q4_K_M.gguf",
        "MTP/Model-Q4_K_M.gguf",
        "gemma-4-31B-it-assistant-Q4_K_M.gguf",
        "eagle3-Model-Q4_K_M.gguf",
        "draft/Model-Q4_K_M.gguf",
        "imatrix-Q4_K_M.gguf",
        "Model-imatrix.gguf",
        "Model-lora-F16.gguf",
    ],
)
def test_what_lies_beside_a_model_is_not_taken_for_it(beside: str) -> None:
    found = contents(beside, "Model-Q4_K_M.gguf", "README.md", "config.json", "Model-Q4_K_M.safetensors")
    assert [model.files[0].path for model in found.models] == ["Model-Q4_K_M.gguf"]
    assert chosen("Q4_K_M", beside, "Model-Q4_K_M.gguf") == "Model-Q4_K_M.gguf"


def test_a_model_with_its_mtp_layers_inside_is_a_model() -> None:
    assert chosen("q8_0", "Qwen3.6-27B-MTP-Q8_0.gguf", "Qwen3.6-27B-MTP-Q4_K_M.gguf") == "Qwen3.6-27B-MTP-Q8_0.gguf"


def test_the_parts_of_a_model_are_one_model_in_their_order() -> None:
    names = [f"Q8_0/Model-Q8_0-0000{number}-of-00003.gguf" for number in (3, 1, 2)]
    (model,) = contents(*names).models
    assert [file.path for file in model.files] == sorted(names)
    assert (model.quant, model.size_bytes, model.missing) == ("Q8_0", 303, ())


def test_a_part_that_is_not_there_is_named() -> None:
    (model,) = contents("M-Q8_0-00001-of-00003.gguf", "M-Q8_0-00003-of-00003.gguf").models
    assert model.missing == ("M-Q8_0-00002-of-00003.gguf",)


def test_models_are_listed_from_small_to_large_and_an_unknown_size_stays_unknown() -> None:
    found = sort_files(
        [RepositoryFile("M-Q8_0.gguf", 9), RepositoryFile("M-Q2_K.gguf", 3), RepositoryFile("M-F16.gguf")]
    )
    assert [(model.quant, model.size_bytes) for model in found.models] == [("F16", None), ("Q2_K", 3), ("Q8_0", 9)]


def test_without_a_quantisation_it_is_what_the_engines_take() -> None:
    assert chosen("", "M-Q2_K.gguf", "M-Q4_K_M.gguf", "M-Q8_0.gguf") == "M-Q4_K_M.gguf"
    assert chosen("", "M-Q8_0.gguf") == "M-Q8_0.gguf"
    with pytest.raises(UsageError, match="which quantisation") as caught:
        chosen("", "M-Q2_K.gguf", "M-Q8_0.gguf")

    assert caught.value.details == ("it has: Q2_K, Q8_0",)


def test_a_quantisation_that_is_not_there_lists_those_that_are() -> None:
    with pytest.raises(UsageError, match="org/Model-GGUF has no Q5_K_M") as caught:
        chosen("Q5_K_M", "M-Q2_K.gguf", "M-UD-Q4_K_XL.gguf", "mmproj-F16.gguf")

    assert caught.value.details == ("it has: Q2_K, UD-Q4_K_XL",)
    with pytest.raises(UsageError) as caught:
        chosen("q5_0", "M-Q2_K.gguf", "M-Q5_K_M.gguf", "M-IQ4_XS.gguf")

    assert "hf:org/Model-GGUF:Q5_K_M" in (caught.value.hint or "")


def test_two_models_in_one_quantisation_are_told_apart_by_their_files() -> None:
    with pytest.raises(UsageError, match="has 2 models in Q4_K_M") as caught:
        chosen("Q4_K_M", "Small-Q4_K_M.gguf", "Large-Q4_K_M.gguf")

    assert sorted(caught.value.details) == ["Large-Q4_K_M.gguf", "Small-Q4_K_M.gguf"]
    assert chosen("Large-Q4_K_M.gguf", "Small-Q4_K_M.gguf", "Large-Q4_K_M.gguf") == "Large-Q4_K_M.gguf"


@pytest.mark.parametrize(
    ("paths", "found"), [((), "no GGUF"), (("model.safetensors",), "no GGUF"), (("mmproj-F16.gguf",), "mmproj-F16")]
)
def test_a_repository_without_a_model_says_what_it_has(paths: tuple[str, ...], found: str) -> None:
    with pytest.raises(UsageError, match="there is no GGUF model") as caught:
        chosen("", *paths)

    assert found in caught.value.details[0]


@pytest.mark.parametrize(
    ("text", "reference"),
    [
        ("hf:org/Repo", ("org/Repo", "")),
        ("hf:org/Repo:Q4_K_M", ("org/Repo", "Q4_K_M")),
        ("hf:org/Repo.v2-GGUF:UD-Q4_K_XL", ("org/Repo.v2-GGUF", "UD-Q4_K_XL")),
        ("hf:org/Repo:sub/Model.gguf", ("org/Repo", "sub/Model.gguf")),
    ],
)
def test_a_reference_names_a_repository_and_perhaps_a_quantisation(text: str, reference: tuple[str, str]) -> None:
    assert parse_reference(text) == reference


@pytest.mark.parametrize(
    "text", ["hf:", "hf:org", "hf:org/", "hf:/repo", "hf:a/b/c", "hf:org/re po", "hf:../etc", "hf:org/repo?x=1"]
)
def test_what_names_no_repository_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="names no repository"):
        parse_reference(text)


def test_a_file_s_name_that_two_share_needs_its_folder() -> None:
    models = contents("a/M-Q8_0.gguf", "b/M-Q8_0.gguf").models
    assert len(find_quant(models, "M-Q8_0.gguf")) == 2
    assert [model.files[0].path for model in find_quant(models, "b/M-Q8_0.gguf")] == ["b/M-Q8_0.gguf"]


def test_a_file_that_is_listed_twice_is_one() -> None:
    (model,) = sort_files([RepositoryFile("M-Q8_0.gguf", 5), RepositoryFile("M-Q8_0.gguf")]).models
    assert len(model.files) == 1
