from __future__ import annotations

import math
import random
from pathlib import Path

import gguf
import numpy
import pytest

from orchestrator.adapters.gguf.reader import read_gguf
from orchestrator.adapters.gguf.splits import has_mtp
from orchestrator.engines.known.layout import FLOOR, HEIGHT, WIDTH
from orchestrator.engines.known.model import BYTES, EOS, SPECIAL, KnownModel, known_model, write_known_model
from orchestrator.engines.known.text import TEXT, cut
from tests.known_answers import next_tokens

ARCHITECTURES = ("qwen35moe", "llama")


def test_pieces_are_distinct_and_make_up_the_text() -> None:
    pieces = cut(TEXT)
    assert "".join(pieces) == TEXT
    assert len(set(pieces)) == len(pieces) <= WIDTH
    assert all(piece.isascii() for piece in pieces)


def test_a_repeated_word_is_joined_to_what_follows() -> None:
    assert cut("the cat and the dog and the cow\n") == ("the", " cat", " and", " the", " dog", " and the", " cow\n")


def test_a_text_that_ends_in_a_repetition_is_refused() -> None:
    with pytest.raises(ValueError, match="' no'"):
        cut("yes no no")


def test_the_model_recites_its_text_and_begins_again() -> None:
    model = known_model()
    count = len(cut(TEXT))
    assert model.greedy_text("hello\n", count) == TEXT
    assert model.greedy_text("hello\n", 2 * count) == TEXT * 2


def test_a_model_that_stops_ends_with_the_text() -> None:
    model = known_model(stops=True)
    said = model.greedy_text("hello\n", 10_000)
    assert said == TEXT
    assert EOS not in model.greedy_tokens("hello\n", 10_000)
    count = len(cut(TEXT))
    assert model.greedy_text("hello\n", 2 * count, ignore_eos=True) == TEXT * 2


