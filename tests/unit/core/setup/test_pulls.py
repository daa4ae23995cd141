"""Which quantisation, what beside it, under which names, and what is said while it comes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.core.errors import OrchError, UsageError
from orchestrator.core.plan.repository import ListedModel, RepositoryFile, sort_files
from orchestrator.core.plan.verdict import Verdict
from orchestrator.core.setup.pulls import (
    RESERVE_BYTES,
    PullCandidate,
    check_one_model,
    check_path,
    choose_for_machine,
    extras_for,
    partial_name,
    progress_words,
    read_partial_name,
    space_problem,
)

SIZES = {"Q2_K": 2, "Q3_K_M": 3, "Q4_K_M": 4, "Q5_K_M": 5, "Q8_0": 8, "BF16": 16}


def model(quant: str) -> ListedModel:
    return ListedModel(quant, (RepositoryFile(f"M-{quant}.gguf", SIZES[quant]),))


def chosen(has_device: bool, **verdicts: Verdict) -> str:
    candidates = [PullCandidate(model(quant), verdict, SIZES[quant]) for quant, verdict in verdicts.items()]
    return choose_for_machine("org/M", candidates, has_device=has_device).model.quant


@pytest.mark.parametrize(
    ("has_device", "verdicts", "quant"),
    [
        (True, {"Q2_K": "fits", "Q5_K_M": "fits", "Q8_0": "fits_with_offload"}, "Q5_K_M"),
        (True, {"Q8_0": "fits", "BF16": "fits"}, "Q8_0"),  # half of the memory, and the answers are alike
        (True, {"BF16": "fits"}, "BF16"),
        (True, {"Q2_K": "fits_with_offload", "Q4_K_M": "fits_with_offload", "Q8_0": "fits_with_offload"}, "Q4_K_M"),
        (True, {"Q2_K": "fits", "Q4_K_M": "fits_with_offload"}, "Q2_K"),
        (False, {"Q2_K": "fits", "Q4_K_M": "fits", "Q8_0": "fits"}, "Q4_K_M"),  # each token reads all of it
        (False, {"Q2_K": "fits", "Q3_K_M": "fits", "Q4_K_M": "does_not_fit"}, "Q3_K_M"),
        (False, {"Q3_K_M": "fits", "Q4_K_M": "unclear", "Q5_K_M": "fits"}, "Q3_K_M"),
        (True, {"Q2_K": "unclear", "Q4_K_M": "unclear", "Q8_0": "does_not_fit"}, "Q2_K"),
    ],
)
def test_the_largest_on_the_device_else_the_usual_one(
    has_device: bool, verdicts: dict[str, Verdict], quant: str
) -> None:
    assert chosen(has_device, **verdicts) == quant


def test_what_fits_nowhere_is_not_fetched_unasked() -> None:
    with pytest.raises(OrchError, match="no quantisation of org/M fits") as caught:
        chosen(True, Q4_K_M="does_not_fit", Q2_K="does_not_fit")

    assert caught.value.details == ("the smallest, Q2_K, needs 2 MiB at least",)


def test_different_models_are_told_apart_and_quantisations_of_one_are_not() -> None:
    check_one_model("org/M", [model(quant) for quant in SIZES])
    with pytest.raises(UsageError, match="2 different models"):
        check_one_model("org/M", [model("Q2_K"), ListedModel("Q2_K", (RepositoryFile("N-Q2_K.gguf"),))])


def test_one_projector_and_one_drafter_with_all_its_parts() -> None:
    names = ["M-Q4_K_M.gguf", "mmproj-BF16.gguf", "mmproj-F16.gguf", "mmproj-F32.gguf", "draft-M-Q4_K_M.gguf",
             "mtp-M-Q8_0-00001-of-00002.gguf", "mtp-M-Q8_0-00002-of-00002.gguf", "mtp-M-Q2_K.gguf"]  # fmt: skip
    contents = sort_files(RepositoryFile(name, 1) for name in names)
    found = extras_for(contents.models[0], contents)
    assert [file.path for file in found.files] == [names[2], names[5], names[6]]
    assert {file.path for file in found.left_out} == {names[1], names[3], names[4], names[7]}
    nothing = sort_files([RepositoryFile(names[0], 1)])
    assert extras_for(nothing.models[0], nothing).files == ()


def test_of_drafters_the_one_in_the_model_s_quantisation_comes_first() -> None:
    contents = sort_files(RepositoryFile(name, 1) for name in ("M-Q4_K_M.gguf", "mtp-Q8_0.gguf", "mtp-Q4_K_M.gguf"))
    assert [file.path for file in extras_for(contents.models[0], contents).drafter] == ["mtp-Q4_K_M.gguf"]


@given(st.text(min_size=1).filter(lambda name: "/" not in name and "\n" not in name), st.integers(0, 1 << 50))
def test_a_partial_file_s_name_says_of_what_it_is(name: str, size: int) -> None:
    assert read_partial_name(partial_name(name, size, "0123456789abcdef" * 4)) == (name, size)
    assert read_partial_name(name) is None or name.endswith(".part")


@pytest.mark.parametrize("path", ["", "..", "a/../b.gguf", "/a.gguf", "a//b.gguf", "a\\b.gguf", "a\nb.gguf", ".a.gguf"])
def test_names_that_lead_elsewhere_are_refused(path: str) -> None:
    with pytest.raises(OrchError, match="name that is not used here"):
        check_path("org/M", path)


def test_usual_names_are_not() -> None:
    for path in ("M-Q4_K_M.gguf", "UD-Q4_K_XL/M..v2-00001-of-00002.gguf", "Модель Q8_0.gguf"):
        check_path("org/M", path)


def test_a_disk_needs_room_for_what_is_missing_and_a_reserve() -> None:
    assert space_problem("/d", 0, 0) is None
    assert space_problem("/d", 100, RESERVE_BYTES + 100) is None
    problem = space_problem("/d", 21_300_000_000, 4_200_000_000)
    assert problem is not None and "21.3 GB are to be fetched, 4.2 GB are free" in problem.details[0]


@pytest.mark.parametrize(
    ("done", "rate", "line"),
    [
        (0, None, "m  0 %  0 B of 20.0 GB"),
        (5_000_000_000, 112_000_000.0, "m  25 %  5.0 GB of 20.0 GB  112 MB/s  2 min 14 s left"),
        (5_000_000_000, 2_000_000.0, "m  25 %  5.0 GB of 20.0 GB  2.0 MB/s  2 h 05 min left"),
        (20_000_000_000, 5e8, "m  100 %  20.0 GB of 20.0 GB  500 MB/s  0 s left"),
    ],
)
def test_progress_has_bytes_rate_and_time_left(done: int, rate: float | None, line: str) -> None:
    assert progress_words("m", done, 20_000_000_000, rate) == line
