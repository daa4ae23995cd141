"""The coded model's reference: the tables that it was made of come out of it, and every weight takes part."""

from __future__ import annotations

import math

import pytest

from orchestrator.adapters.gguf.reader import read_gguf
from orchestrator.engines.known.coded import CodedModel, coded_model, prompt_of, write_coded_model


@pytest.fixture(scope="module")
def plain() -> CodedModel:
    return coded_model("f32")


def test_probabilities_are_those_of_the_tables_tilted_by_the_balance(plain: CodedModel) -> None:
    """After a byte whose class alone is in the prompt, the three followers hold nearly everything."""
    truth = sorted((math.exp(each) for each in plain.log_probabilities("b")), reverse=True)
    assert sum(truth[:3]) > 0.99
    assert truth[3] < 0.001


def test_every_letter_of_the_prompt_has_its_part_in_the_answer(plain: CodedModel) -> None:
    one = plain.log_probabilities("b" * 30 + "a" + "b" * 9 + "h")
    other = plain.log_probabilities("b" * 40 + "h")
    assert max(abs(a - b) for a, b in zip(one, other, strict=True)) > 0.02


def test_the_order_of_the_prompt_does_not_matter_but_for_its_end(plain: CodedModel) -> None:
    one, other = plain.log_probabilities("abababh"), plain.log_probabilities("bbbaaah")
    assert one == pytest.approx(other, abs=1e-9)


@pytest.mark.parametrize("type", ["q4_0", "q4_K", "iq4_xs"])
def test_quantised_weights_say_nearly_the_same(plain: CodedModel, type: str) -> None:
    prompt = prompt_of(33, 0.75, 3)
    coarse = coded_model(type).log_probabilities(prompt)
    best = max(range(len(coarse)), key=coarse.__getitem__)
    assert abs(coarse[best] - plain.log_probabilities(prompt)[best]) < 0.7


def test_a_prompt_has_its_length_and_its_share() -> None:
    prompt = prompt_of(700, 0.25, 9)
    assert len(prompt) == 700
    assert sum(ord(letter) % 2 == 0 for letter in prompt) == 175


def test_the_file_has_the_type_that_was_asked_for(tmp_path, plain: CodedModel) -> None:  # type: ignore[no-untyped-def]
    path = str(tmp_path / "coded.gguf")
    write_coded_model(path, coded_model("q4_1"))
    header = read_gguf(path)
    types = {tensor.name: tensor.type for tensor in header.tensors}
    assert types["blk.0.ffn_up.weight"] == 3
    assert types["output_norm.weight"] == 0