def test_a_model_that_stops_ends_drawn_answers_as_well() -> None:
    """At the engines' usual temperature answers wander between sentences, and end at the text's end all the same."""
    model = known_model(stops=True)
    chance = random.Random(1)
    lengths = []
    for _ in range(500):
        token, length = model.last_token("hello\n"), 0
        while token != EOS:
            row = model.rows[model.state[token]]
            [token] = chance.choices(list(row), [share ** (1 / 0.8) for share in row.values()])
            length += 1

        lengths.append(length)

    assert min(lengths) > 10 and sorted(lengths)[len(lengths) // 2] < 300 and max(lengths) < 2048


def test_each_printable_character_and_special_token_leads_to_a_sentence() -> None:
    for stops in (False, True):
        model = known_model(stops=stops)
        for prompt in [chr(code) for code in range(32, 127)] + ["\n", "é", *SPECIAL]:
            said = model.greedy_text(f"x{prompt}", 3)
            assert said.strip()[:1].isupper(), (prompt, said)


def test_the_text_is_the_likeliest_and_each_row_adds_up() -> None:
    model = known_model()
    count = len(cut(TEXT))
    first = BYTES + len(SPECIAL)
    for state, row in enumerate(model.rows):
        assert math.isclose(sum(row.values()), 1.0)
        assert max(row, key=row.__getitem__) == first + (state + 1) % count

    assert sum(len(row) > 1 for row in model.rows) > 20, "sampling would always recite the same text"


@pytest.mark.parametrize("accuracy", [0.0, 0.3, 0.8, 1.0])
def test_that_share_of_the_drafts_is_right(accuracy: float) -> None:
    model = known_model(draft_accuracy=accuracy)
    right = sum(
        max(model.rows[to], key=model.rows[to].__getitem__) == max(row, key=row.__getitem__)
        for to, row in zip(model.draft_rows, model.rows, strict=True)
    )
    assert right == len(model.rows) - round((1 - accuracy) * len(model.rows))


def test_a_perfect_draft_head_is_always_accepted() -> None:
    found = known_model(draft_accuracy=1.0).drafting("hello", 200, 3)
    assert found.acceptance == 1.0
    # The first token, then four at a time while four are wanted: 1 + 49 * 4 = 197, and three more from a draft of two.
    assert found.drafted == 49 * 3 + 2


def test_a_useless_draft_head_is_never_accepted() -> None:
    found = known_model(draft_accuracy=0.0).drafting("hello", 100, 2)
    assert found.accepted == 0
    assert found.drafted == 97 * 2 + 1


def test_one_draft_a_step_is_accepted_as_often_as_the_head_is_right() -> None:
    """Over many seeds: which states are drafted from depends on the path, and one round has only some of them."""
    for accuracy in (0.5, 0.9):
        found = [known_model(draft_accuracy=accuracy, seed=seed).drafting("hello", 182, 1) for seed in range(40)]
        mean = sum(drafting.acceptance for drafting in found) / len(found)
        assert mean == pytest.approx(accuracy, abs=0.03)


def test_drafting_stops_below_the_least_probability() -> None:
    model = known_model(draft_accuracy=1.0)
    assert model.drafting("hello", 400, 8, p_min=0.9).drafted < model.drafting("hello", 400, 8).drafted
    assert model.drafting("hello", 400, 8, p_min=1.1).drafted == 0


def test_the_seed_decides_which_drafts_are_wrong() -> None:
    assert known_model(seed=1).draft_rows == known_model(seed=1).draft_rows != known_model(seed=2).draft_rows


def test_a_text_with_too_many_pieces_or_foreign_letters_is_refused() -> None:
    for text in (" ".join(f"w{number}" for number in range(WIDTH + 1)), "naïve words", "a b"):
        with pytest.raises(ValueError, match="pieces"):
            known_model(text=text)


def rms(values: numpy.ndarray) -> numpy.ndarray:
    scaled: numpy.ndarray = values / numpy.sqrt((values**2).mean() + 1e-6)
    return scaled


def probabilities(logits: numpy.ndarray) -> numpy.ndarray:
    weights = numpy.exp(logits - logits.max())
    shares: numpy.ndarray = weights / weights.sum()
    return shares


def tensors_of(path: Path) -> dict[str, numpy.ndarray]:
    return {tensor.name: numpy.asarray(tensor.data, dtype=numpy.float64) for tensor in gguf.GGUFReader(path).tensors}


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_file_computes_the_tables(tmp_path: Path, architecture: str) -> None:
    """What an engine does with it, in float64: embedding, norm, output matrix; and the draft head's way."""
    path = tmp_path / "model.gguf"
    model = write_known_model(str(path), architecture)  # type: ignore[arg-type]
    tensors = tensors_of(path)
    for prompt in ("A", "\n", *SPECIAL):
        embedding = tensors["token_embd.weight"][model.last_token(prompt)]
        found = probabilities(tensors["output.weight"] @ rms(embedding))
        assert_is_row(model, found, next_tokens(model, prompt))

    for name, data in tensors.items():
        if name.endswith(
            ("attn_output.weight", "ssm_out.weight", "ffn_down.weight", "ffn_down_exps.weight", "ffn_down_shexp.weight")
        ):
            assert not data.any(), f"{name} would change the hidden state"

    if architecture == "qwen35moe":
        for state, to in enumerate(model.draft_rows):
            hot = numpy.zeros(WIDTH)
            hot[state] = HEIGHT
            hidden = tensors["blk.4.nextn.eh_proj.weight"] @ numpy.concatenate([rms(hot), rms(numpy.ones(WIDTH))])
            found = probabilities(tensors["output.weight"] @ rms(hidden))
            expected = {model.vocabulary[token]: share for token, share in model.rows[to].items()}
            assert_is_row(model, found, expected)


def assert_is_row(model: KnownModel, found: numpy.ndarray, expected: dict[str, float]) -> None:
    likely = {model.vocabulary[token]: float(share) for token, share in enumerate(found) if share > 1e-9}
    assert likely == pytest.approx(expected, rel=1e-4)


def test_what_never_follows_is_out_of_reach() -> None:
    assert math.exp(FLOOR) * 1000 < 1e-13


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_header_describes_the_architecture(tmp_path: Path, architecture: str) -> None:
    path = tmp_path / "model.gguf"
    write_known_model(str(path), architecture, layers=8, context_length=512)  # type: ignore[arg-type]
    header = read_gguf(str(path))
    hybrid = architecture == "qwen35moe"
    assert (header.architecture, header.context_length) == (architecture, 512)
    assert (header.number("block_count"), has_mtp((header,))) == ((9, True) if hybrid else (8, False))
    assert header.file_size < 16 << 20


def test_writing_twice_gives_the_same_bytes(tmp_path: Path) -> None:
    write_known_model(str(tmp_path / "a"))
    write_known_model(str(tmp_path / "b"))
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
